from __future__ import annotations

import collections
import json
from importlib import resources

import pytest

from mpcbench import hub
from mpcbench.accuracy import questions
from mpcbench.errors import UserError
from tests.accuracy.questions import tiny_rows, write_rows

GOOD = {"question": "Q?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "2"}


def test_labels_by_letter_and_by_digit_name_the_right_choice(tmp_path):
    lettered = {**GOOD, "choices": {"text": ["a", "b", "c"], "label": ["A", "B", "C"]}, "answerKey": "C"}
    found = questions.read_file(write_rows(tmp_path / "two.jsonl", [GOOD, lettered])).questions
    assert [question.answer for question in found] == ["b", "c"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        (json.dumps({**GOOD, "question": " "}), "'question' is missing or empty"),
        (json.dumps({**GOOD, "choices": ["a"]}), "'choices' is missing or not an object"),
        (json.dumps({**GOOD, "choices": {"text": ["a"], "label": ["1"]}}), "two or more texts"),
        (json.dumps({**GOOD, "choices": {"text": ["a", 7], "label": ["1", "2"]}}), "two or more texts"),
        (json.dumps({**GOOD, "choices": {"text": ["a", "b"], "label": ["1"]}}), "each of the 2 choices"),
        (json.dumps({**GOOD, "choices": {"text": ["a", "b"], "label": ["1", "1"]}}), "each of the 2 choices"),
        (json.dumps({**GOOD, "answerKey": "4"}), "'answerKey' '4' is not one of the labels"),
        (json.dumps({"question": "Q?", "choices": GOOD["choices"]}), "'answerKey' None"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, complaint):
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(GOOD) + "\n\n" + line + "\n")
    with pytest.raises(UserError) as caught:
        questions.read_file(file)
    assert str(caught.value).startswith(f"{file}, line 3: ")
    assert complaint in str(caught.value)


def test_a_missing_an_empty_and_a_binary_file_are_sentences(tmp_path):
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.write_text("\n")
    binary.write_bytes(b"\xff\xfe\x00")
    for file, complaint in ((tmp_path / "no", "cannot be read"), (empty, "no questions"), (binary, "UTF-8")):
        with pytest.raises(UserError, match=complaint):
            questions.read_file(file)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(UserError, match="limit"):
        questions.packaged().head(limit)


def test_content_alone_decides_the_hash(tmp_path):
    rows = tiny_rows(4)
    one, two = (questions.read_file(write_rows(tmp_path / name, rows)) for name in ("a.jsonl", "b.jsonl"))
    assert one.sha256 == two.sha256
    rows[2]["answerKey"] = next(x for x in rows[2]["choices"]["label"] if x != rows[2]["answerKey"])
    assert questions.read_file(write_rows(tmp_path / "a.jsonl", rows)).sha256 != one.sha256


def test_without_a_hub_and_a_file_the_packaged_questions_go_by_their_own_name(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    found = questions.load_questions(None)
    assert found.task == "mpcbench-science"
    assert "arc" not in found.task and "not ARC" in found.source


def test_with_a_hub_arc_easy_comes_from_where_lm_eval_takes_it(monkeypatch):
    import datasets

    asked = []

    def load_dataset(path, name, split):
        asked.append((path, name, split))
        return datasets.Dataset.from_list([GOOD])

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = questions.load_questions(None)
    assert asked == [("allenai/ai2_arc", "ARC-Easy", "test")]
    assert found.task == "arc_easy" and "ARC-Easy, test split" in found.source
    assert [question.answer for question in found.questions] == ["b"]


def test_a_hub_that_fails_half_way_is_a_sentence(monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="--task-data"):
        questions.load_questions(None)


class TestPackagedSet:
    @pytest.fixture
    def rows(self):
        file = resources.files("mpcbench.accuracy") / "data" / "science.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    def test_it_is_large_unique_and_well_formed(self, rows):
        assert len(rows) >= 160
        assert len({row["id"] for row in rows}) == len(rows)
        assert len({row["question"].casefold() for row in rows}) == len(rows)
        for row in rows:
            texts = row["choices"]["text"]
            assert row["choices"]["label"] == list("ABCD") and row["answerKey"] in "ABCD"
            assert len({text.casefold() for text in texts}) == 4, row["id"]
            assert all(text == text.strip() for text in [row["question"], *texts])

    @pytest.mark.parametrize("count", [40, 80, None])
    def test_no_position_is_favoured_also_under_a_limit(self, rows, count):
        keys = collections.Counter(row["answerKey"] for row in rows[:count])
        assert min(keys[key] for key in "ABCD") / len(rows[:count]) > 0.2

    @pytest.mark.parametrize("best", [max, min])
    def test_length_does_not_give_the_answer_away(self, rows, best):
        hits = 0.0
        for row in rows:
            lengths = [len(text) for text in row["choices"]["text"]]
            chosen = [label for label, size in zip("ABCD", lengths, strict=True) if size == best(lengths)]
            hits += (row["answerKey"] in chosen) / len(chosen)
        assert hits / len(rows) < 0.40

    def test_a_limit_takes_some_of_every_topic(self, rows):
        topics = {row["id"].rsplit("-", 1)[0] for row in rows}
        assert len(topics) >= 7
        assert {row["id"].rsplit("-", 1)[0] for row in rows[:40]} == topics
