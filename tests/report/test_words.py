from __future__ import annotations

import io

from rich.console import Console

from mpcbench.report.figures import captions
from mpcbench.report.latex import latex_table
from mpcbench.report.sweep import terminal_sweep
from mpcbench.report.tables import comparison_csv, markdown
from mpcbench.report.terminal import WIDTH, terminal_table
from mpcbench.report.words import footnotes, labels, link, marked_labels, notes, setting, short_footnote
from tests.records.factory import make_comparison, make_record


def test_an_insecure_provider_is_marked_and_explained() -> None:
    records = [make_record(0, secure=True), make_record(8)]
    assert marked_labels(records) == ["0", "8†"]
    assert footnotes(records)[0].startswith("† Not secure, for development only")
    assert "party 0" in footnotes(records)[0]
    assert short_footnote(records).startswith("† not secure")


def test_a_secure_provider_has_no_footnote() -> None:
    records = make_comparison(secure=True)
    assert marked_labels(records) == ["0", "8", "16"]
    assert footnotes(records) == []
    assert short_footnote(records) == ""
    assert not any("†" in note for note in notes(records))


def test_fixed_seeds_are_loud_everywhere() -> None:
    """A dealer's record would carry no mark; this one does in every output."""
    record = make_record(8, secure=True).model_copy(update={"insecure_fixed_seeds": 7})
    sentence = "† Not secure, a test and nothing to publish: all masks follow from the number 7"
    assert marked_labels([record]) == ["8†"] and notes([record])[0].startswith(sentence)
    assert short_footnote([record]) == "† not secure: fixed seeds, a test and nothing to publish"
    terminal = Console(width=WIDTH, file=io.StringIO())
    terminal.print(terminal_table([record]), terminal_sweep([record]))
    texts = [
        terminal.file.getvalue(),
        markdown([record]),
        comparison_csv([record]),
        captions([record], ["latency"]),
    ]
    assert all("nothing to publish" in text and "†" in text for text in texts)
    assert "nothing to publish" in latex_table([record]) and "dagger" in latex_table([record])


def test_protocols_are_told_apart_by_name() -> None:
    records = [make_record(0), make_record(8), make_record(0), make_record(8)]
    for record in records[2:]:
        record.protocol.name = "frontier"
    assert labels(records) == ["crypten 0", "crypten 8", "frontier 0", "frontier 8"]
    assert "protocols crypten, frontier" in setting(records)
    assert "0/8 of" in setting(records)


def test_equal_numbers_of_layers_are_told_apart() -> None:
    records = [make_record(0), make_record(8, degree=2), make_record(8, degree=3)]
    assert labels(records) == ["0", "8 (degree 2)", "8 (degree 3)"]
    records = [make_record(8, placement="first"), make_record(8, placement="last")]
    assert labels(records) == ["8 (first)", "8 (last)"]
    records = [make_record(8, tokens=16), make_record(8, tokens=32)]
    assert labels(records) == [f"8 ({record.key[:4]})" for record in records]


def test_the_setting_names_what_a_reader_must_know() -> None:
    words = setting(make_comparison())
    for part in ("smollm2-135m", "0/8/16 of 30", "16 tokens", "private embedding", "protocol crypten"):
        assert part in words
    for part in ("semi-honest", "64-bit ring", "16 fraction bits", "link loopback", "1 thread a party"):
        assert part in words


def test_the_setting_says_when_there_was_a_prefix() -> None:
    record = make_comparison()[0]
    assert "prefix" not in setting([record])
    record.workload.prefix, record.workload.cached = "Be brief.", 3
    assert "16 tokens behind a prefix of 3, " in setting([record])


def test_the_measured_link_is_a_range_when_it_varies() -> None:
    records = make_comparison(0, 8)
    assert link(records) == "loopback (measured: 0.081 ms round trip, 15.2 Gbit/s)"
    records[1].link.measured_round_trip_seconds = 0.002
    assert "0.081 to 2 ms" in link(records)


def test_notes_say_where_questions_and_texts_come_from() -> None:
    words = " ".join(notes(make_comparison(notes=("0.3 truncation failures expected",))))
    assert "Task arc_easy: made up for a test" in words
    assert "4,096 tokens of calibration text" in words
    assert "Note: 0.3 truncation failures expected" in words
