from __future__ import annotations

import csv
import errno
import io
import os
import re
from pathlib import Path

import pytest

from mpcbench.errors import UserError
from mpcbench.records.schema import Record
from mpcbench.report.latex import escape, latex_table
from mpcbench.report.sections import sections
from mpcbench.report.summary import Row, Summary, megabytes
from mpcbench.report.tables import comparison_csv, markdown, operators_csv, write_tables
from mpcbench.report.terminal import terminal_table
from tests.records.factory import make_comparison, make_record


def rows(records: list[Record]) -> dict[str, Row]:
    """Rows by label; a nested row is known by its own label after that of its nearest parent."""
    found, parents = {}, {}
    for section in sections(records):
        for row in section.rows:
            parents[row.depth] = row.label
            found[" > ".join(parents[depth] for depth in range(row.depth + 1))] = row
    return found


def printed(records: list[Record]) -> str:
    from rich.console import Console

    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(terminal_table(records))
    return console.file.getvalue()


def test_total_and_activation_stand_apart_with_their_ratios() -> None:
    records = make_comparison()
    total = [record.ledger.online.bytes for record in records]
    activation = [Summary(record).groups["activation"].bytes for record in records]
    found = rows(records)
    assert found["online traffic [MB]"].cells == [f"{count / 1e6:,.0f}" for count in total]
    ratio = found["online traffic [MB] > times less than with 0"].cells
    assert ratio == [f"{total[0] / count:.2f}×" for count in total]
    shares = [f"{a / 1e6:.1f} ({100 * a / t:.0f}%)" for a, t in zip(activation, total, strict=True)]
    assert found["online traffic [MB] > activation [MB]"].cells == shares
    alone = found["online traffic [MB] > activation [MB] > times less than with 0"].cells
    assert alone == [f"{activation[0] / count:.2f}×" for count in activation]
    assert found["online rounds > activation rounds"].cells == ["720 (14%)", "544 (11%)", "368 (8%)"]
    assert found["online rounds > activation rounds > one polynomial layer"].cells == ["–", "2", "2"]


def test_without_a_record_of_0_layers_there_are_no_ratios() -> None:
    assert not any("times less" in label for label in rows(make_comparison(8, 16)))


def test_accuracy_is_named_with_its_setting_size_and_error() -> None:
    found = rows(make_comparison())
    assert found["arc_easy plaintext, n=570 [%]"].cells[0] == "57.4 ± 2.1"
    assert found["next token, two-party run"].cells == ['" Paris"'] * 3


def test_points_lost_are_compared_question_by_question_where_answers_are_known() -> None:
    label = "arc_easy plaintext, n=570 [%] > points lost, question by question"
    records = make_comparison()
    assert label not in rows(records)
    for record, answered in zip(records, ("1100", "1010", None), strict=True):
        record.accuracy[0].answered = answered
    assert rows(records)[label].cells == ["–", "0.0 ± 40.8", "–"]
    assert label not in rows(records[1:])


def test_a_record_without_some_accuracy_leaves_a_dash() -> None:
    records = make_comparison(0, 8)
    records[1].accuracy = []
    records[1].agreement = None
    records[1].fidelity = None
    found = rows(records)
    assert found["arc_easy plaintext, n=570 [%]"].cells == ["57.4 ± 2.1", "–"]
    assert found["KL to original [nats/token]"].cells == ["0", "–"]
    assert found["= checkpoint in plaintext"].cells == ["yes", "–"]


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0"), (1.57e6, "1.57"), (5.78e8, "578.0"), (3.3e9, "3,300")]
)
def test_megabytes(count: float, words: str) -> None:
    assert megabytes(count) == words


@pytest.mark.parametrize("layers", [(0,), (0, 8, 16), (0, 2, 4, 6, 8, 10, 12)])
def test_the_terminal_table_fits_and_names_phase_and_mark(layers: tuple[int, ...]) -> None:
    text = printed(make_comparison(*layers))
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    assert "online phase" in text
    assert all(f"{count}†" in text for count in layers)
    assert "† Not secure" in text


def test_a_next_token_cannot_inject_markup() -> None:
    assert '"[/bold]"' in printed([make_record(next_token="[/bold]")])


def test_the_csv_holds_every_field_exactly() -> None:
    records = make_comparison()
    table = list(csv.DictReader(io.StringIO(comparison_csv(records))))
    for line, record in zip(table, records, strict=True):
        assert int(line["ledger.online.bytes"]) == record.ledger.online.bytes
        assert int(line["online.activation.bytes"]) == Summary(record).groups["activation"].bytes
        assert float(line["latency.median_seconds"]) == record.latency.median_seconds
        raw = [float(value) for value in line["latency.online_seconds"].split(";")]
        assert raw == record.latency.online_seconds
        assert line["mark"] == "†"
        assert "Not secure" in line["mark_meaning"]
        assert line["environment.versions.torch"] == "2.13.0"
        assert line["accuracy.arc_easy.plaintext.acc.n"] == "570"
    fields = set(table[0])
    for part in Record.model_fields:
        assert any(name == part or name.startswith(f"{part}.") for name in fields), part


def test_the_operator_csv_adds_up_to_the_ledger() -> None:
    records = make_comparison(secure=True)
    table = list(csv.DictReader(io.StringIO(operators_csv(records))))
    for record in records:
        for phase in ("offline", "online"):
            lines = [row for row in table if row["run_id"] == record.run_id and row["phase"] == phase]
            ledger = getattr(record.ledger, phase)
            assert sum(int(row["bytes"]) for row in lines) == ledger.bytes
            assert sum(int(row["rounds"]) for row in lines) == ledger.rounds
    replaced = {row["layer"] for row in table if row["layer_is_polynomial"] == "True"}
    assert replaced == {str(layer) for layer in range(14, 30)}


def test_markdown_marks_and_escapes() -> None:
    text = markdown(make_comparison(next_token=" a|b*"))
    assert "| polynomial layers | 0† | 8† | 16† |" in text
    assert '" a\\|b\\*"' in text
    assert "† Not secure" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert widths == {5}


def test_latex_escapes_what_would_break_it() -> None:
    assert escape(r"a_b & 5% #1 $x {y} ~^\ <") == (
        r"a\_b \& 5\% \#1 \$x \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}"
    )
    assert escape("57.4 ± 2.1×†") == r"57.4 $\pm$ 2.1$\times$$^\dagger$"
    assert escape("東é\n") == "[U+6771]é[U+000A]"


def test_the_latex_table_is_complete() -> None:
    text = latex_table(make_comparison(next_token=" 100%_&"))
    for part in (r"\begin{table}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}", r"0$^\dagger$"):
        assert part in text
    assert "Not secure" in text
    assert r"100\%\_\&" in text
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {3}
    assert all(text.count("{") == text.count("}") for text in lines)


def test_many_records_span_both_columns() -> None:
    assert r"\begin{table*}" in latex_table(make_comparison(0, 4, 8, 16))


def test_tables_are_written(tmp_path: Path) -> None:
    paths = write_tables(make_comparison(), tmp_path / "out")
    assert [path.name for path in paths] == [
        "comparison.csv", "operators.csv", "comparison.md", "comparison.tex"
    ]  # fmt: skip
    assert all(path.stat().st_size > 500 for path in paths)


def test_a_full_disk_names_the_path_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=r"comparison\.csv: No space left"):
        write_tables(make_comparison(), tmp_path)
    assert list(tmp_path.iterdir()) == []
