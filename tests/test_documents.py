from __future__ import annotations

import pytest

from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError


def test_what_is_written_is_read():
    assert parse_yaml("a: [1, two]\nb: 1.0e-3", "x.yaml") == {"a": [1, "two"], "b": 1e-3}


def test_the_line_that_is_wrong_is_named():
    with pytest.raises(UserError, match=r"x\.yaml is not valid YAML, line 3: .+\.$"):
        parse_yaml("a: 1\nb: [1,\nc: }", "x.yaml")


def test_objects_are_not_made():
    with pytest.raises(UserError, match="is not valid YAML"):
        parse_yaml("!!python/object/apply:os.getcwd []", "x.yaml")
