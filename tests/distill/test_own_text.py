from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mpcbench.distill.data import training_texts
from mpcbench.distill.own_text import BETWEEN, LEAST_WORDS, Alike, self_texts
from mpcbench.errors import UserError
from tests.distill.runs import checkpoint
from tests.tiny import tiny_texts, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GIVEN = [TOKENIZER(text)["input_ids"] for text in tiny_texts(count=20, words=6)]


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("mpcbench.distill.own_text.SELF_PASSAGES", 32)
    monkeypatch.setattr("mpcbench.distill.own_text.SELF_LENGTH", 8)


def writes(original, monkeypatch, words):
    """Let every row of a batch be continued by these words; returns what was asked of the model."""
    asked = []

    def generate(self, input_ids, attention_mask, **settings):
        asked.append((input_ids, attention_mask))
        tail = torch.tensor([TOKENIZER(words)["input_ids"]] * len(input_ids))
        return torch.cat([input_ids, tail], dim=1)

    monkeypatch.setattr(type(original.model), "generate", generate)
    return asked


def test_self_is_sampled_once_and_leaves_the_generator_alone(monkeypatch):
    original = checkpoint()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = training_texts("self", original)
    assert torch.equal(torch.rand(1), expected)
    assert 0 < len(first.texts) <= 32
    assert all(word.startswith("w") for text in first.texts for word in text.split())
    monkeypatch.setattr(type(original.model), "generate", None)
    assert self_texts(original) == first


def test_passages_behind_examples_are_new_and_none_comes_twice():
    original = checkpoint()
    found = self_texts(original, count=40, alike=Alike(GIVEN, 2)).texts
    assert len(found) == len(set(found)) == 40
    assert not set(found) & set(TOKENIZER.batch_decode(GIVEN))
    assert all(LEAST_WORDS <= len(text.split()) <= 8 for text in found)
    assert self_texts(original, count=40).texts != found  # another text, kept under another name
    assert self_texts(original, count=40, alike=Alike(GIVEN, 3)).texts != found


def test_each_is_written_behind_as_many_examples_as_asked(monkeypatch):
    original = checkpoint()
    asked = writes(original, monkeypatch, "w5 w6 w7 w8 w9")
    monkeypatch.setattr("mpcbench.distill.own_text.BETWEEN", " w4 ")
    assert self_texts(original, count=1, alike=Alike(GIVEN, 3)).texts == ["w5 w6 w7 w8 w9"]
    prompts = [ids[real.bool()].tolist() for ids, real in zip(*asked[0], strict=True)]
    for prompt in prompts:
        assert [prompt[end] for end in (6, 13, 20)] == [4] * 3 and len(prompt) == 21
        assert all(prompt[start : start + 6] in GIVEN for start in (0, 7, 14))
    assert all(first != second for first, second in pairwise(prompts))


def test_examples_that_do_not_fit_are_refused():
    original = checkpoint()
    positions = original.model.config.max_position_embeddings
    many = Alike([[4] * (positions // 2)] * 3, 2)
    with pytest.raises(UserError, match=f"into the model's {positions} positions: set own_text.examples to"):
        self_texts(original, count=1, alike=many)


def test_a_passage_ends_where_the_next_begins(monkeypatch):
    original = checkpoint()
    writes(original, monkeypatch, "w5")
    decoded = f"w1 w2 w3 w4{BETWEEN}w5 w6 w7 w8"
    monkeypatch.setattr(
        type(original.tokenizer), "batch_decode", lambda self, rows, **settings: [decoded] * len(rows)
    )
    assert self_texts(original, count=1, alike=Alike(GIVEN, 1)).texts == ["w1 w2 w3 w4"]


def test_a_model_that_repeats_itself_gives_fewer(monkeypatch):
    original = checkpoint()
    writes(original, monkeypatch, "w5 w6 w7 w8 w9")
    assert len(self_texts(original, count=9, alike=Alike(GIVEN, 2)).texts) == 1


def test_few_passages_are_all_examples(monkeypatch):
    original = checkpoint()
    asked = writes(original, monkeypatch, "w5 w6 w7 w8 w9")
    assert self_texts(original, count=1, alike=Alike(GIVEN[:2], 5)).texts == ["w5 w6 w7 w8 w9"]
    assert asked[0][0].shape[1] == 2 * 6
