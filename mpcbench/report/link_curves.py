"""The figure of latency by link: projected from loopback as lines, measured on links as marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpcbench.parties.network import LOOPBACK, LinkProfile, load_link
from mpcbench.records.schema import Record
from mpcbench.report.curves import curve_sheet, log_axis, look, polynomials
from mpcbench.report.links import projected
from mpcbench.report.style import panel_letter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKENDS = {"transport": "o", "netem": "s", "namespaces": "^"}
"""Marks of measurements, by who made the link slow."""
USUAL = "wan"
PANELS = 3
"""How many bandwidths have a panel at most, the quickest first."""


def link_latency_figure(records: Sequence[Record], elsewhere: Sequence[Record] = ()) -> Figure | None:
    """Online latency against the round trip, a panel a bandwidth, and last against the bandwidth.

    ``elsewhere``: records of the same settings on other links, whose bandwidths the panels are of; without
    any, the panels are of ``wan``. Of every protocol the runs with fewest and with most polynomial layers are
    shown. None without a record on loopback, from which alone a latency can be projected.
    """
    chosen = _ends([record for record in records if record.link.profile == LOOPBACK and record.latency])
    if not chosen:
        return None
    marks = [(r, line) for r in elsewhere if (line := _same_run(r, chosen)) is not None and r.latency]
    usual = load_link(USUAL)
    rates = sorted({_bandwidth(r) for r, _ in marks if _bandwidth(r)}, reverse=True)[:PANELS]
    rates = rates or [usual.bandwidth]
    trips = [r.link.asked_round_trip_seconds for r, _ in marks if r.link.asked_round_trip_seconds]
    trip = max(trips, default=usual.round_trip)
    both = len({polynomials(record) > 0 for record in chosen}) > 1
    sheet = curve_sheet(chosen, len(rates) + 1, both, _handles(marks))
    for axes, rate, letter in zip(sheet.axes, rates, "abc", strict=False):
        _against_trips(axes, chosen, [m for m in marks if _bandwidth(m[0]) == rate], rate)
        panel_letter(axes, letter, f"at {rate / 1e6:g} Mbit/s")
    _against_rates(
        sheet.axes[-1], chosen, [m for m in marks if m[0].link.asked_round_trip_seconds == trip], trip
    )
    panel_letter(sheet.axes[-1], "abcd"[len(rates)], f"at {trip * 1e3:g} ms")
    return sheet.figure


def _ends(records: Sequence[Record]) -> list[Record]:
    counts: dict[str, list[int]] = {}
    for record in records:
        counts.setdefault(record.protocol.name, []).append(polynomials(record))
    return [r for r in records if polynomials(r) in (min(c := counts[r.protocol.name]), max(c))]


def _same_run(record: Record, chosen: Sequence[Record]) -> Record | None:
    """The record on loopback that a measurement on a link belongs to."""
    key = (record.protocol.sha256, record.model.checkpoint_sha256)
    return next((r for r in chosen if (r.protocol.sha256, r.model.checkpoint_sha256) == key), None)


def _bandwidth(record: Record) -> float | None:
    return record.link.asked_bandwidth_bits_per_second


Marks = Sequence[tuple[Record, Record]]


def _against_trips(axes: Axes, chosen: Sequence[Record], marks: Marks, rate: float) -> None:
    trips = [1e-4 * 10 ** (step / 10) for step in range(34)]
    for record in chosen:
        seconds = [projected(record, LinkProfile("", rate, trip)) for trip in trips]
        axes.plot([1e3 * trip for trip in trips], seconds, **look(record, marker=""))
    _mark(axes, marks, [1e3 * r.link.asked_round_trip_seconds for r, _ in marks])
    _finish(axes, "round-trip time [ms]")


def _against_rates(axes: Axes, chosen: Sequence[Record], marks: Marks, trip: float) -> None:
    rates = [1e7 * 10 ** (step / 10) for step in range(31)]
    for record in chosen:
        seconds = [projected(record, LinkProfile("", rate, trip)) for rate in rates]
        axes.plot([rate / 1e6 for rate in rates], seconds, **look(record, marker=""))
    limited = [mark for mark in marks if _bandwidth(mark[0])]
    _mark(axes, limited, [_bandwidth(r) / 1e6 for r, _ in limited])
    _finish(axes, "bandwidth [Mbit/s]")


def _mark(axes: Axes, marks: Marks, places: Sequence[float]) -> None:
    """Measurements, in the colour of their protocol; hollow for polynomial layers."""
    for (record, line), x in zip(marks, places, strict=True):
        shape = BACKENDS.get(record.link.backend, "X")
        style = look(line, marker=shape, linestyle="none", markersize=4)
        axes.plot([x], [record.latency.median_seconds], **style)


def _finish(axes: Axes, label: str) -> None:
    log_axis(axes, "x")
    log_axis(axes)
    axes.set_xlabel(label, labelpad=1)
    axes.set_ylabel("online latency [s]", labelpad=2)


def _handles(marks: Marks) -> list:
    from matplotlib.lines import Line2D

    found = dict.fromkeys(record.link.backend for record, _ in marks)
    return [
        Line2D([], [], color="0.4", linestyle="none", marker=BACKENDS.get(name, "X"), markersize=4,
               label=f"measured ({name})")
        for name in found
    ]  # fmt: skip
