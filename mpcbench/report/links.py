"""Latency on other links: projected from what was measured on loopback, and measured where that was done.

Projected = online latency on loopback + rounds × one-way delay + bytes a party sends / bandwidth. The two
never share a row.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpcbench.parties.network import LOOPBACK, LinkProfile, available, load_link
from mpcbench.records.compare import same_but_link
from mpcbench.records.schema import Record
from mpcbench.report.summary import NONE, Row, Section, in_seconds

TITLE = "Online latency by link: projected from loopback, and measured, median"


def links_section(records: Sequence[Record], elsewhere: Sequence[Record]) -> Section | None:
    """A row for every named link and way of knowing; None where there is neither.

    ``elsewhere``: records of the same settings that were measured on other links.
    """
    rows = []
    for link in _links():
        if any(record.link.profile == LOOPBACK for record in records):
            cells = [_seconds(projected(record, link)) for record in records]
            rows.append(Row(f"{link.name} ({link.describe()}), projected [s]", cells))
        rows += _measured_rows(records, [r for r in elsewhere if _asked(r) == _asked_of(link)])
    named = [_asked_of(link) for link in _links()]
    rows += _measured_rows(records, [r for r in elsewhere if _asked(r) not in named])
    return Section(TITLE, rows) if rows else None


def projected(record: Record, link: LinkProfile) -> float | None:
    """Seconds that the run would take online over ``link``; None where it was not measured on loopback."""
    if record.link.profile != LOOPBACK or record.latency is None:
        return None
    online = record.ledger.online
    # Both directions are used at once: in every entry the party that sends more decides.
    sent = sum(max(entry.bytes_sent) for entry in online.entries)
    return record.latency.median_seconds + link.seconds(online.rounds, sent)


def _measured_rows(records: Sequence[Record], elsewhere: Sequence[Record]) -> list[Row]:
    """One row for every link and backend."""
    rows = []
    kinds = dict.fromkeys((r.link.profile, r.link.backend) for r in elsewhere)
    for profile, backend in kinds:
        here = [r for r in elsewhere if (r.link.profile, r.link.backend) == (profile, backend)]
        found = [next((r for r in here if same_but_link(r, record)), None) for record in records]
        if any(found):
            cells = [_seconds(r.latency.median_seconds if r else None) for r in found]
            rows.append(Row(f"{profile}, measured ({backend}) [s]", cells, 1))
    return rows


def _links() -> list[LinkProfile]:
    return [load_link(name) for name in available() if name != LOOPBACK]


def _asked(record: Record) -> tuple:
    link = record.link
    return link.profile, link.asked_bandwidth_bits_per_second, link.asked_round_trip_seconds


def _asked_of(link: LinkProfile) -> tuple:
    return link.name, link.bandwidth, link.round_trip


def _seconds(value: float | None) -> str:
    return NONE if value is None else in_seconds(value)
