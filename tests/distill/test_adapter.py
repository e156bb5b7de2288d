from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from mpcbench.checkpoints.provenance import HeldOut
from mpcbench.distill.adapter import (
    Adapter,
    AdapterInfo,
    LowRank,
    adapter_info,
    load_adapter,
    merged,
    save_adapter,
)
from mpcbench.distill.precision import is_projection
from mpcbench.errors import UserError
from tests.distill.test_student import IDS, disturb, student_of
from tests.tiny import tiny_llama

HELD_OUT = HeldOut(tokens=9, kl=0.1, argmax_agreement=0.9)


def info(layers=(1,), base="float32", double=False):
    """What an adapter of these layers and this base says of itself."""
    plain = AdapterInfo.untrained("tiny", base)
    return plain.model_copy(
        update={"polynomial_layers": list(layers), "double_quantisation": double, "held_out": HELD_OUT}
    )


def trained(model, layers=(1,), shared=False, **settings):
    student = student_of(model, layers, shared, **settings)
    disturb(student)
    return student


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_the_merged_model_is_the_student(tied, shared):
    model = tiny_llama(tied=tied)
    student = trained(model, shared=shared, lora_alpha=6.0)
    poly = merged(model, student.adapter(), info())
    torch.testing.assert_close(poly(IDS).logits, student.model(IDS).logits, atol=1e-4, rtol=1e-4)
    assert poly.config.polynomial_layers == [1]


@pytest.mark.parametrize("base, double", [("bfloat16", False), ("nf4", False), ("nf4", True)])
def test_a_quantised_student_merges_into_bfloat16(base, double):
    model = tiny_llama(hidden=64, intermediate=64)
    student = student_of(model, precision=base, double_quantisation=double)
    disturb(student)
    poly = merged(model, student.adapter(), info([], base, double))
    error = (poly(IDS).logits - student.model(IDS).logits).abs().max()
    unquantised = merged(model, student.adapter(), info([]))
    assert error < 0.05 * student.model(IDS).logits.abs().max()
    assert (unquantised(IDS).logits - student.model(IDS).logits).abs().max() > error
    for name, parameter in poly.named_parameters():
        if is_projection(name.removesuffix(".weight")):
            assert torch.equal(parameter, parameter.bfloat16().float())
    exact = merged(model, student.adapter(), info([], base, double), result="float32")
    torch.testing.assert_close(exact(IDS).logits, student.model(IDS).logits, atol=2e-3, rtol=1e-3)


def test_merging_leaves_the_original_as_it_was_and_shares_the_rest():
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    poly = merged(model, trained(model).adapter(), info())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert poly.model.embed_tokens.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_file_holds_the_whole_adapter(tmp_path):
    model, path = tiny_llama(), tmp_path / "a.safetensors"
    adapter = trained(model).adapter()
    save_adapter(adapter, info(), path)
    loaded, said = load_adapter(path)
    assert said == info() == adapter_info(path)
    assert torch.equal(loaded.coefficients[1], adapter.coefficients[1])
    assert set(loaded.updates) == set(adapter.updates) and set(loaded.norms) == set(adapter.norms)
    ours, theirs = (merged(model, each, info())(IDS).logits for each in (adapter, loaded))
    assert torch.equal(ours, theirs)


def test_rounding_quarters_the_updates_and_changes_little(tmp_path):
    model = tiny_llama()
    adapter = trained(model).adapter()
    small = adapter.rounded()
    assert all(update.up.dtype == torch.float8_e4m3fn for update in small.updates.values())
    assert torch.equal(small.coefficients[1], adapter.coefficients[1])
    save_adapter(small, info(), tmp_path / "small.safetensors")
    loaded, _ = load_adapter(tmp_path / "small.safetensors")
    ours, theirs = (merged(model, each, info())(IDS).logits for each in (adapter, loaded))
    original = model(IDS).logits
    assert 0 < (ours - theirs).norm() < 0.1 * (ours - original).norm()


def test_a_file_that_is_no_adapter_is_one_sentence(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="There is no adapter"):
        load_adapter(path)
    with pytest.raises(UserError, match="no adapter"):
        load_adapter(tmp_path)
    save_adapter(trained(tiny_llama()).adapter(), info(), path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not an adapter of mpcbench"):
            load_adapter(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(UserError, match="is not an adapter of mpcbench"):
        adapter_info(path)


def test_tensors_that_no_adapter_has_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"mpcbench": info([]).model_dump_json()}
    save_file({"model.layers.0.bias": torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(UserError, match=r"holds model\.layers\.0\.bias"):
        load_adapter(path)
    save_file({}, path, metadata={"mpcbench": info([0]).model_dump_json()})
    with pytest.raises(UserError, match="lacks coefficients"):
        load_adapter(path)


def test_an_adapter_of_a_deeper_model_does_not_merge():
    update = {"model.layers.7.mlp.up_proj": LowRank(torch.ones(1, 16), torch.ones(24, 1))}
    with pytest.raises(UserError, match=r"changes model.layers.7.mlp.up_proj.weight, which tiny does not"):
        merged(tiny_llama(), Adapter({}, update, {}), info([]))
