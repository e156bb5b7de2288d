from __future__ import annotations

import json

import pytest

from mpcbench.distill.texts import FIT_TOKENS, HELD_OUT_TOKENS, WINDOW, calibration_texts, split
from mpcbench.errors import UserError
from tests.tiny import tiny_texts, tiny_tokenizer

QUESTION = {
    "id": "1",
    "question": "What is red?",
    "choices": {"text": ["snow", "blood"], "label": ["A", "B"]},
    "answerKey": "B",
}


def test_the_packaged_text():
    texts = calibration_texts()
    assert 160 <= len(texts.texts) <= 220
    assert len(set(texts.texts)) == len(texts.texts)
    assert any("\nAnswer: " in text for text in texts.texts)
    assert not any("\\n" in text for text in texts.texts)
    assert texts.description == "packaged calibration text"


def test_arc_questions_come_with_their_right_answer(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text((json.dumps(QUESTION) + "\n") * 2)
    texts = calibration_texts(str(path))
    assert texts.texts == ["Question: What is red?\nAnswer: blood"] * 2
    assert texts.wrong == {texts.texts[0]: ["Question: What is red?\nAnswer: snow"]}
    assert texts.description == "some.jsonl"


def test_a_passage_of_text_has_no_wrong_answers(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text(json.dumps(QUESTION) + "\n" + json.dumps({"text": "Snow is white."}) + "\n")
    texts = calibration_texts(str(path))
    assert texts.texts[1] == "Snow is white." and list(texts.wrong) == texts.texts[:1]
    (tmp_path / "same.txt").write_text("Question: What is red?\\nAnswer: blood\nSnow is white.\n")
    assert calibration_texts(str(tmp_path / "same.txt")).sha256 == texts.sha256  # named by its passages alone


def test_a_text_file_has_a_passage_a_line(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text("One.\\nTwo.\n\n  Three.  \n")
    first = calibration_texts(str(path))
    assert first.texts == ["One.\nTwo.", "Three."]
    path.write_text("One.\\nTwo.\n\n  Four.  \n")
    assert calibration_texts(str(path)).sha256 != first.sha256


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.jsonl", json.dumps(QUESTION) + "\n{}\n", "line 2, is not a question in ARC's format"),
        ("a.jsonl", "not json\n", "line 1"),
        ("a.jsonl", json.dumps(QUESTION | {"answerKey": "E"}), "line 1"),
        ("a.txt", "\n\n", "holds 0 passages"),
        ("a.txt", b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_files_that_are_refused(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence):
        calibration_texts(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="There is no calibration file"):
        calibration_texts(str(tmp_path / "nothing.txt"))


def texts_of(tmp_path, lines):
    path = tmp_path / "x.txt"
    path.write_text("\n".join(lines))
    return calibration_texts(str(path))


def test_held_out_passages_are_never_fitted(tmp_path):
    lines = tiny_texts(count=40)
    parts = split(texts_of(tmp_path, lines), tiny_tokenizer())
    assert len(parts.held_out) == 5
    assert len(parts.fit) == 35
    assert parts.fit_tokens == 35 * 20
    assert not {tuple(t) for t in parts.held_out} & {tuple(t) for t in parts.fit}


def test_two_passages_are_one_to_fit_and_one_to_hold_out(tmp_path):
    parts = split(texts_of(tmp_path, ["w3 w4", "w5"]), tiny_tokenizer())
    assert (parts.fit, parts.held_out) == ([[3, 4]], [[5]])


def test_long_texts_are_cut_and_endless_ones_end(tmp_path):
    parts = split(texts_of(tmp_path, tiny_texts(count=30, words=WINDOW * 3 + 1)), tiny_tokenizer())
    assert max(map(len, parts.fit + parts.held_out)) == WINDOW
    assert FIT_TOKENS <= parts.fit_tokens < FIT_TOKENS + WINDOW
    assert HELD_OUT_TOKENS <= sum(map(len, parts.held_out)) < HELD_OUT_TOKENS + WINDOW
