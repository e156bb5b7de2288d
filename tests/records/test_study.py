from __future__ import annotations

import pytest

from mpcbench.errors import UserError
from mpcbench.records.study import read_study, write_study
from tests.report.studies import make_study


def test_a_study_comes_back_as_it_was_written(tmp_path):
    write_study(make_study(), tmp_path / "study.json")
    assert read_study(tmp_path / "study.json") == make_study()


def test_a_missing_and_a_damaged_study_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="run `mpcbench study` first"):
        read_study(tmp_path / "study.json")
    (tmp_path / "study.json").write_text('{"cells": []}')
    with pytest.raises(UserError, match=r"study\.json is not the record of a study: remove it"):
        read_study(tmp_path / "study.json")
