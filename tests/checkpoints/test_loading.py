from __future__ import annotations

import json

import pytest
import torch

import mpcbench.hub
from mpcbench.checkpoints import PolyLlamaForCausalLM, load, weights_sha256, with_polynomials
from mpcbench.errors import UserError
from tests.tiny import tiny_folder, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder(tmp_path, tied):
    checkpoint = load(str(tiny_folder(tmp_path, tied=tied)))
    expected = tiny_llama(tied=tied)
    assert checkpoint.sha256 == weights_sha256(expected)
    assert checkpoint.folder == tmp_path
    assert checkpoint.tokenizer("w5 w9")["input_ids"] == [5, 9]
    assert not checkpoint.model.training
    assert checkpoint.model.dtype == torch.float32


def test_half_precision_is_read_as_float32(tmp_path):
    tiny_llama().to(torch.bfloat16).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert {p.dtype for p in load(str(tmp_path)).model.parameters()} == {torch.float32}


def test_a_polynomial_folder(tmp_path):
    poly = with_polynomials(tiny_llama(), {1: torch.randn(3, 24)}, 2)
    poly.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    checkpoint = load(str(tmp_path))
    assert isinstance(checkpoint.model, PolyLlamaForCausalLM)
    assert checkpoint.sha256 == weights_sha256(poly)


def test_missing_weights_are_never_made_up(tmp_path):
    tiny_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"lacks 9 weights \(model.layers.2"):
        load(str(tmp_path))


def test_a_damaged_weights_file(tmp_path):
    tiny_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="not a checkpoint that Transformers can read"):
        load(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path):
    tiny_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny_llama().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a checkpoint that Transformers can read"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("no-such-model", "There is no model no-such-model: give smollm2-135m"),
        ("a/b/c", "There is no model"),
        ("nowhere.gguf", "There is no file"),
    ],
)
def test_names_that_mean_nothing(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        load(name)


def test_an_empty_folder_and_a_foreign_file(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load(str(tmp_path))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"not a \.gguf file"):
        load(str(tmp_path / "notes.txt"))


def test_a_file_that_is_no_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(UserError, match="not a GGUF model"):
        load(str(tmp_path / "broken.gguf"))
    assert not list((tmp_path / "cache").glob("models/*"))


def test_an_unreachable_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(mpcbench.hub, "reachable", lambda: False)
    with pytest.raises(UserError, match=r"cannot be reached.*give smollm2-135m"):
        load("nobody/nothing-of-this-name")
