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


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("a:\n  c: 1\n  c: 2", 3), ("[{a: 1, a: 1}]", 1)]
)
def test_a_key_that_stands_twice_is_refused(text: str, line: int):
    with pytest.raises(UserError, match=rf"line {line}: '.' stands there for the second time\.$"):
        parse_yaml(text, "x.yaml")


def test_keys_may_be_merged():
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x, k: 2}", "x.yaml")["b"] == {"k": 2}
