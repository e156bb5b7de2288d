"""The comparison as a LaTeX table (booktabs), one paper column wide for up to three records."""

from __future__ import annotations

from collections.abc import Sequence

from mpcbench.records.schema import Record
from mpcbench.report.sections import sections
from mpcbench.report.summary import Row, Section
from mpcbench.report.words import footnotes, marked_labels, notes, setting

ONE_COLUMN = 3  # with more records the table spans both columns of the page

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "×": r"$\times$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "–": "--", "—": "---", "…": r"\ldots{}", "≥": r"$\geq$",
    "≤": r"$\leq$", "·": r"$\cdot$",
}  # fmt: skip


def escape(text: str) -> str:
    """``text`` as LaTeX that prints it; a sign that pdfLaTeX has no glyph for becomes its code point."""
    return "".join(_SPECIAL.get(sign) or _plain(sign) for sign in text)


def _plain(sign: str) -> str:
    if " " <= sign <= "~" or "À" <= sign <= "ÿ":  # ASCII, and the letters of T1
        return sign
    return f"[U+{ord(sign):04X}]"


def latex_table(records: Sequence[Record], elsewhere: Sequence[Record] = ()) -> str:
    """A complete table environment; the document needs \\usepackage{booktabs} and [T1]{fontenc}."""
    table = "table" if len(records) <= ONE_COLUMN else "table*"
    heads = [escape(label) for label in marked_labels(records)]
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        rf"\begin{{{table}}}[t]",
        r"\centering",
        rf"\caption{{{escape(setting(records))}. Bytes are those of both parties, 1 MB = $10^6$ bytes.}}",
        r"\label{tab:mpcbench}",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{1.7pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(heads)}@{{}}}}",
        r"\toprule",
        " & ".join(["polynomial layers", *heads]) + r" \\",
    ]
    for section in sections(records, elsewhere):
        lines += _section(section, len(heads))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip\raggedright\scriptsize {escape(note)}" for note in _under(records)]
    return "\n".join([*lines, rf"\end{{{table}}}", ""])


def _under(records: Sequence[Record]) -> list[str]:
    marks = footnotes(records)
    rest = [note for note in notes(records) if note not in marks]
    return [*marks, " ".join(rest)]


def _section(section: Section, columns: int) -> list[str]:
    title = rf"\multicolumn{{{columns + 1}}}{{@{{}}l}}{{\textit{{{escape(_short(section.title))}}}}} \\"
    return [r"\midrule", title, *(_line(row) for row in section.rows)]


def _short(title: str) -> str:
    return title.replace(" unless a row says otherwise", "")


def _line(row: Row) -> str:
    label = r"\enspace " * row.depth + escape(row.label)
    return " & ".join([label, *map(escape, row.cells)]) + r" \\"
