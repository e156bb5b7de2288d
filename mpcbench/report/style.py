"""The look of all figures: one paper column wide, readable in grey, the same bytes at every redraw.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which people with the common kinds of
colour blindness tell apart. Every segment of a stack also has its place in a fixed order and, for the
groups that matter most, a hatch, so that the figures survive a printer without colour.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.report.tables import save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMN = 3.35  # inches, one column of the usual two-column papers
LEGEND_ROW = 0.16  # inches, with room between two legends
PNG_DPI = 300

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#BBBBBB"

COLOURS = {
    "linear": BLUE,
    "lm_head": SKY,
    "embedding": YELLOW,
    "attention": GREEN,
    "rms_norm": PURPLE,
    "activation": VERMILLION,
    "rest": GREY,
}
HATCHES = {"lm_head": "....", "attention": "\\\\\\\\", "activation": "////"}
_PROTOCOLS = {
    "crypten": (BLACK, "o"),
    "crypten-reuse": (SKY, "s"),
    "frontier": (VERMILLION, "D"),
    "mpcformer": (BLUE, "^"),
    "secformer": (GREEN, "v"),
    "shaft": (PURPLE, "P"),
}
_OTHER_PROTOCOL = (ORANGE, "X")

_SETTINGS = {
    "figure.dpi": PNG_DPI,
    "pdf.fonttype": 42,  # TrueType outlines: text in the PDF stays text, as publishers demand
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same on every machine
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "savefig.bbox": None,  # never trimmed: the width on paper is the width asked for
}


@contextmanager
def paper() -> Iterator[None]:
    """Matplotlib without a display and in this style, for the duration of a ``with``."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.use("Agg")
        matplotlib.rcParams.update(_SETTINGS)
        yield


class Sheet:
    """A figure of one column whose panels are laid out in inches, from the top down.

    ``panels`` are the heights of the axes; ``gaps`` the space beneath each (tick labels, axis label).
    """

    def __init__(
        self, panels: list[float], gaps: list[float], top: float, left: float = 0.56, right: float = 0.08
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.height = top + sum(panels) + sum(gaps)
        self.figure: Figure = Figure(figsize=(COLUMN, self.height))
        FigureCanvasAgg(self.figure)  # text is measured while the figure is laid out
        self.axes: list[Axes] = []
        y = self.height - top
        for panel, gap in zip(panels, gaps, strict=True):
            y -= panel
            box = (left / COLUMN, y / self.height, 1 - (left + right) / COLUMN, panel / self.height)
            self.axes.append(self.figure.add_axes(box))
            y -= gap

    def footnote(self, text: str) -> None:
        """Small words at the very bottom; the last gap must leave 0.13 inches a line for them."""
        if text:
            self.figure.text(0.02, 0.03 / self.height, text, fontsize=6, va="bottom", ha="left")

    def legend(self, handles: list, columns: int, below: int = 0) -> None:
        """A legend for all panels, at the very top or ``below`` so many rows of another."""
        top = (0.5, 1 - (0.02 + LEGEND_ROW * below) / self.height)
        self.figure.legend(handles=handles, bbox_to_anchor=top, ncols=columns, **_LEGEND)


_LEGEND = {
    "loc": "upper center", "handlelength": 1.2, "handleheight": 0.8, "columnspacing": 0.9,
    "handletextpad": 0.5, "borderaxespad": 0, "labelspacing": 0.35,
}  # fmt: skip


def protocol_look(name: str) -> tuple[str, str]:
    """Colour and marker of a protocol, the same in every figure that draws points or lines of several."""
    return _PROTOCOLS.get(name, _OTHER_PROTOCOL)


def protocol_handles(names: Mapping[str, str], markers: bool = True, linewidth: float = 0.0) -> list[Line2D]:
    """What a legend shows of protocols; names: protocol -> what the legend calls it."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colour, marker=marker if markers else "", markersize=3, linewidth=linewidth,
               label=label)
        for name, label in names.items() for colour, marker in [protocol_look(name)]
    ]  # fmt: skip


def legend_columns(handles: list) -> int:
    """The most columns, 4 at most, with which a legend is no wider than the paper's column."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for columns in (4, 3):
        figure = Figure(figsize=(COLUMN, COLUMN))
        renderer = FigureCanvasAgg(figure).get_renderer()
        legend = figure.legend(handles=handles, ncols=columns, **_LEGEND)
        if legend.get_window_extent(renderer).width <= figure.bbox.width:
            return columns
    return 2


def panel_letter(axes: Axes, letter: str, words: str) -> None:
    """The letter that a caption refers to, and what the panel shows, above its left edge."""
    title = axes.set_title(f"({letter}) {words}", loc="left", pad=3)
    renderer = axes.figure.canvas.get_renderer()
    while title.get_window_extent(renderer).x1 > axes.figure.bbox.x1 - 4 and title.get_fontsize() > 5:
        title.set_fontsize(title.get_fontsize() - 0.5)  # a task may have a long name


def ink(colour: str) -> str:
    """Black or white, whichever is read more easily on ``colour`` (relative luminance, WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if luminance > 0.18 else "white"


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save ``figure`` as PDF and PNG; no dates inside, so that a redraw is the same to the byte."""
    metadata = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "mpcbench"},
        "png": {"Software": "mpcbench"},
    }
    paths = []
    for kind, words in metadata.items():
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=PNG_DPI, metadata=words)
        paths.append(save(Path(folder) / f"{name}.{kind}", drawn.getvalue()))
    return paths
