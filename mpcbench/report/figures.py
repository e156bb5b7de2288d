"""All figures of a comparison, and the captions that go with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.records.schema import Record
from mpcbench.report.costs import activation_figure, bytes_figure, latency_figure
from mpcbench.report.link_curves import link_latency_figure
from mpcbench.report.style import paper, write_figure
from mpcbench.report.tables import save
from mpcbench.report.tradeoff import latency_tradeoff_figure, main_task, tradeoff_figure
from mpcbench.report.words import data_sources, estimated, footnotes, randomness, repetitions, setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES: dict[str, Callable[..., Figure | None]] = {
    "online_bytes": bytes_figure,
    "latency": latency_figure,
    "accuracy_communication": tradeoff_figure,
    "accuracy_latency": latency_tradeoff_figure,
    "activation_layer": activation_figure,
    "latency_links": link_latency_figure,
}
"""Figures by file name; one that its records have no data for is None and left out."""


def write_figures(records: Sequence[Record], folder: Path, elsewhere: Sequence[Record] = ()) -> list[Path]:
    """Draw every figure as PDF and PNG into ``folder`` with figures.md, their captions; return the paths.

    ``elsewhere``: records of the same settings on other links. The same records give the same bytes.
    Raises UserError naming the path when a file cannot be written.
    """
    paths: list[Path] = []
    drawn: list[str] = []
    with paper():
        for name, draw in FIGURES.items():
            figure = draw(records, elsewhere) if draw is link_latency_figure else draw(records)
            if figure is not None:
                paths += write_figure(figure, folder, name)
                drawn.append(name)
    return [*paths, save(Path(folder) / "figures.md", captions(records, drawn).encode())]


def captions(records: Sequence[Record], names: Sequence[str]) -> str:
    """Captions in Markdown, a heading a figure: papers put titles into captions, not into figures."""
    shared = " ".join([f"{setting(records)}.", randomness(records), *footnotes(records)])
    texts = {
        "online_bytes": _BYTES,
        "latency": f"{_LATENCY} {_times(records)}",
        "accuracy_communication": _tradeoff(records, _TRAFFIC),
        "accuracy_latency": f"{_tradeoff(records, _ONLINE)} Horizontal bars are quartiles. {_times(records)}",
        "activation_layer": _ACTIVATION,
        "latency_links": _LINKS,
    }
    return "\n".join(f"## {name}\n\n{texts[name]} {shared}\n" for name in names)


_BYTES = (
    "Online traffic of one inference, payload bytes of both parties together (1 MB = 10^6 bytes), by number "
    "of polynomial layers. (a) All operators; linear layers are those of attention and MLP. (b) The "
    "activation alone (SwiGLU, or the polynomial in its place). In parentheses: how many times less than "
    "with no polynomial layer."
)
_LATENCY = (
    "Online latency of one inference at the slower party, by number of polynomial layers. (a) Median wall "
    "clock, divided among operator groups in proportion to their means; the grey segment also holds the time "
    "between operators. The strip beneath each bar splits the same time into waiting for the peer (black) "
    "and computing (white); its whisker spans the quartiles of the repetitions. (b) Rounds: dependent "
    "exchanges on the wire. In parentheses: how many times less than with no polynomial layer."
)
_ACTIVATION = (
    "The activation of one decoder layer in the online phase: original (SwiGLU) and polynomial, protocol by "
    "protocol, means over the layers of each kind. Traffic of both parties (1 MB = 10^6 bytes), rounds, and "
    "wall clock at the slower party. In parentheses: how many times less than the original."
)


_LINKS = (
    "Online latency of one inference by link. Lines are projected from loopback: latency there + rounds × "
    "half a round trip + bytes a party sends / bandwidth, against the round-trip time (a panel a bandwidth), "
    "and last against the bandwidth of each direction. Marks, where there are any, were measured on such "
    "a link, medians. Dashed lines and hollow marks: with polynomial layers."
)


def _times(records: Sequence[Record]) -> str:
    """What stands behind a latency."""
    return "Times are the link's." if estimated(records) else f"Medians of {repetitions(records)}."


_TRAFFIC = (
    "Accuracy against communication; labels are numbers of polynomial layers, traffic is that of both "
    "parties in the online phase (1 MB = 10^6 bytes)."
)
_ONLINE = "Accuracy against latency in the online phase; labels are numbers of polynomial layers."


_FRONT = "Grey lines join the points than which none is both as cheap and better (Pareto's front)."


def _tradeoff(records: Sequence[Record], against: str) -> str:
    task = main_task(records)
    panels = [f"{task[1]} on {task[0]} with its standard error"] if task else []
    if any(record.fidelity for record in records):
        panels.append("KL divergence from the original model's next-token distribution, in plaintext")
    shown = ". ".join(f"({letter}) {words}" for letter, words in zip("ab", panels, strict=False))
    return f"{against} {shown}. {_FRONT} {' '.join(data_sources(records))}"
