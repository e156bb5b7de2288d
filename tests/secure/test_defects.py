"""What CrypTen 0.4.1 gets wrong and mpcbench works around: each test shows the defect and names the place.

Once one of them fails, CrypTen has mended it, and the workaround can go. (The import that needs a stub is in
``tests/test_compat.py``, the decoding of negative values in ``tests/secure/test_interpreter.py``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.substrate import crypten
from tests.secure.single import one_party


@pytest.fixture
def alone() -> Iterator[LinkCommunicator]:
    with one_party() as communicator:
        yield communicator


def _shared(values: list[float]) -> Any:
    return crypten.cryptensor(torch.tensor(values), src=0)


def _value(tensor: Any) -> torch.Tensor:
    return tensor.share.double() / tensor.encoder.scale


def _relative_error(function: str, points: list[float], power: float) -> torch.Tensor:
    """Of ``function``, which should be x ** power."""
    expected = torch.tensor(points, dtype=torch.float64) ** power
    return (_value(getattr(_shared(points), function)()) / expected - 1).abs()


def test_inv_sqrt_is_silently_wrong_outside_its_range(alone: LinkCommunicator) -> None:
    """Hence the scales and Newton steps in ``operators/crypten_rms_norm.py``."""
    assert _relative_error("inv_sqrt", [0.5, 5.0, 50.0], -0.5).max() < 0.01
    assert _relative_error("inv_sqrt", [0.001, 2000.0], -0.5).min() > 0.5


def test_reciprocal_is_silently_wrong_beyond_some_dozens(alone: LinkCommunicator) -> None:
    """Hence the scale of the sums in ``operators/published.py``: TwoQuad."""
    with crypten.cfg.temp_override({"functions.reciprocal_all_pos": True}):
        near, hundred, far = _relative_error("reciprocal", [5.0, 100.0, 400.0], -1.0)
    assert near < 0.005 < 0.05 < hundred
    assert far > 0.5


def test_exp_grows_again_far_below_zero(alone: LinkCommunicator) -> None:
    """Hence the public score that hidden ones get in ``operators/crypten_softmax.py``: no -10000."""
    with crypten.cfg.temp_override({"functions.exp_iterations": 8}):
        inside, outside = _value(_shared([-200.0, -530.0]).exp())
    assert inside < 1e-3
    assert outside > 1.0


def test_sigmoid_has_settings_of_its_own(alone: LinkCommunicator) -> None:
    """Hence the costs in ``cost/crypten.py``: sigmoid do not depend on the reciprocal's iterations."""
    rounds = []
    for steps in (3, 10):
        before = alone.ledger.total("online").rounds
        with crypten.cfg.temp_override({"functions.reciprocal_nr_iters": steps}):
            _shared([1.0]).sigmoid()
        rounds.append(alone.ledger.total("online").rounds - before)
    assert rounds[0] == rounds[1]


def test_softmax_computes_an_index_that_nobody_asks_for(
    alone: LinkCommunicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cost/crypten.py``: maximum counts it because stock CrypTen is measured as it stands."""
    scores, calls = _shared([1.0, 2.0, 3.0, 4.0]), []
    index = type(scores).weighted_index
    monkeypatch.setattr(type(scores), "weighted_index", lambda *a, **k: calls.append(a) or index(*a, **k))
    scores.softmax(0)
    assert calls


def test_a_start_for_the_root_that_is_a_tensor_crashes(alone: LinkCommunicator) -> None:
    """Hence ``operators/crypten_rms_norm.py`` scales its inputs instead of giving a better start."""
    with (
        pytest.raises(Exception),  # noqa: B017 (whatever a text in place of a tensor leads to)
        crypten.cfg.temp_override({"functions.sqrt_nr_initial": torch.tensor([0.5])}),
    ):
        _shared([1.0]).inv_sqrt()


class _Fake(SimpleNamespace):
    """Stands in for ``torch.distributed``: collectives that only count."""

    ReduceOp = torch.distributed.ReduceOp

    def __init__(self) -> None:
        super().__init__(collectives=0)

    def is_initialized(self) -> bool:
        return True

    def barrier(self, **_: object) -> None:
        self.collectives += 1

    def all_reduce(self, *_: object, **__: object) -> SimpleNamespace:
        self.collectives += 1
        return SimpleNamespace(wait=lambda: None)


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, _Fake]]:
    """CrypTen's own communicator of two parties, and what it calls."""
    from crypten.communicator import distributed_communicator as module

    fake = _Fake()
    monkeypatch.setattr(module, "dist", fake)
    communicator = module.DistributedCommunicator.__new__(module.DistributedCommunicator)
    communicator.main_group = None
    monkeypatch.setattr(type(communicator), "get_world_size", lambda self: 2)
    monkeypatch.setattr(type(communicator), "get_rank", lambda self: 0)
    communicator.reset_communication_stats()
    with crypten.cfg.temp_override({"communicator.verbose": True}):
        yield communicator, fake


def test_a_barrier_counts_as_a_round(stock: tuple[Any, _Fake]) -> None:
    """In ``secure/communicator.py`` it is nothing at all."""
    communicator, _ = stock
    communicator.barrier()
    assert communicator.comm_rounds == 1


def test_a_batch_is_several_collectives_and_counts_as_one_round(stock: tuple[Any, _Fake]) -> None:
    """In ``secure/communicator.py`` it is one exchange."""
    communicator, fake = stock
    communicator.all_reduce([torch.ones(2), torch.ones(3), torch.ones(4)], batched=True)
    assert (communicator.comm_rounds, fake.collectives) == (1, 3)


def test_the_second_party_makes_tuples_and_throws_them_away(
    alone: LinkCommunicator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``secure/provider.py``: FirstPartyProvider expands that party's shares alone."""
    from crypten.mpc.provider import tfp_provider as module

    made, before = [], module.generate_random_ring_element
    monkeypatch.setattr(
        module, "generate_random_ring_element", lambda *a, **k: made.append(before(*a, **k)) or made[-1]
    )
    monkeypatch.setattr(alone, "rank", 1)
    shares = module.TrustedFirstParty().generate_additive_triple((4,), (4,), "mul")
    assert len(made) == 2
    assert not any(share.share.equal(value) for share, value in zip(shares, made, strict=False))
