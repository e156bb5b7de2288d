"""Latency by link: the formula for what was not run, measurements for what was, never in one row."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.parties.network import load_link
from mpcbench.records.compare import measured_elsewhere
from mpcbench.records.schema import Record
from mpcbench.records.store import read_folder, write
from mpcbench.report.links import links_section, projected
from mpcbench.report.tables import markdown
from tests.records.factory import make_comparison, make_record


def _on(record: Record, name: str, backend: str = "transport", seconds: float = 123.4) -> Record:
    """The same run over a link."""
    link = load_link(name)
    asked = {
        "profile": name, "backend": backend, "asked_bandwidth_bits_per_second": link.bandwidth,
        "asked_round_trip_seconds": link.round_trip,
    }  # fmt: skip
    return record.model_copy(
        update={
            "run_id": f"{record.run_id}-{name}-{backend}", "key": f"{name}{backend}{record.key}",
            "link": record.link.model_copy(update=asked),
            "latency": record.latency.model_copy(update={"median_seconds": seconds}),
        }
    )  # fmt: skip


def test_projection_is_loopback_and_rounds_and_bytes_of_one_party() -> None:
    record = make_record(8)
    online = record.ledger.online
    expected = record.latency.median_seconds + online.rounds * 0.02 + online.bytes_sent[0] * 8 / 100e6
    assert projected(record, load_link("wan")) == pytest.approx(expected)
    assert projected(_on(record, "lan"), load_link("wan")) is None


def test_rows_are_of_one_kind_each() -> None:
    records = make_comparison()
    section = links_section(records, [_on(records[1], "wan"), _on(records[2], "wan", "namespaces", 55.0)])
    rows = {row.label: row.cells for row in section.rows}
    assert list(rows) == [
        "lan (1 Gbit/s, 0.5 ms round trip), projected [s]",
        "geo (400 Mbit/s, 4 ms round trip), projected [s]",
        "wan (100 Mbit/s, 40 ms round trip), projected [s]",
        "wan, measured (transport) [s]",
        "wan, measured (namespaces) [s]",
    ]
    assert rows["wan, measured (transport) [s]"] == ["–", "123.4", "–"]
    assert rows["wan, measured (namespaces) [s]"] == ["–", "–", "55.00"]
    assert "–" not in rows["wan (100 Mbit/s, 40 ms round trip), projected [s]"]


def test_records_of_a_link_are_not_projected_to_others() -> None:
    on_wan = [_on(record, "wan") for record in make_comparison()]
    assert links_section(on_wan, []) is None
    assert "projected" not in markdown(on_wan)
    assert "projected" in markdown(make_comparison())


def test_a_users_own_link_is_shown_where_it_was_measured() -> None:
    records = make_comparison()
    link = records[0].link.model_copy(update={"profile": "satellite", "asked_round_trip_seconds": 0.6})
    own = _on(records[0], "wan").model_copy(update={"link": link.model_copy(update={"backend": "netem"})})
    assert "satellite, measured (netem) [s]" in [row.label for row in links_section(records, [own]).rows]


def test_the_folder_is_searched_for_the_same_settings(tmp_path: Path) -> None:
    records = make_comparison()
    same = _on(records[0], "lan")
    others = [
        _on(make_record(0, tokens=32), "lan"),
        _on(make_record(0, protocol="frontier"), "lan"),
        _on(make_record(4), "lan"),
    ]
    for record in (*records, same, *others):
        write(record, tmp_path)
    assert [record.run_id for record in measured_elsewhere(records, read_folder(tmp_path))] == [same.run_id]
