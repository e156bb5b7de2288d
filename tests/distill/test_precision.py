from __future__ import annotations

import pytest
import torch

from mpcbench.distill.precision import (
    HalfLinear,
    bitsandbytes,
    dense_weight,
    is_projection,
    rounded,
    with_precision,
)
from tests.tiny import tiny_llama


def weight():
    torch.manual_seed(0)
    return 0.05 * torch.randn(96, 640)


@pytest.mark.parametrize("double", [False, True])
def test_nf4_is_bitsandbytes_own(double):
    functional = bitsandbytes().functional
    packed, state = functional.quantize_4bit(
        weight(), blocksize=64, quant_type="nf4", compress_statistics=double
    )
    expected = functional.dequantize_4bit(packed, state)
    ours = rounded(weight(), "nf4", double)
    assert ours.dtype == torch.float32 and ours.shape == weight().shape
    assert torch.equal(ours, expected.bfloat16().float())


def test_a_block_holds_sixteen_values():
    block = rounded(weight(), "nf4")[0, :64]
    assert len(block.unique()) <= 16
    assert 0.05 < (block - weight()[0, :64]).norm() / weight()[0, :64].norm() < 0.2


def test_double_quantisation_is_another_rounding_and_a_close_one():
    plain, double = rounded(weight(), "nf4"), rounded(weight(), "nf4", True)
    assert not torch.equal(plain, double)
    assert (plain - double).norm() < 0.05 * plain.norm()


def test_float32_and_bfloat16():
    assert torch.equal(rounded(weight(), "float32"), weight())
    assert torch.equal(rounded(weight(), "bfloat16"), weight().bfloat16().float())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "nf4"])
@pytest.mark.parametrize("tied", [True, False])
def test_projections_are_rounded_and_all_else_is_shared(precision, tied):
    model = tiny_llama(hidden=64, intermediate=64, tied=tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = with_precision(model, precision, "cpu")
    original = dict(model.named_parameters())
    for name, parameter in copy.named_parameters():
        if is_projection(name.removesuffix(".weight")) and precision != "float32":
            assert torch.equal(parameter, rounded(original[name], precision))
            assert not torch.equal(parameter, original[name])
        else:
            assert parameter.data_ptr() == original[name].data_ptr()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (copy.lm_head.weight is copy.model.embed_tokens.weight) is tied


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_in_two_bytes_takes_inputs_of_any_precision(bias):
    torch.manual_seed(0)
    full, rows = torch.nn.Linear(8, 4, bias=bias), torch.randn(3, 8)
    half = HalfLinear.of(full)
    assert half.weight.dtype == torch.bfloat16 and not any(p.requires_grad for p in half.parameters())
    expected = torch.nn.functional.linear(rows, full.weight.bfloat16().float(), full.bias)
    assert torch.equal(half(rows), expected) and torch.equal(dense_weight(half), half.weight.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert half(rows).dtype == torch.bfloat16
    if bias:
        half.bias.add_(1.0)
        assert torch.equal(half.bias, full.bias + 1)


def test_dense_weight_sees_through_packing():
    library = bitsandbytes()
    packed = library.nn.Linear4bit(640, 96, bias=False, quant_type="nf4", compress_statistics=False)
    packed.weight = library.nn.Params4bit(weight(), requires_grad=False, blocksize=64, quant_type="nf4",
                                          compress_statistics=False)  # fmt: skip
    packed = packed.to("cpu")
    torch.testing.assert_close(dense_weight(packed), rounded(weight(), "nf4"), atol=1e-3, rtol=1e-2)
    plain = torch.nn.Linear(3, 2)
    assert torch.equal(dense_weight(plain), plain.weight)
