from __future__ import annotations

import random

import pytest
import torch

from mpcbench.accuracy import prefix
from tests.tiny import tiny_llama


def random_pairs(seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Continuations of one to five tokens of ten contexts of one to fourteen, in a shuffled order."""
    rng = random.Random(seed)

    def tokens(least: int, most: int) -> list[int]:
        return [rng.randrange(64) for _ in range(rng.randint(least, most))]

    pairs = [(context, tokens(1, 5)) for context in (tokens(1, 14) for _ in range(10)) for _ in range(4)]
    rng.shuffle(pairs)
    return pairs


def one_by_one(model, pairs):
    """The definition: each continuation on its own row, without padding or mask."""
    answers = []
    for context, continuation in pairs:
        with torch.no_grad():
            logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
        chosen = logits.double().log_softmax(-1)[range(len(continuation)), continuation]
        answers.append((float(chosen.sum()), logits.argmax(-1).tolist() == continuation))
    return answers


@pytest.mark.parametrize("budget", [1, 40, 10_000])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_equal_separate_rows(attention, budget, monkeypatch):
    model = tiny_llama(layers=3)
    model.set_attn_implementation(attention)
    whole = prefix.batches
    monkeypatch.setattr(prefix, "batches", lambda rows: whole(rows, budget))
    pairs = random_pairs()
    greedy = one_by_one(model, [(pairs[0][0], [t]) for t in range(64)])
    best = next(token for token, (_, is_greedy) in enumerate(greedy) if is_greedy)
    pairs.append((pairs[0][0], [best]))
    expected = one_by_one(model, pairs)
    found = prefix.log_likelihoods(model, pairs)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    assert found[-1][1]


def test_every_pair_is_reported_once_with_its_answer():
    pairs, reported = random_pairs(), {}

    def answered(index, answer):
        assert index not in reported
        reported[index] = answer

    answers = prefix.log_likelihoods(tiny_llama(), pairs, answered)
    assert [reported[index] for index in range(len(pairs))] == answers


def test_batches_keep_the_budget_and_every_row():
    rows = prefix.pack(random_pairs())
    assert len(rows) == 10
    batches = list(prefix.batches(rows, 60))
    assert [row for batch in batches for row in batch] == rows
    assert len(batches) > 1
    for batch in batches:
        assert len(batch) == 1 or max(row.length for row in batch) * len(batch) <= 60
