"""The generator: the same for the same seed and number, different for any other, uniform in every bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mpcbench.secure.randomness import prg
from mpcbench.secure.randomness.prg import SEED_BYTES, entropy, fix_seeds, fixed_seeds, fresh_seed, words

SEED = bytes(range(SEED_BYTES))


def test_known_answer() -> None:
    """AES-128 in counter mode of zeros: block 0 is the encrypted counter block itself."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    block = (7).to_bytes(8, "big") + bytes(8)
    expected = Cipher(algorithms.AES(SEED), modes.ECB()).encryptor().update(block)
    assert words(SEED, 7, 2).numpy().tobytes() == expected


def test_prefix_property_and_independence() -> None:
    long = words(SEED, 3, 1000)
    assert words(SEED, 3, 10).equal(long[:10])
    assert not words(SEED, 4, 10).equal(long[:10])
    assert not words(fresh_seed(), 3, 10).equal(long[:10])
    assert words(SEED, 3, 0).numel() == 0


def test_streams_longer_than_one_piece_do_not_repeat() -> None:
    count = (1 << 20) + 100  # pieces are of 2^20 words
    long = words(SEED, 1, count)
    assert long.numel() == count
    assert not long[: 1 << 10].equal(long[1 << 20 : (1 << 20) + 100])
    assert len(torch.unique(long)) == count


def test_every_bit_is_a_fair_coin() -> None:
    count = 1 << 14
    bits = np.unpackbits(words(SEED, 9, count).numpy().view(np.uint8).reshape(-1, 8), axis=1)
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 6 * 0.5 / math.sqrt(count)


def test_seeds_follow_from_a_number_where_a_test_says_so_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fixed_seeds() == 0 and fresh_seed() != fresh_seed()
    for name in ("_fixed", "_label", "_calls"):
        monkeypatch.setattr(prg, name, getattr(prg, name))  # and back at the end

    def drawn(number: int, role: str) -> list[bytes]:
        fix_seeds(number, role)
        assert fixed_seeds() == number
        return [fresh_seed(), entropy(16), entropy(40)]

    first = drawn(7, "party0")
    assert drawn(7, "party0") == first and [len(seed) for seed in first] == [16, 16, 40]
    assert len({*first, *drawn(8, "party0"), *drawn(7, "party1")}) == 9
