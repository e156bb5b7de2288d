"""Reports of two parties become one ledger, one latency and one count of openings, or a defect is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mpcbench.parties.result import (
    Inference,
    Line,
    PartyResult,
    average,
    merge_latency,
    merge_ledgers,
    merge_openings,
)
from mpcbench.records.schema import REPETITION, PartyInfo
from mpcbench.secure.transport import MAX_CONTROL_BYTES


def _line(**changes: Any) -> Line:
    usual = {
        "phase": "online", "layer": 0, "module": "layers.0.mlp", "operator": "swiglu", "calls": 1,
        "bytes_sent": 100, "rounds": 3, "seconds": 0.5, "wait_seconds": 0.1, "tuples": {},
    }  # fmt: skip
    return Line(**{**usual, **changes})


def _lines(**changes: Any) -> list[Line]:
    tuples = {"mul_triple": 12}
    return [
        _line(**changes),
        _line(layer=None, module="output", operator="output", bytes_sent=8, rounds=1),
        _line(phase="offline", bytes_sent=0, rounds=0, tuples=tuples),
    ]


def _result(rank: int, **changes: Any) -> PartyResult:
    info = PartyInfo(
        rank=rank, role="role", host="host", device="cpu", threads=1, peak_memory_bytes=1,
    )  # fmt: skip
    usual = {
        "party": info,
        "setup": [_line(phase="setup", module="seeds", operator="seeds", bytes_sent=16, rounds=1)],
        "lines": _lines(),
        "warmup_seconds": [9.0],
        "inferences": [Inference(seconds=2.0, offline_seconds=0.5, waiting_seconds=0.2)],
        "masked_openings": 4,
        "unmasked_openings": ["logits"],
        "payload_bytes_sent": 124,
        "other_bytes_sent": 50,
        "round_trip_seconds": 1e-4,
        "bandwidth_bytes_per_second": 1e9,
    }
    return PartyResult(**{**usual, **changes})


def test_average_keeps_the_traffic_of_one_and_the_mean_of_times() -> None:
    runs = [_lines(seconds=seconds, wait_seconds=seconds / 10) for seconds in (1.0, 2.0, 6.0)]
    merged = average(runs)
    assert [line.scope for line in merged] == [line.scope for line in runs[0]]
    assert [line.traffic for line in merged] == [line.traffic for line in runs[0]]
    assert merged[0].seconds == pytest.approx(3.0)
    assert merged[0].wait_seconds == pytest.approx(0.3)


@pytest.mark.parametrize(
    "changes", [{"bytes_sent": 101}, {"rounds": 4}, {"calls": 2}, {"tuples": {"bit": 1}}]
)
def test_traffic_that_varies_between_repetitions_is_a_defect(changes: dict) -> None:
    with pytest.raises(RuntimeError, match="varies between repetitions"):
        average([_lines(), _lines(), _lines(**changes)])


def test_openings_that_were_made_again_may_vary_and_the_most_are_kept() -> None:
    again = [_line(operator="repetition", rounds=rounds, bytes_sent=8 * rounds) for rounds in (1, 3, 2)]
    merged = average([_lines(), [*_lines(), again[0]], [*_lines(), again[1]], [*_lines(), again[2]]])
    assert [line.rounds for line in merged if line.operator == "repetition"] == [3]
    assert len(merged) == len(_lines()) + 1


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_scope_that_only_one_repetition_has_is_a_defect(missing: int) -> None:
    fewer = [line for index, line in enumerate(_lines()) if index != missing]
    for runs in ([_lines(), fewer], [fewer, _lines()]):
        with pytest.raises(RuntimeError, match="varies between repetitions"):
            average(runs)


def test_ledger_adds_bytes_and_counts_rounds_once() -> None:
    ledger = merge_ledgers((_result(0), _result(1, lines=_lines(bytes_sent=60, seconds=7.0))))
    assert (ledger.setup.bytes, ledger.setup.rounds) == (32, 1)
    assert ledger.online.bytes_sent == (108, 68)
    assert ledger.online.bytes == 176 == sum(sum(entry.bytes_sent) for entry in ledger.online.entries)
    assert ledger.online.rounds == 4 == sum(entry.rounds for entry in ledger.online.entries)
    assert ledger.online.entries[0].seconds == 0.5  # party 0's
    assert (ledger.offline.bytes, ledger.offline.entries[0].tuples) == (0, {"mul_triple": 12})


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"rounds": 4}, "rounds of"), ({"calls": 2}, "calls of"), ({"tuples": {"bit": 1}}, "tuples of")],
)
def test_parties_that_disagree_are_a_defect(changes: dict, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        merge_ledgers((_result(0), _result(1, lines=_lines(**changes))))


@pytest.mark.parametrize("rank", [0, 1])
def test_scope_that_only_one_party_knows_is_a_defect(rank: int) -> None:
    results = [_result(0), _result(1)]
    results[rank] = _result(rank, lines=[*_lines(), _line(layer=7)])
    with pytest.raises(RuntimeError, match=r"only one party knows of .*7"):
        merge_ledgers((results[0], results[1]))


def _timed(*times: tuple[float, float, float]) -> list[Inference]:
    return [Inference(seconds=s, offline_seconds=o, waiting_seconds=w) for s, o, w in times]


def test_latency_is_that_of_the_slower_party_without_the_offline_part() -> None:
    first = _result(0, inferences=_timed((2.0, 0.5, 0.1), (3.0, 0.5, 0.2), (9.0, 1.0, 0.3)))
    second = _result(1, warmup_seconds=[11.0], inferences=_timed((2.5, 0.1, 1), (2.0, 0.1, 1), (8.0, 0.1, 1)))
    latency = merge_latency((first, second))
    assert latency.total_seconds == [2.5, 3.0, 9.0]
    assert latency.offline_seconds == [0.5, 0.5, 1.0]
    assert latency.online_seconds == [2.0, 2.5, 8.0]
    assert latency.waiting_seconds == [0.1, 0.2, 0.3]
    assert latency.warmup_total_seconds == [11.0]
    assert latency.median_seconds == 2.5
    assert latency.iqr_seconds == pytest.approx(3.0)  # quartiles 2.25 and 5.25


def test_latency_of_one_repetition_has_no_spread() -> None:
    latency = merge_latency((_result(0), _result(1)))
    assert (latency.median_seconds, latency.iqr_seconds) == (1.5, 0.0)


def test_parties_that_timed_different_numbers_of_runs_are_a_defect() -> None:
    with pytest.raises(ValueError, match="zip"):
        merge_latency((_result(0), _result(1, inferences=_timed((1, 0, 0), (1, 0, 0)))))


def test_openings() -> None:
    openings = merge_openings((_result(0), _result(1)))
    assert (openings.masked, openings.unmasked) == (4, ["logits"])


@pytest.mark.parametrize("changes", [{"masked_openings": 5}, {"unmasked_openings": ["logits", "more"]}])
def test_parties_that_disagree_on_openings_are_a_defect(changes: dict) -> None:
    with pytest.raises(RuntimeError, match="what was opened"):
        merge_openings((_result(0), _result(1, **changes)))


def test_largest_report_fits_into_a_control_message() -> None:
    """The most repetitions and warm-ups that are allowed, of a graph with 1,500 scopes a phase."""
    inference = Inference(seconds=1 / 3, offline_seconds=1 / 7, waiting_seconds=1 / 9)
    lines = [
        _line(phase=phase, module=f"layers.{i}.self_attn.q_proj", seconds=1 / 3, wait_seconds=1 / 7)
        for phase in ("offline", "online")
        for i in range(1500)
    ]
    report = _result(
        0, lines=lines, warmup_seconds=[1 / 3] * 10_000, inferences=[inference] * 10_000
    )  # fmt: skip
    assert len(json.dumps(report.model_dump())) < MAX_CONTROL_BYTES / 2


def test_cuts_are_those_of_setup_and_inference_but_not_of_attempts_that_were_given_up() -> None:
    cut, setup = _line(cut_locally=5), _line(phase="setup", cut_locally=3)
    given_up = _line(operator=REPETITION, cut_locally=5)
    report = _result(0, setup=[setup, _line(phase="setup")], lines=[*_lines(), cut, given_up])
    assert report.cuts() == [setup, cut]
