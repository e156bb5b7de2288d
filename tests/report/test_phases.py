"""Setup and offline phase in tables, and old records that do not say all of it."""

from __future__ import annotations

from mpcbench.records.schema import PhaseLedger, Record, Sharing
from mpcbench.report.phases import dealt, preparation, unseeded
from mpcbench.report.summary import Summary
from tests.records.factory import entry, make_record, phase


def _with(record: Record, **phases: PhaseLedger) -> Record:
    return record.model_copy(update={"ledger": record.ledger.model_copy(update=phases)})


def _material(kind: str, count: int, party: int) -> PhaseLedger:
    bytes_dealt = (8 * count, 0) if party == 0 else (0, 8 * count)
    made = entry(0, "m", "o", 0, 0, tuples={kind: count}, dealt_bytes=bytes_dealt,
                 unseeded_bytes=(24 * count, 24 * count))  # fmt: skip
    return phase([made])


def _cells(*records: Record) -> dict[str, list[str]]:
    sections = preparation([Summary(record) for record in records])
    return {row.label: row.cells for section in sections for row in section.rows}


def test_first_party_counts_what_it_keeps() -> None:
    record = _with(make_record(0), offline=_material("mul_triple", 2_000_000, 0))
    found = _cells(record)
    assert found["dealt beside seeds [MB]"] == ["16.0†"]
    assert found["held by P0 / P1 [MB]"] == ["16.0 / 0"]
    assert found["sent by the dealer [MB]"] == ["0"]
    assert found["without seeds, to each [MB]"] == ["48.0"]
    assert found["tuples [million]"] == ["2"] and found["triples of products"] == ["2"]


def test_kinds_are_named_and_unknown_ones_kept() -> None:
    offline = [_with(make_record(0, secure=True), offline=_material(k, 10**6, 1)) for k in ("bit", "new")]
    found = _cells(*offline)
    assert found["bits in both sharings"] == ["1", "0"]
    assert found["new"] == ["0", "1"]
    assert found["held by P0 / P1 [MB]"] == ["0 / 8", "0 / 8"]


def test_setup_shows_shares_and_masks() -> None:
    setup = phase([entry(0, "m", "linear", 8_000_000, 1, tuples={"weight": 10**6})])
    record = _with(make_record(0), setup=setup)
    record = record.model_copy(update={"sharing": Sharing(folder_bytes=(10**9, 2 * 10**9))})
    found = _cells(record)
    assert found["shares of the model, P0 / P1 [MB]"] == ["1,000 / 2,000"]
    assert found["opened, both parties [MB]"] == ["16.0"]
    assert found["weight masks [million]"] == ["1"]


def test_old_records_leave_a_dash() -> None:
    insecure, dealer = make_record(0), make_record(0, secure=True)
    assert dealt(insecure) == (0, 0)  # it has no offline entries at all
    assert dealt(dealer) == dealer.ledger.offline.bytes_sent and unseeded(dealer) is None
    assert _cells(dealer)["without seeds, to each [MB]"] == ["–"]
    assert _cells(dealer)["shares of the model, P0 / P1 [MB]"] == ["–"]
