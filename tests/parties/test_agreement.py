"""Both parties use the same coefficients, whatever their machines' floating point says."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from mpcbench.errors import PeerError
from mpcbench.parties.agreement import agreed
from mpcbench.secure import series
from mpcbench.secure.series import Period, Series, agree_by, fit
from tests.secure.links import links, together

OWN = Series(4, 77, 0.1 + 0.2, (1 / 3, -2.5e-17), (0.0, 1e300), 1e-5)


def test_the_clients_own_are_never_asked_for() -> None:
    with links() as (left, right):
        both = together(lambda: agreed(left, 0, lambda: OWN), lambda: agreed(right, 1, lambda: 1 / 0))
    assert both == (OWN, OWN)  # to the last bit, through JSON


@pytest.mark.parametrize(
    "told",
    [
        None, {}, {**asdict(OWN), "sines": [1.0]}, {**asdict(OWN), "cosines": [0.0] * 769},
        {**asdict(OWN), "constant": float("nan")}, {**asdict(OWN), "log_period": 1000},
        {**asdict(OWN), "turns": 0}, {**asdict(OWN), "cosines": ["1", "eval"]},
    ],
)  # fmt: skip
def test_what_is_no_series_is_refused(told: object) -> None:
    with links() as (left, right):
        left.tell({"series": told})
        with pytest.raises(PeerError, match=r"^party 0 sent a malformed series"):
            agreed(right, 1, lambda: OWN)


def test_every_new_series_is_agreed_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "_agreement", series._agreement)  # put back afterwards
    fit.cache_clear()
    asked = []

    def other(own):
        asked.append(own())
        return replace(asked[-1], constant=7.0)

    agree_by(other)
    arguments = ("exp", -4.0, 0.25, (Period(3),), 17, 1e-3)
    assert fit(*arguments).constant == fit(*arguments).constant == 7.0
    assert len(asked) == 1 and asked[0].error <= 1e-3
    fit.cache_clear()
