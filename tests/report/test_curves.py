"""Figures of estimates: drawn where there is data, right where they are read off, one column wide."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.records.schema import Record, Sharing
from mpcbench.report.curves import FIGURES, links_figure, write_curves
from mpcbench.report.style import COLUMN, paper
from tests.records.factory import make_record


def _priced(protocol: str, layers: int, tokens: int) -> Record:
    record = make_record(layers, protocol=protocol, tokens=tokens, secure=True, repetitions=1)
    asked = {"asked_bandwidth_bits_per_second": 1e8, "asked_round_trip_seconds": 0.04}
    return record.model_copy(update={
        "kind": "estimated", "link": record.link.model_copy(update=asked),
        "sharing": Sharing(folder_bytes=(10**9, 10**9)),
        "protocol": record.protocol.model_copy(update={"sha256": protocol}),
    })  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [
        _priced(protocol, layers, tokens)
        for protocol in ("crypten", "frontier", "mine")
        for layers in (0, 8, 16)
        for tokens in (32, 128, 512)
    ]


def test_every_figure_is_drawn_and_captioned(records: list[Record], tmp_path: Path) -> None:
    names = {path.name for path in write_curves(records, tmp_path)}
    assert names == {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")} | {"curves.md"}
    text = (tmp_path / "curves.md").read_text()
    assert text.count("‡ Estimated") == len(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_fit_a_column_and_say_what_they_are(name: str, records: list[Record]) -> None:
    with paper():
        figure = FIGURES[name][0](records)
        figure.canvas.draw()
        assert figure.get_size_inches()[0] == COLUMN
        words = [text.get_text() for text in figure.texts]
        assert any("estimated" in word for word in words)
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            box = axes.get_tightbbox(renderer)
            assert box.x0 >= -1 and box.x1 <= figure.bbox.width + 1, name


def test_latency_is_that_of_the_formula(records: list[Record]) -> None:
    with paper():
        figure = links_figure(records)
    line = figure.axes[0].lines[0]
    online = records[0].ledger.online
    sent = sum(max(entry.bytes_sent) for entry in online.entries)
    trip = line.get_xdata()[5] / 1e3
    assert line.get_ydata()[5] == pytest.approx(online.rounds * trip / 2 + 8 * sent / 1e8)


def test_nothing_is_drawn_of_one_run(tmp_path: Path) -> None:
    assert write_curves([_priced("crypten", 0, 32)], tmp_path) == []
    assert list(tmp_path.iterdir()) == []
