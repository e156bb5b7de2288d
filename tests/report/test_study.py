from __future__ import annotations

import csv
import io
import json

from mpcbench.report.study import latex, markdown, study_rows, table_csv, terminal, write_report
from tests.report.studies import log_lines, make_study


def cells(line: str) -> list[str]:
    return [part.strip() for part in line.strip("|").split("|")]


def table(text: str) -> dict[tuple[str, str], list[str]]:
    lines = [cells(line) for line in text.splitlines() if line.startswith("| ")]
    return {(line[0], line[1]): line for line in lines}


def test_seeds_share_a_row_and_numbers_of_layers_do_not():
    rows = study_rows(make_study())
    assert [(row.first.row, row.first.layers, len(row.cells)) for row in rows] == [
        ("original", 0, 1), ("naive", 8, 2), ("mpcbench", 8, 1), ("mpcbench", 30, 1)
    ]  # fmt: skip
    assert rows[1].mean("arc") == 10.0 and rows[0].spread("arc") is None


def test_the_table_says_what_was_lost_and_what_was_published():
    rows = table(markdown(make_study()))
    naive = rows["Naive", "8"]
    assert naive[2] == "24.6" and naive[3] == "25.0 ± 2.1 (σ 1.4)" and naive[4] == "27.0"
    assert naive[7:11] == ["11.2 → 3.38", "4.76 → 0.26", "93", "2"]
    assert rows["Original", "0"][2:5] == ["75.0", "52.0 ± 2.1", ""]
    assert rows["Mpcbench", "30"][4] == "1.0" and rows["Mpcbench", "30"][6] == "0.0600"


def test_several_seeds_stand_there_with_their_mean_and_their_largest_gradient():
    study = make_study()
    other = [cell for cell in study.cells if cell.row == "naive"][1]
    other.training.kl, other.training.largest_gradient_norm = (8.76, 2.26), 342.8
    other.accuracy[0].stderr = 0.041
    naive = table(markdown(study))["Naive", "8"]
    assert naive[3].startswith("25.0 ± 3.1") and naive[7:11] == ["11.2 → 3.38", "6.76 → 1.26", "343", "2"]


def test_points_lost_have_the_error_of_the_difference_where_answers_are_known():
    study = make_study()
    for cell in study.cells:
        cell.accuracy[0].answered = "1100" if cell.row == "original" else "1010"
    rows = table(markdown(study))
    assert rows["Mpcbench", "30"][4] == "1.0 ± 40.8" and rows["Original", "0"][4] == ""


def test_a_trial_says_so():
    assert "not a result" in markdown(make_study(quick=True)) and "not a result" not in markdown(make_study())


def test_latex_is_balanced_and_escaped():
    text = latex(make_study())
    assert text.count(r"\begin") == text.count(r"\end") == 2
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") - line.count(r"\&") for line in rows} == {10}
    assert r"[\%]" in text and "±" not in text and "→" not in text and "σ" not in text.split(r"\par")[0]


def test_csv_has_a_row_a_cell_with_exact_numbers():
    rows = list(csv.DictReader(io.StringIO(table_csv(make_study()))))
    assert len(rows) == 5 and float(rows[2]["kl_arc"]) == 11.0 and rows[0]["training.steps"] == ""
    assert float(rows[1]["training.largest_gradient_norm"]) == 93.0


def test_the_terminal_table_fits_160_columns():
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(terminal(make_study()))
    text = console.export_text()
    assert "25.0 ± 2.1" in text and max(map(len, text.splitlines())) <= 160


def test_files_are_written_with_the_figure_where_two_logs_are(tmp_path):
    assert {path.name for path in write_report(make_study(), tmp_path)} == {
        "study.md",
        "study.tex",
        "study.csv",
    }
    (tmp_path / "logs").mkdir()
    for name in ("deep-unclipped", "deep-clipped"):
        text = "".join(json.dumps(line) + "\n" for line in log_lines(1))
        (tmp_path / "logs" / f"{name}-seed0.jsonl").write_text(text)
    written = {path.name for path in write_report(make_study(), tmp_path)}
    assert {"clipping.pdf", "clipping.png"} < written
