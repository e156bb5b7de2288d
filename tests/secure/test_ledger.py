"""The ledger: everything is entered once, under the scope that caused it."""

from __future__ import annotations

import time

import pytest

from mpcbench.secure.ledger import Ledger, Scope

OUTER = Scope("online", 3, "layers.3.mlp", "swiglu")
INNER = Scope("online", 3, "layers.3.mlp.down_proj", "linear")


def test_traffic_goes_to_the_innermost_scope() -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER):
        ledger.sent(100, 1, 0.5)
        with ledger.scope(*INNER):
            ledger.sent(7, 2, 0.25)
        ledger.sent(10, 1, 0.0)
    outer, inner = ledger.tallies[OUTER], ledger.tallies[INNER]
    assert (outer.bytes_sent, outer.rounds, outer.wait_seconds, outer.calls) == (110, 2, 0.5, 1)
    assert (inner.bytes_sent, inner.rounds, inner.wait_seconds, inner.calls) == (7, 2, 0.25, 1)


def test_same_scope_adds_up_over_calls() -> None:
    ledger = Ledger()
    for _ in range(3):
        with ledger.scope(*OUTER):
            ledger.sent(5, 1, 0.0)
    assert list(ledger.tallies) == [OUTER]
    assert (ledger.tallies[OUTER].calls, ledger.tallies[OUTER].bytes_sent) == (3, 15)


def test_seconds_are_exclusive_and_complete() -> None:
    ledger = Ledger()
    started = time.perf_counter()
    with ledger.scope(*OUTER):
        time.sleep(0.05)
        with ledger.scope(*INNER):
            time.sleep(0.2)
        time.sleep(0.05)
    whole = time.perf_counter() - started
    outer, inner = ledger.tallies[OUTER].seconds, ledger.tallies[INNER].seconds
    assert inner >= 0.2
    assert outer >= 0.1
    assert outer + inner == pytest.approx(whole, abs=0.1)  # off by 0.2 if the inner time counted twice


def test_time_between_scopes_belongs_to_none() -> None:
    ledger = Ledger()
    time.sleep(0.2)
    with ledger.scope(*OUTER):
        pass
    assert ledger.tallies[OUTER].seconds < 0.1


def test_offline_is_the_same_operators_other_phase() -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER):
        ledger.sent(64, 1, 0.0)
        with ledger.offline():
            time.sleep(0.3)
            ledger.tuples("mul_triple", 12)
            ledger.tuples("mul_triple", 3)
    offline = ledger.tallies[OUTER._replace(phase="offline")]
    assert (offline.tuples, offline.bytes_sent, offline.rounds) == ({"mul_triple": 15}, 0, 0)
    assert offline.seconds >= 0.3 > ledger.tallies[OUTER].seconds
    assert not ledger.tallies[OUTER].tuples


def test_work_that_is_done_once_takes_time_and_is_no_call() -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER), ledger.offline(calls=0):
        time.sleep(0.05)
    offline = ledger.tallies[OUTER._replace(phase="offline")]
    assert offline.calls == 0
    assert offline.seconds >= 0.05


def test_total_adds_one_phase_over_scopes() -> None:
    ledger = Ledger()
    for scope in (OUTER, INNER, INNER._replace(phase="setup")):
        with ledger.scope(*scope):
            ledger.sent(8, 1, 0.1)
            ledger.tuples("square", 2)
    online = ledger.total("online")
    assert (online.bytes_sent, online.rounds, online.calls) == (16, 2, 2)
    assert online.wait_seconds == pytest.approx(0.2)
    assert online.tuples == {"square": 4}
    assert ledger.total("setup").bytes_sent == 8
    assert ledger.total("offline").bytes_sent == 0


@pytest.mark.parametrize(
    "enter",
    [
        lambda ledger: ledger.sent(1, 1, 0.0),
        lambda ledger: ledger.tuples("square", 1),
        lambda ledger: ledger.offline().__enter__(),
    ],
)
def test_traffic_outside_every_scope_is_a_defect(enter: object) -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER):
        pass
    with pytest.raises(RuntimeError, match="outside every scope"):
        enter(ledger)


def test_scope_closes_when_its_operator_fails() -> None:
    ledger = Ledger()
    with pytest.raises(ZeroDivisionError), ledger.scope(*OUTER), ledger.scope(*INNER):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="outside every scope"):
        ledger.sent(1, 1, 0.0)


def test_as_json_is_plain_data() -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER):
        ledger.sent(5, 1, 0.0)
        ledger.tuples("bit", 4)
    (line,) = ledger.as_json()
    seconds = line.pop("seconds")
    assert seconds >= 0
    assert type(line["tuples"]) is dict
    assert line == {
        "phase": "online", "layer": 3, "module": "layers.3.mlp", "operator": "swiglu", "calls": 1,
        "bytes_sent": 5, "rounds": 1, "wait_seconds": 0.0, "tuples": {"bit": 4}, "dealt_bytes": 0,
        "unseeded_bytes": 0, "cut_locally": 0, "cut_failures": 0.0, "cut_failures_per_unit": 0.0,
    }  # fmt: skip


def test_local_cuts_are_entered_with_their_chance_of_failing() -> None:
    ledger = Ledger()
    with ledger.scope(*OUTER):
        ledger.cut_locally(3, 32, 5.0)
        ledger.cut_locally(4, 32)
        ledger.cut_locally(1, 0, 2.0**32)
    (tally,) = ledger.tallies.values()
    found = (tally.cut_locally, tally.cut_failures, tally.cut_failures_per_unit)
    assert found == (8, (15 + 1) * 2.0**-32, 4 * 2.0**-32)
