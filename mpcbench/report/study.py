"""The study as a table (terminal, Markdown, LaTeX, CSV) and as figures, from its record and logs alone."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcbench.records.schema import Accuracy
from mpcbench.records.study import Cell, Study
from mpcbench.report.latex import escape
from mpcbench.report.paired import lost
from mpcbench.report.style import paper, write_figure
from mpcbench.report.tables import save
from mpcbench.report.training import comparison_figure

if TYPE_CHECKING:
    from rich.console import Group

HEADS = (
    "model", "layers", "Llama 2 in the study [%]", "accuracy [%]", "points lost", "KL, ARC [nats]",
    "KL, other text [nats]", "layer MSE", "KL to the teacher", "largest gradient norm", "seeds",
)  # fmt: skip

CLIPPING = {
    "deep-unclipped": "unclipped",
    "deep-clip-alone": "clipped at 1.0",
    "deep-clipped": "clipped, KL emphasised",
}
"""Runs whose loss and gradient are drawn together, and what the figure calls them."""


@dataclass(frozen=True)
class StudyRow:
    """The cells of one row of the table: the same model at several seeds."""

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """The cell of the first seed: all say the same of what was trained."""
        return self.cells[0]

    @property
    def stderr(self) -> float:
        """Standard error of the accuracy over questions, mean over seeds."""
        return statistics.fmean(_accuracy(cell).stderr for cell in self.cells)

    def change(self, number: str) -> tuple[float, float] | None:
        """``layer_mse`` or ``kl`` before and after training, mean over seeds; None where there is none."""
        pairs = [getattr(cell.training, number) for cell in self.cells if cell.training]
        if not pairs or None in pairs:
            return None
        before, after = zip(*pairs, strict=True)
        return statistics.fmean(before), statistics.fmean(after)

    @property
    def largest_gradient_norm(self) -> float | None:
        """Of all steps of all seeds."""
        norms = [cell.training.largest_gradient_norm for cell in self.cells if cell.training]
        return max((norm for norm in norms if norm is not None), default=None)

    def mean(self, number: str) -> float:
        """Mean over seeds of ``accuracy``, ``arc`` or ``other`` (the last two: KL in nats a token)."""
        return statistics.fmean(_number(cell, number) for cell in self.cells)

    def spread(self, number: str) -> float | None:
        """Standard deviation over seeds; None for one seed."""
        values = [_number(cell, number) for cell in self.cells]
        return statistics.stdev(values) if len(values) > 1 else None


def write_report(study: Study, folder: Path) -> list[Path]:
    """study.md, .tex and .csv and the figure of clipping into ``folder``; returns their paths."""
    paths = [
        save(folder / "study.md", markdown(study).encode()),
        save(folder / "study.tex", latex(study).encode()),
        save(folder / "study.csv", table_csv(study).encode()),
    ]
    logs = {label: folder / "logs" / f"{run}-seed0.jsonl" for run, label in CLIPPING.items()}
    runs = {label: _lines(path) for label, path in logs.items() if path.is_file()}
    if len(runs) > 1:
        with paper():
            paths += write_figure(comparison_figure(runs), folder, "clipping")
    return paths


def study_rows(study: Study) -> list[StudyRow]:
    """Cells of one row and number of layers belong together, in the order in which they appear."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in study.cells:
        groups.setdefault((cell.row, cell.layers), []).append(cell)
    return [StudyRow(tuple(cells)) for cells in groups.values()]


