from __future__ import annotations

import json

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.graph import shares as module
from mpcbench.graph.lower import Lowered, lower
from mpcbench.graph.shares import encode, read_shares, uniform, write_shares
from tests.graph.models import random_model

BITS = 16


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    return lower(random_model("untied"))


@pytest.fixture
def export(lowered, tmp_path):
    write_shares(lowered.graph, lowered.weights, tmp_path / "out", BITS)
    return tmp_path / "out"


def farthest_from_fair(words):
    """Largest standard score of any bit, of its flips from word to word, and of its flips within a word.

    Under the hypothesis that all bits are independent fair coins; 6 then has a chance of 1e-7.
    """
    samples = (words, words[1:] ^ words[:-1], words ^ (words << 1))
    return max(_standard_scores(sample).abs().max().item() for sample in samples)


def _standard_scores(words):
    ones = torch.stack([(words >> bit) & 1 for bit in range(64)]).double().sum(1)
    return (ones - len(words) / 2) / (len(words) / 4) ** 0.5


def test_both_shares_together_are_the_encoded_weights(lowered, export):
    first, second = (read_shares(export / f"party{rank}", rank) for rank in (0, 1))
    secret = {name for name, weight in lowered.graph.weights.items() if weight.secret}
    assert set(first.shares) == set(second.shares) == secret
    for name in secret:
        assert torch.equal(first.shares[name] + second.shares[name], encode(lowered.weights[name], BITS))
    assert first.sharing == second.sharing and first.fraction_bits == BITS


@pytest.mark.parametrize("rank", [0, 1])
def test_the_bits_of_one_folder_are_fair_coins(export, rank):
    folder = read_shares(export / f"party{rank}")
    words = torch.cat([tensor.flatten() for tensor in folder.shares.values()])
    assert len(words) > 4_000
    assert farthest_from_fair(words) < 6


def test_bits_that_are_no_fair_coins_are_noticed(lowered):
    weights = torch.cat([encode(tensor, BITS).flatten() for tensor in lowered.weights.values()])
    narrow = torch.randint(-(2**62), 2**62, weights.shape, generator=torch.Generator().manual_seed(0))
    assert farthest_from_fair(weights) > 6
    assert farthest_from_fair(weights - narrow) > 6


def test_shares_are_drawn_afresh(lowered, tmp_path):
    for name in ("one", "two"):
        write_shares(lowered.graph, lowered.weights, tmp_path / name, BITS)
    one, two = (read_shares(tmp_path / name / "party0") for name in ("one", "two"))
    assert one.sharing != two.sharing
    assert all(not torch.equal(one.shares[name], two.shares[name]) for name in one.shares)


def test_the_embedding_at_the_client_is_the_clients_alone(lowered, export):
    first, second = (read_shares(export / f"party{rank}") for rank in (0, 1))
    assert "embed_tokens.weight" in second.public
    assert "embed_tokens.weight" not in {**first.public, **first.shares, **second.shares}


def test_uniform_has_the_shape_and_is_writable():
    tensor = uniform((3, 5))
    assert tensor.shape == (3, 5) and tensor.dtype == torch.int64
    tensor.add_(1)
    assert uniform(()).shape == ()


def test_encoding_rounds_to_the_nearest_and_refuses_what_does_not_fit():
    assert encode(torch.tensor([1.0, -0.5, 2**-17 * 1.01, -(2**-18)]), 16).tolist() == [65536, -32768, 1, 0]
    for value in (float("nan"), float("inf"), 2.0**47):
        with pytest.raises(UserError, match="check the checkpoint"):
            encode(torch.tensor([value]), 16)


def test_the_other_partys_folder_is_refused(export):
    with pytest.raises(UserError, match=r"holds the shares of party 1, not of party 0: name party0's"):
        read_shares(export / "party1", 0)


def test_a_folder_mixed_from_two_exports_is_refused(export, tmp_path):
    other = lower(random_model("qwen2"))
    write_shares(other.graph, other.weights, tmp_path / "other", BITS)
    (export / "party0" / "graph.json").write_bytes((tmp_path / "other/party0/graph.json").read_bytes())
    with pytest.raises(UserError, match="mixes the files of two exports"):
        read_shares(export / "party0")


@pytest.mark.parametrize("name", ["share.json", "shares.safetensors", "public.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_folder_is_one_sentence(export, name, damage):
    path = export / "party0" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(UserError, match="is not a whole share folder"):
        read_shares(export / "party0")


@pytest.mark.parametrize("name", module.TENSORS)
def test_one_flipped_bit_is_noticed(export, name):
    """A share is random bits: without a hash nobody could tell, and the logits would be garbage."""
    path = export / "party1" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"not a whole share folder \({name} is damaged, .*: export the mo"):
        read_shares(export / "party1")


def test_a_wrong_shape_is_refused(lowered, export):
    about = json.loads((export / "party0" / "share.json").read_text())
    assert about["rank"] == 0
    name = next(iter(read_shares(export / "party0").shares))
    path = export / "party0" / "shares.safetensors"
    module.save_file({name: torch.zeros(1, dtype=torch.int64)}, path)
    about["sha256"][path.name] = module.file_sha256(path)
    (export / "party0" / "share.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="mixes the files"):
        read_shares(export / "party0")


def test_an_existing_export_is_not_overwritten(lowered, export):
    before = (export / "party0" / "shares.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write_shares(lowered.graph, lowered.weights, export, BITS)
    assert (export / "party0" / "shares.safetensors").read_bytes() == before


def test_a_failure_leaves_nothing_behind(lowered, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        write_shares(lowered.graph, lowered.weights, tmp_path / "out", BITS)
    assert list((tmp_path / "out").iterdir()) == []


def test_secret_files_are_for_their_owner_alone(export):
    for rank in (0, 1):
        assert (export / f"party{rank}" / "shares.safetensors").stat().st_mode & 0o077 == 0
