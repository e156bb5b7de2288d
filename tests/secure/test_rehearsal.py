"""What a rehearsal foresees; that real runs ask for exactly that is tested with the launcher."""

from __future__ import annotations

import math

import pytest
import torch

from mpcbench.secure import rehearsal
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.opening import Cut, repetition_chance
from mpcbench.secure.protocol import load_protocol
from mpcbench.secure.rehearsal import SHORTAGE, spares


@pytest.mark.parametrize("mean", [0.0, 1e-12, 1e-6, 1e-3, 0.3, 5.0, 900.0])
def test_spares_are_as_few_as_the_shortage_allows(mean: float) -> None:
    count = spares(mean)
    assert _beyond(mean, count) <= SHORTAGE
    assert count == 0 or _beyond(mean, count - 1) > SHORTAGE


def _beyond(mean: float, count: int) -> float:
    """Poisson's tail P(X > count), summed from its small end."""
    if mean == 0:
        return 0.0
    terms = range(count + 1, count + 400)
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in terms)


def test_the_chance_of_a_repetition() -> None:
    """It counts checked truncations alone, and the first elements under their own bound."""
    values = [torch.zeros(2, 8), torch.zeros(4)]
    checked, first = Cut(3, 2.0**50), Cut(3, 2.0**50, first=(4, 2.0**52))
    assert repetition_chance(values, [checked, Cut()]) == pytest.approx(16 * 2.0**-13)
    assert repetition_chance(values, [first, checked]) == pytest.approx((4 * 4 + 12 + 4) * 2.0**-13)
    assert repetition_chance(values, [Cut(3, 1.0), Cut()]) == 16 * (1 + 7 + 2) * 2.0**-63
    assert repetition_chance(values, [Cut(3, 2.0**50, checked=False), Cut()]) == 0.0
    assert repetition_chance(values, [Cut(3, 2.0**62), Cut()]) == 1.0


def test_the_bound_holds_for_uniform_words() -> None:
    """Masked values are uniform: with a bound of 2^58 an element in 32 lies too near the edge."""
    from mpcbench.secure.opening import may_have_wrapped
    from mpcbench.secure.randomness.prg import fresh_seed, words

    cut, openings = Cut(1, 2.0**58), 20_000
    seen = sum(may_have_wrapped(z, cut) for z in words(fresh_seed(), 0, openings).split(1))
    expected = repetition_chance([torch.zeros(1)], [cut]) * openings
    assert abs(seen - expected) < 6 * math.sqrt(expected)


def test_an_opening_at_setup_that_may_be_made_again_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Material for all inferences is made for the mask of the first attempt."""

    def checking(folder: object, protocol: object, communicator: LinkCommunicator) -> None:
        with communicator.ledger.scope("setup", 0, "m", "append"):
            communicator.ledger.at_risk(1e-9)

    monkeypatch.setattr(rehearsal, "SecureInterpreter", checking)
    monkeypatch.setattr(rehearsal, "install", lambda *arguments: None)
    monkeypatch.setattr(rehearsal, "_empty", lambda *arguments: None)
    with pytest.raises(RuntimeError, match="opened at set-up may have to be opened again"):
        rehearsal.rehearse(None, load_protocol("frontier"), 3)
