from __future__ import annotations

import pytest
import torch

import mpcbench.compat  # noqa: F401  (before transformers)

# isort: split

from transformers import LlamaConfig

from mpcbench.distill import memory
from mpcbench.distill.memory import GPU, HOST, memory_plan, refuse_too_little
from mpcbench.distill.recipe import load_recipe
from mpcbench.distill.student import Start, Student, power_basis
from mpcbench.errors import UserError
from tests.tiny import tiny_llama

LLAMA_2_7B = LlamaConfig(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=32, vocab_size=32000, tie_word_embeddings=False,
)  # fmt: skip


def needs(config, device="cuda", **changes):
    return {need.what: need for need in memory_plan(config, load_recipe("mpcbench", changes), device)}


def test_llama_2_7b_has_its_published_size():
    assert needs(LLAMA_2_7B)["the original, float32"].size == pytest.approx(4 * 6.738e9, rel=1e-3)


def test_what_is_trained_is_counted_to_the_parameter():
    recipe = load_recipe("mpcbench", {"student.lora_rank": 3})
    model = tiny_llama(layers=2)
    student = Student(model, recipe.student, [0, 1])
    for layer in (0, 1):
        channels = model.config.intermediate_size
        ones = torch.ones(channels)
        start = Start(torch.zeros(3, channels), power_basis(ones, 2), ones)
        student.replace(layer, start, shared=False)
    trained = sum(p.numel() for p in student.parameters() if p.requires_grad)
    counted = needs(model.config, **{"student.lora_rank": 3})[
        "what is trained, its gradients and AdamW's means"
    ]
    # The plan leaves out the last norm.
    assert counted.size == 16 * (trained - model.config.hidden_size)


def test_four_bits_take_an_eighth_and_more_tokens_take_more():
    full, packed = (
        needs(LLAMA_2_7B, **{"student.precision": precision})["the student's frozen weights"].size
        for precision in ("float32", "nf4")
    )
    assert packed < full / 5
    few, many = (needs(LLAMA_2_7B, **{"optimiser.tokens": n}) for n in (500, 1000))
    assert many["activations of 1000 tokens"].size == 2 * few["activations of 500 tokens"].size


def test_on_a_cpu_everything_is_in_one_memory():
    assert {need.where for need in needs(LLAMA_2_7B, "cpu").values()} == {HOST}
    assert {need.where for need in needs(LLAMA_2_7B, "cuda").values()} == {HOST, GPU}


def test_too_little_memory_is_refused_with_both_numbers(monkeypatch):
    plan = memory_plan(LLAMA_2_7B, load_recipe("mpcbench"), "cpu")
    total = sum(need.size for need in plan) / 2**30
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("M", (), {"available": 8 << 30}))
    with pytest.raises(UserError, match=f"needs about {total:.1f} GiB of memory and 8.0 GiB are free"):
        refuse_too_little(plan)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("M", (), {"available": 8 << 40}))
    refuse_too_little(plan)
