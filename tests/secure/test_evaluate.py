"""Series on shares: only phases are opened, in three bytes, which loses no more than their last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpcbench.secure.evaluate import amplitudes, evaluate, phase_of, shared_out
from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.series import COARSE, Period, Series, fit, periods
from mpcbench.secure.trig import combination, waves
from tests.secure.pair import run_pair

BITS = 34
COUNT = 1 << 14
LOW, HIGH = -20.0, 20.0


def _series() -> Series:
    return fit("log_cosh", LOW, HIGH, periods(LOW, HIGH, fine=COARSE), 20, 1e-4)


def _values() -> torch.Tensor:
    return torch.linspace(LOW, HIGH, COUNT, dtype=torch.float64)


def _evaluated(communicator) -> dict:
    """In a party's process: log 2cosh of shared values, with what it opened and what that took."""
    mask = words(bytes(range(16)), 0, COUNT)
    share = mask if communicator.get_rank() else (_values() * 2.0**BITS).long() - mask
    opened: list[torch.Tensor] = []
    usual = communicator.open_high

    def recorded(*arguments):
        opened.extend(usual(*arguments))
        return opened

    communicator.open_high = recorded
    with communicator.ledger.scope("online", None, "test", "test"):
        made = evaluate(share, BITS, _series(), 20, 14)
    return {
        "share": made.numpy(), "opened": opened[0].numpy(),
        "bytes": communicator.ledger.total("online").bytes_sent,
    }  # fmt: skip


@pytest.fixture(scope="module")
def both() -> tuple[dict, dict]:
    return run_pair(_evaluated, provider="dealer")


def test_value_is_the_functions(both) -> None:
    """To the series' error and six standard deviations of the rounding of what multiplies the cosines."""
    series, x = _series(), _values().numpy()
    value = (both[0]["share"] + both[1]["share"]) / 2.0**34
    rounding = 2.0**-14 * (series.harmonics / 12) ** 0.5
    assert np.abs(value - np.logaddexp(x / 2, -x / 2)).max() < series.error + 6 * rounding


def test_three_bytes_an_element_are_sent(both) -> None:
    assert [party["bytes"] for party in both] == [3 * COUNT] * 2


def test_what_is_opened_is_uniform_whatever_the_value(both) -> None:
    assert (both[0]["opened"] == both[1]["opened"]).all()
    for bit in (40, 51, 63):
        ones = ((both[0]["opened"] >> bit) & 1).mean()
        assert abs(ones - 0.5) < 6 * 0.5 / COUNT**0.5


def _rounding(series: Series, trig: tuple[int, ...], factors: tuple[int, ...]) -> float:
    """Root mean square of what rounding adds to a series of which every cosine has bits of its own."""
    generator = np.random.default_rng(0)
    x = generator.normal(0, 1.5, 4096)
    mask = words(bytes(16), 0, len(x))
    unit = 64 - series.log_period
    phase = torch.from_numpy(np.rint(x * 2.0**unit).astype(np.int64)) * series.turns - mask
    shares = waves(mask, 64, trig)
    (made,) = combination(phase, 64, amplitudes(series, factors), *shares)
    value = made.numpy() * 2.0 ** -(trig[0] + factors[0]) + series.constant
    return float(np.sqrt(np.mean((value - series(x)) ** 2)))


@pytest.mark.parametrize("reach", [8.0, 16.0, 40.0])
def test_bits_shared_out_by_amplitude_round_less(reach: float) -> None:
    """Without one bit more in the products."""
    bits, tolerance = 26, 2.5e-4 * reach / 8
    series = fit("silu_even", -reach, reach, periods(-reach, reach), bits // 2, tolerance)
    trig, factors = shared_out(series, bits)
    assert {t + f for t, f in zip(trig, factors, strict=True)} == {bits}
    alike = (bits // 2,) * series.harmonics
    assert _rounding(series, trig, factors) < 0.7 * _rounding(series, alike, alike)


@pytest.mark.parametrize("turns", [1, 5, 77])
@pytest.mark.parametrize("bits", [8, 20, 44])
def test_shares_of_a_phase_add_up_to_it(turns: int, bits: int) -> None:
    """For any shares, and wherever in its many turns the value lies."""
    series = Series(*Period(6, turns), 0.0, (1.0,), (0.0,), 0.0)
    values = torch.linspace(-3000, 3000, 4001, dtype=torch.float64)
    whole = (values * 2.0**bits).long()
    mask = words(fresh_seed(), 0, len(values))
    phase = phase_of(whole - mask, bits, series) + phase_of(mask, bits, series)
    difference = phase.double() * 2.0**-64 - whole.double() * (turns * 2.0 ** -(6 + bits))
    assert (difference - difference.round()).abs().max() < 1e-10


def test_a_period_larger_than_the_ring_is_refused() -> None:
    series = Series(*Period(30), 0.0, (1.0,), (0.0,), 0.0)
    with pytest.raises(ValueError, match="does not fit"):
        phase_of(torch.zeros(2, dtype=torch.int64), 35, series)
