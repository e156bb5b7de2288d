from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mpcbench.checkpoints import (
    PolyLlamaConfig,
    PolyLlamaForCausalLM,
    PolynomialGLU,
    PolynomialMLP,
    weights_sha256,
    with_polynomials,
)
from mpcbench.errors import UserError
from tests.tiny import tiny_llama

IDS = torch.tensor([[1, 5, 9, 33, 7, 60, 4]])


def random_coefficients(layers, degree, channels=24):
    generator = torch.Generator().manual_seed(7)
    return {layer: torch.randn(degree + 1, channels, generator=generator) * 0.3 for layer in layers}


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_glu_is_the_polynomial_of_each_channel(degree):
    glu = PolynomialGLU(5, degree)
    rows = torch.randn(degree + 1, 5)
    glu.coefficients.data = rows
    gate, up = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    expected = sum(rows[power] * gate**power for power in range(degree + 1)) * up
    torch.testing.assert_close(glu(gate, up), expected)


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_is_bit_equal(tmp_path, degree, tied):
    model = with_polynomials(tiny_llama(layers=3, tied=tied), random_coefficients([0, 2], degree), degree)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, PolyLlamaForCausalLM)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), PolyLlamaConfig)
    assert (loaded.config.polynomial_layers, loaded.config.polynomial_degree) == ([0, 2], degree)
    assert torch.equal(logits(loaded), logits(model))
    assert weights_sha256(loaded) == weights_sha256(model)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_only_the_chosen_layers_change_and_weights_are_shared():
    llama = tiny_llama(layers=3)
    before = logits(llama)
    poly = with_polynomials(llama, random_coefficients([1], 2), 2)
    kinds = [isinstance(layer.mlp, PolynomialMLP) for layer in poly.model.layers]
    assert kinds == [False, True, False]
    shared = poly.model.layers[1].mlp.up_proj.weight
    assert shared.data_ptr() == llama.model.layers[1].mlp.up_proj.weight.data_ptr()
    assert torch.equal(logits(llama), before)
    assert not torch.equal(logits(poly), before)


def test_without_polynomial_layers_it_is_the_llama():
    llama = tiny_llama()
    assert torch.equal(logits(with_polynomials(llama, {}, 2)), logits(llama))


def test_generate_with_cache_equals_greedy_steps_without():
    model = with_polynomials(tiny_llama(layers=3), random_coefficients([0, 1], 2), 2)
    made = model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=5, do_sample=False)
    ids = IDS
    with torch.no_grad():
        for _ in range(made.shape[1] - IDS.shape[1]):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    assert made.shape[1] > IDS.shape[1]
    assert torch.equal(made, ids)


def test_a_fresh_model_starts_from_the_series_of_silu():
    config = PolyLlamaConfig(
        polynomial_layers=[1], polynomial_degree=4, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=4, vocab_size=64,
    )  # fmt: skip
    coefficients = PolyLlamaForCausalLM(config).model.layers[1].mlp.activation.coefficients
    gate = torch.linspace(-0.3, 0.3, 24)
    glu = PolynomialGLU(24, 4)
    glu.coefficients.data = coefficients.data
    torch.testing.assert_close(glu(gate, torch.ones(24)), torch.nn.functional.silu(gate), atol=1e-5, rtol=0)


@pytest.mark.parametrize("degree", [1, 5, 2.5, True])
def test_degrees_that_are_not_offered(degree):
    with pytest.raises(UserError, match="choose 2, 3 or 4"):
        PolyLlamaConfig(polynomial_degree=degree, num_hidden_layers=2)


@pytest.mark.parametrize("layers, sentence", [([2], "0 to 1"), ([-1], "0 to 1"), ([1, 1], "more than once")])
def test_layers_that_are_impossible(layers, sentence):
    with pytest.raises(UserError, match=sentence):
        PolyLlamaConfig(polynomial_layers=layers, num_hidden_layers=2)


def test_layers_are_kept_sorted():
    assert PolyLlamaConfig(polynomial_layers=(3, 0), num_hidden_layers=4).polynomial_layers == [0, 3]
