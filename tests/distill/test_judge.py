from __future__ import annotations

import pytest
import torch

from mpcbench.distill.judge import Judge
from mpcbench.distill.objective import outputs_of
from tests.tiny import tiny_llama

SEQUENCES = [[1, 5, 9, 33, 7, 60, 4], [8, 4], [3, 3, 17, 50], *([index, 9, 5] for index in range(3, 25))]


def test_a_model_is_no_distance_from_itself():
    model = tiny_llama()
    verdict = Judge(model, SEQUENCES).judge(model, [0])
    assert verdict.kl == pytest.approx(0, abs=1e-6)
    assert (verdict.argmax_agreement, verdict.layer_mse) == (1.0, 0.0)


@torch.no_grad()
def test_the_verdict_is_what_plain_passes_over_each_text_give():
    reference, other = tiny_llama(), tiny_llama(seed=1)
    kl, equal, tokens, error, later = 0.0, 0, 0, 0.0, 0
    for sequence in SEQUENCES:
        ids = torch.tensor([sequence])
        with outputs_of(reference, [1]) as goal, outputs_of(other, [1]) as seen:
            p, q = (model(ids).logits[0].log_softmax(-1) for model in (reference, other))
        kl += (p.exp() * (p - q)).sum().item()
        equal += int((p.argmax(-1) == q.argmax(-1)).sum())
        tokens += len(sequence)
        error += (goal[1] - seen[1])[0, 1:].square().mean(-1).sum().item()
        later += len(sequence) - 1
    verdict = Judge(reference, SEQUENCES).judge(other, [1])
    assert verdict.tokens == tokens
    assert verdict.kl == pytest.approx(kl / tokens, rel=1e-4)
    assert verdict.argmax_agreement == equal / tokens
    assert verdict.layer_mse == pytest.approx(error / later, rel=1e-4)
    assert Judge(reference, SEQUENCES).judge(other, []).layer_mse is None
