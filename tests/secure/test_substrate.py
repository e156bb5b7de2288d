"""CrypTen set up: the parties' generators match where they must, and the cost of that is in the ledger."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpcbench.secure.substrate import crypten
from tests.secure.single import one_party

Both = tuple[dict, dict]


def test_neighbours_share_seeds(both: Both) -> None:
    first, second = (party["seeds"]["generators"] for party in both)
    assert first["next"] == second["prev"]
    assert first["prev"] == second["next"]
    assert first["global"] == second["global"]
    assert len({first["next"], first["prev"], first["global"], first["local"], second["local"]}) == 5


def test_pseudorandom_zeros_sum_to_zero_and_are_none_alone(both: Both) -> None:
    first, second = (party["seeds"]["zeros"] for party in both)
    assert (first + second == 0).all()
    assert len(np.unique(first)) == first.size


def test_seeds_are_thirty_two_bytes_and_one_round_of_setup(both: Both) -> None:
    for party in both:
        (line,) = party["seeds"]["ledger"]
        assert (line["phase"], line["operator"]) == ("setup", "seeds")
        assert (line["bytes_sent"], line["rounds"]) == (32, 1)
        assert party["seeds"]["wire"] == 32


def test_install_puts_ours_behind_cryptens_interfaces() -> None:
    with one_party(fraction_bits=12) as communicator:
        assert crypten.communicator.get() is communicator
        assert crypten.communicator.is_initialized()
        assert crypten.mpc.get_default_provider().communicator is communicator
        x = crypten.cryptensor(torch.tensor([1.0]))
        assert x.encoder.scale == 2**12
        assert not x.requires_grad


def test_seeds_differ_from_run_to_run() -> None:
    seeds = set()
    for _ in range(3):
        with one_party():
            seeds.add(crypten.generators["local"][torch.device("cpu")].initial_seed())
    assert len(seeds) == 3


def test_validation_cannot_be_switched_on_because_it_opens_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(tensor: object) -> None:
        raise AssertionError("a value was opened in the middle")

    monkeypatch.setattr(crypten.mpc.MPCTensor, "get_plain_text", opened)
    with one_party(), crypten.cfg.temp_override({"debug.validation_mode": True}):
        tensor = crypten.mpc.MPCTensor(torch.tensor([1.0, 2.0]))
        assert (tensor.add(tensor).share >> 16).tolist() == [2, 4]