def terminal(study: Study) -> Group:
    """The table for a terminal of 160 columns."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(*HEADS, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in study_rows(study):
        table.add_row(*map(Text, _texts(row, study)))
    return Group(Text(_caption(study), style="bold"), table, *map(Text, _notes(study)))


def markdown(study: Study) -> str:
    """The table in Markdown, with what it means beneath."""
    lines = [_caption(study), "", f"| {' | '.join(HEADS)} |", "|:---|" + "---:|" * (len(HEADS) - 1)]
    lines += [f"| {' | '.join(_texts(row, study))} |" for row in study_rows(study)]
    return "\n".join([*lines, "", *(f"{note}\n" for note in _notes(study))])


def latex(study: Study) -> str:
    """A table* environment (booktabs)."""
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        r"\begin{table*}[t]", r"\centering", rf"\caption{{{escape(_caption(study))}}}",
        r"\label{tab:mpcbench-study}", r"\scriptsize", r"\setlength{\tabcolsep}{2.5pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(HEADS) - 1)}@{{}}}}", r"\toprule",
        " & ".join(map(escape, HEADS)).replace("Llama 2 in the study", "Llama 2") + r" \\", r"\midrule",
    ]  # fmt: skip
    for row in study_rows(study):
        cells = [escape(text.replace("→", "->")).replace("->", r"$\to$") for text in _texts(row, study)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\raggedright\scriptsize {escape(note)}" for note in _notes(study)]
    return "\n".join([*lines, r"\end{table*}", ""])


def table_csv(study: Study) -> str:
    """A row a cell (model and seed) with every number."""
    rows = []
    for cell in study.cells:
        row: dict[str, Any] = {"row": cell.row, "title": cell.title, "seed": cell.seed, "layers": cell.layers}
        row |= {"degree": cell.degree, "published": cell.published}
        for score in cell.accuracy:
            row |= {score.metric: score.score, f"{score.metric}_stderr": score.stderr, "questions": score.n}
        for name in ("arc", "other"):
            found = getattr(cell, name)
            row |= {f"kl_{name}": found.kl, f"agreement_{name}": found.argmax_agreement}
        if cell.training:
            row |= {f"training.{key}": value for key, value in cell.training.model_dump().items()}
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _texts(row: StudyRow, study: Study) -> list[str]:
    cell, norm = row.first, row.largest_gradient_norm
    base = next((c for c in study.cells if c.row == "original"), None)
    return [
        cell.title,
        str(cell.layers),
        "" if cell.published is None else f"{100 * cell.published:.1f}",
        f"{100 * row.mean('accuracy'):.1f} ± {100 * row.stderr:.1f}{_seeds(row, 'accuracy', 100, 1)}",
        "" if base is None or cell.row == "original" else _lost(row, _accuracy(base)),
        f"{row.mean('arc'):.4f}{_seeds(row, 'arc', 1, 4)}",
        f"{row.mean('other'):.4f}",
        _change(row.change("layer_mse")),
        _change(row.change("kl")),
        "" if norm is None else f"{norm:.3g}",
        str(len(row.cells)) if cell.training else "–",
    ]  # fmt: skip


def _lost(row: StudyRow, base: Accuracy) -> str:
    """Points, with the standard error of the mean over seeds where single answers are known."""
    points = f"{round(100 * (base.score - row.mean('accuracy')), 1) + 0.0:.1f}"  # never -0.0
    paired = lost(base, *map(_accuracy, row.cells))
    return points if paired is None else f"{points} ± {100 * paired[1]:.1f}"


def _seeds(row: StudyRow, number: str, scale: float, digits: int) -> str:
    spread = row.spread(number)
    return "" if spread is None else f" (σ {scale * spread:.{digits}f})"


def _change(values: tuple[float, float] | None) -> str:
    return " → ".join(f"{value:.3g}" for value in values or ())


def _caption(study: Study) -> str:
    n = max((_accuracy(cell).n for cell in study.cells), default=0)
    task = next((_accuracy(cell).task for cell in study.cells), "no task")
    trial = " A trial run of a few steps: not a result." if study.quick else ""
    return f"{study.model}: recipes of the study, accuracy on {n} questions of {task}.{trial}"


def _notes(study: Study) -> list[str]:
    cells = study.cells
    sources = dict.fromkeys(_accuracy(cell).source for cell in cells)
    texts = dict.fromkeys(tuple(f"{part.tokens:,} tokens of {part.text}" for part in (cell.arc, cell.other))
                          for cell in cells)  # fmt: skip
    data = dict.fromkeys(cell.training.data for cell in cells if cell.training)
    return [
        f"Accuracy: plaintext; {'; '.join(sources)}; ± is the standard error over questions, σ the standard "
        "deviation over seeds. Points lost are against the original in full precision; their ± is of the "
        "differences (of the mean over seeds) question by question, where they are known.",
        *(f"KL(original || model) in nats a token: {arc}; other text: {other}." for arc, other in texts),
        f"Trained on: {'; '.join(data)}. Layer MSE and KL to the run's own teacher on its held-out part, "
        "before → after, and the largest gradient norm before clipping. Several seeds: the mean, of norms "
        "the largest.",
        f"Command: {study.command}",
    ]


def _accuracy(cell: Cell) -> Accuracy:
    return cell.accuracy[0]


def _number(cell: Cell, number: str) -> float:
    return _accuracy(cell).score if number == "accuracy" else getattr(cell, number).kl


def _lines(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
