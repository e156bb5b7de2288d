from __future__ import annotations

import pytest
import torch

from mpcbench.accuracy.questions import Question, QuestionSet
from mpcbench.distill.data import (
    HELD_OUT_TOKENS,
    Batches,
    for_calibration,
    pad,
    training_split,
    training_texts,
    without_questions,
)
from mpcbench.distill.texts import Split, Texts
from mpcbench.errors import UserError
from tests.distill.runs import checkpoint
from tests.tiny import tiny_texts, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def texts(passages):
    return Texts(passages, "passages", "0" * 64)


def test_every_eighth_passage_is_held_out_whole():
    passages = tiny_texts(count=24, words=300)
    parts = training_split(texts(passages), TOKENIZER)
    assert [len(window) for window in parts.held_out] == [256, 44] * 3
    ids = [TOKENIZER(passage)["input_ids"] for passage in passages]
    assert parts.held_out[:2] == [ids[7][:256], ids[7][256:]]
    assert parts.fit[:2] == [ids[0][:256], ids[0][256:]]
    assert sum(map(len, parts.fit)) == 21 * 300


def test_wrong_answers_are_those_of_questions_that_are_trained_on():
    passages = tiny_texts(count=24, words=10)
    wrong = {passage: [f"{passage} w{index}", f"{passage} w5"] for index, passage in enumerate(passages)}
    asked = Texts.of(passages, "questions", wrong)
    plain, more = (training_split(asked, TOKENIZER, wanted) for wanted in (False, True))
    assert (plain.fit, plain.held_out, plain.wrong) == (more.fit, more.held_out, [])
    assert len(more.wrong) == 2 * len(more.fit)
    assert [tokens[:10] for tokens in more.wrong[::2]] == more.fit


def test_what_is_left_of_texts_keeps_its_wrong_answers():
    passages = [f"Question: {name}?\nAnswer: yes" for name in "abcd"]
    wrong = {passage: [passage.replace("yes", "no")] for passage in passages[1:]}
    asked = QuestionSet("task", "task", [Question("b?", ["yes", "no"], 0)])
    left = without_questions(Texts.of(passages, "questions", wrong), asked)
    assert left.texts == [passages[0], *passages[2:]] and list(left.wrong) == passages[2:]


def test_what_is_held_out_has_an_end():
    parts = training_split(texts(tiny_texts(count=400, words=100)), TOKENIZER)
    held = sum(map(len, parts.held_out))
    assert HELD_OUT_TOKENS <= held < HELD_OUT_TOKENS + 100
    assert held + sum(map(len, parts.fit)) == 400 * 100


@pytest.mark.parametrize("passages", [tiny_texts(count=7), ["w3"] * 20, []])
def test_too_little_text_is_refused(passages):
    with pytest.raises(UserError, match="too little text"):
        training_split(texts(passages), TOKENIZER)


def test_calibration_sees_the_beginning():
    parts = Split([[1] * 100] * 500, [[2, 3]])
    assert sum(map(len, for_calibration(parts).fit)) == 10_000
    assert sum(map(len, for_calibration(parts, 250).fit)) == 300
    assert for_calibration(parts).held_out == [[2, 3]]


def test_labels_are_the_next_tokens():
    batch = pad([[1, 5, 9], [8, 4]])
    assert batch.labels.tolist() == [5, 9, -100, 4, -100]
    assert batch.ids[batch.real].tolist() == [1, 5, 9, 8, 4]


def test_an_epoch_holds_every_passage_once_and_batches_keep_to_their_size():
    sequences = [[index] * (1 + index % 7) for index in range(1, 60)]
    batches = Batches(sequences, 20, seed=0)
    seen, index = [], 0
    while len(seen) < len(sequences):
        batch = batches[index]
        assert batch.ids.numel() <= 20
        seen += batch.ids[:, 0].tolist()
        index += 1
    assert sorted(seen) == list(range(1, 60))


def test_a_long_passage_is_a_batch_of_its_own():
    sizes = {tuple(Batches([[1] * 50, [2] * 3, [3] * 3], 6, 0)[index].ids.shape) for index in range(2)}
    assert sizes == {(1, 50), (2, 3)}


def test_the_order_depends_on_the_seed_alone():
    sequences = [[index] * 3 for index in range(40)]
    first = Batches(sequences, 9, seed=0)
    in_order = [first[index].ids.tolist() for index in range(40)]
    torch.randn(5)
    later = Batches(sequences, 9, seed=0)
    assert later[33].ids.tolist() == in_order[33]  # a resumed run asks in the middle
    assert [later[index].ids.tolist() for index in range(40)] == in_order
    other = Batches(sequences, 9, seed=1)
    assert [other[index].ids.tolist() for index in range(40)] != in_order
    assert in_order[:14] != in_order[14:28]  # epochs differ


def test_a_file_without_text_is_refused(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(UserError, match="holds 0 passages"):
        training_texts(str(empty), checkpoint())
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"title": "x"}\n')
    with pytest.raises(UserError, match=r"line 1.*has no text"):
        training_texts(str(bare), checkpoint())
