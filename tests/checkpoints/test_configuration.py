"""Configurations without weights: what is read, and what is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mpcbench.checkpoints import with_polynomials
from mpcbench.checkpoints.configuration import REQUIRED, packaged_configurations, read_architecture
from mpcbench.errors import UserError
from tests.graph.models import SHAPE
from tests.tiny import tiny_llama

PUBLISHED = {  # layers, width, channels, heads, key heads, vocabulary, billions of parameters
    "llama-2-7b": (32, 4096, 11008, 32, 32, 32000, 6.738),
    "llama-2-13b": (40, 5120, 13824, 40, 40, 32000, 13.016),
    "llama-3-8b": (32, 4096, 14336, 32, 8, 128256, 8.030),
    "tinyllama-1.1b": (22, 2048, 5632, 32, 4, 32000, 1.100),
    "smollm2-135m": (30, 576, 1536, 9, 3, 49152, 0.1345),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_packaged_configurations_have_the_published_sizes(name: str) -> None:
    found = read_architecture(name)
    c = found.config
    sizes = (c.num_hidden_layers, c.hidden_size, c.intermediate_size, c.num_attention_heads,
             c.num_key_value_heads, c.vocab_size)  # fmt: skip
    assert sizes == PUBLISHED[name][:6]
    assert found.parameters / 1e9 == pytest.approx(PUBLISHED[name][6], rel=1e-3)
    assert name in packaged_configurations() and found.coefficients == {}


def test_folder_and_its_file_are_the_same(tmp_path: Path) -> None:
    model = tiny_llama(layers=3)
    model.config.save_pretrained(tmp_path)
    by_folder, by_file = (read_architecture(str(p)) for p in (tmp_path, tmp_path / "config.json"))
    assert by_folder.config.to_dict() == by_file.config.to_dict()
    assert by_folder.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_polynomials_of_a_checkpoint_are_read_alone(tmp_path: Path) -> None:
    rows = torch.randn(3, 24)
    with_polynomials(tiny_llama(), {1: rows}, 2).save_pretrained(tmp_path)
    found = read_architecture(str(tmp_path))
    assert found.polynomial_layers == (1,)
    assert list(found.coefficients) == [1] and torch.equal(found.coefficients[1], rows)


def _write(folder: Path, **changes: object) -> str:
    body = {"model_type": "llama", **SHAPE, **changes}
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in body.items() if v is not None}))
    return str(path)


@pytest.mark.parametrize("key", REQUIRED)
def test_size_that_is_missing_is_named(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"lacks {key}"):
        read_architecture(_write(tmp_path, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": "wide"}, "has 'wide' for hidden_size"),
        ({"num_hidden_layers": 0}, "has 0 for num_hidden_layers"),
        ({"model_type": None}, "has no model_type"),
        ({"model_type": "gpt2"}, "is a gpt2 model"),
        ({"hidden_act": "gelu"}, "uses the activation gelu"),
        ({"num_key_value_heads": 3}, "must divide each other"),
    ],
)
def test_unfit_configuration_is_refused(changes: dict, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        read_architecture(_write(tmp_path, **changes))


def test_what_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    for name, sentence in (
        (str(tmp_path / "broken.json"), "is not JSON"),
        (str(tmp_path / "none.json"), "There is no configuration"),
        ("llama-7", "There is no configuration llama-7"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_architecture(name)


def test_relative_of_llama_becomes_one(tmp_path: Path) -> None:
    found = read_architecture(_write(tmp_path, model_type="mistral", sliding_window=16))
    assert (found.config.model_type, found.config.max_position_embeddings) == ("llama", 16)
