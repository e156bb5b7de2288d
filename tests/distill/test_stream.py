from __future__ import annotations

import pytest
import torch

from mpcbench.distill.stream import Stream, divergence
from tests.tiny import tiny_llama

SEQUENCES = [[1, 5, 9, 33, 7, 60, 4], [8], [3, 3, 17, 50], list(range(3, 40))]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_whole_run_is_the_model(implementation, monkeypatch):
    monkeypatch.setattr("mpcbench.distill.stream.BATCH_TOKENS", 20)
    model = tiny_llama(layers=3)
    model.set_attn_implementation(implementation)
    stream = Stream(model, SEQUENCES)
    stream.run(range(3))
    ours = torch.cat(list(stream.log_probabilities()))
    by_length = sorted(SEQUENCES, key=len)
    model_s = torch.cat([model(torch.tensor([ids])).logits[0].log_softmax(-1) for ids in by_length])
    torch.testing.assert_close(ours, model_s, atol=1e-5, rtol=1e-4)
    starts = torch.tensor([0, 1, 5, 12])
    assert torch.equal(stream.first.nonzero()[:, 0], starts)


def test_mlp_inputs_are_what_the_mlp_sees():
    model = tiny_llama()
    seen = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    for ids in sorted(SEQUENCES, key=len):
        model(torch.tensor([ids]))
    stream = Stream(model, SEQUENCES)
    stream.run(range(1))
    stream.attend(1)
    ours = torch.cat(stream.mlp_inputs(1))
    torch.testing.assert_close(ours, torch.cat(seen), atol=1e-5, rtol=1e-4)


def test_weights_follow_their_texts():
    model = tiny_llama()
    assert torch.equal(Stream(model, SEQUENCES).weight, torch.ones(49))
    weights = Stream(model, SEQUENCES, [0.5, 2.0, 0.25, 1.0]).weight
    assert weights.tolist() == [2.0] + [0.25] * 4 + [0.5] * 7 + [1.0] * 37


def test_a_branch_leaves_its_stream_alone():
    model = tiny_llama()
    stream = Stream(model, SEQUENCES)
    before = [hidden.clone() for hidden in stream.hidden]
    stream.branch().run(range(2))
    assert all(torch.equal(a, b) for a, b in zip(before, stream.hidden, strict=True))


def test_divergence_is_mean_kl_over_real_tokens():
    model = tiny_llama()
    full, cut = Stream(model, SEQUENCES), Stream(model, SEQUENCES)
    full.run(range(2))
    cut.run(range(1))
    original = list(full.log_probabilities())
    p, q = torch.cat(original), torch.cat(list(cut.log_probabilities()))
    expected = (p.exp() * (p - q)).sum(-1).mean().item()
    kl, agreement, tokens = divergence(original, cut)
    assert kl == pytest.approx(expected, rel=1e-5)
    assert agreement == pytest.approx((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    assert tokens == sum(map(len, SEQUENCES))
    assert divergence(original, full)[:2] == (pytest.approx(0.0, abs=1e-7), 1.0)
