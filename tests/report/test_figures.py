from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpcbench.records.schema import Record
from mpcbench.report import costs, tradeoff
from mpcbench.report.costs import latency_quartiles
from mpcbench.report.figures import FIGURES, write_figures
from mpcbench.report.groups import by_group
from mpcbench.report.style import COLUMN, HATCHES, ink, paper
from tests.records.factory import entry, make_comparison, make_record, phase


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(make_comparison(), folder)
    return folder


@pytest.fixture
def style() -> Iterator[None]:
    with paper():
        yield


def test_every_figure_is_written_as_pdf_and_png(drawn: Path) -> None:
    names = {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
    assert {path.name for path in drawn.iterdir()} == names | {"figures.md"}
    assert all(path.stat().st_size > 5_000 for path in drawn.iterdir() if path.suffix != ".md")


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_one_column_wide(drawn: Path, name: str) -> None:
    box = re.search(rb"/MediaBox \[ ?([\d. ]+) ?\]", (drawn / f"{name}.pdf").read_bytes()).group(1)
    assert float(box.split()[2]) / 72 == pytest.approx(COLUMN)
    header = (drawn / f"{name}.png").read_bytes()[:24]
    assert int.from_bytes(header[16:20], "big") == int(COLUMN * 300)


@pytest.mark.parametrize("name", FIGURES)
def test_fonts_are_embedded_as_truetype(drawn: Path, name: str) -> None:
    pdf = (drawn / f"{name}.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    text = pdf + b"".join(_inflated(stream) for stream in streams)
    assert b"/FontFile2" in text  # the TrueType program itself
    assert b"/CIDFontType2" in text
    assert b"/Type3" not in text


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_a_redraw_is_the_same_to_the_byte(drawn: Path, tmp_path: Path) -> None:
    for path in write_figures(make_comparison(), tmp_path):
        assert path.read_bytes() == (drawn / path.name).read_bytes(), path.name


def test_captions_say_phase_units_and_mark(drawn: Path) -> None:
    text = (drawn / "figures.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(FIGURES)
    paragraphs = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("† Not secure" in paragraph for paragraph in paragraphs)
    assert all("nline" in paragraph for paragraph in paragraphs)


def _words(figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for axes in figure.axes:
        texts += [text.get_text() for text in axes.texts + axes.get_yticklabels()]
    return "\n".join(texts)


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", FIGURES)
def test_the_mark_is_on_every_figure_that_needs_it(name: str) -> None:
    words = _words(FIGURES[name](make_comparison()))
    assert "† not secure" in words
    assert words.count("†") > 1
    assert "†" not in _words(FIGURES[name](make_comparison(secure=True)))


@pytest.mark.usefixtures("style")
def test_bars_start_at_zero_and_end_at_the_ledgers_total() -> None:
    records = make_comparison()
    top, bottom = costs.bytes_figure(records).axes
    for row, record in enumerate(records):
        bars = [bar for bar in top.patches if round(bar.get_y() + bar.get_height() / 2) == row]
        assert min(bar.get_x() for bar in bars) == 0
        assert sum(bar.get_width() for bar in bars) == pytest.approx(record.ledger.online.bytes / 1e6)
    activation = [by_group(record.ledger.online)["activation"].bytes / 1e6 for record in records]
    assert [bar.get_width() for bar in bottom.patches] == pytest.approx(activation)
    assert top.get_xlim()[0] == bottom.get_xlim()[0] == 0


@pytest.mark.usefixtures("style")
def test_the_latency_bar_is_the_measured_time_and_rounds_are_written() -> None:
    records = make_comparison()
    top, bottom = costs.latency_figure(records).axes
    first = [bar for bar in top.patches if bar.get_y() + bar.get_height() / 2 == 0]
    median = records[0].latency.median_seconds
    assert sum(bar.get_width() for bar in first) == pytest.approx(median)
    written = " ".join(text.get_text() for text in bottom.texts)
    assert all(f"{record.ledger.online.rounds:,}" in written for record in records)


def _boxes(figure, gid: str | None = None) -> list:
    renderer = figure.canvas.get_renderer()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return [text.get_window_extent(renderer) for text in texts if gid is None or text.get_gid() == gid]


def _assert_words_apart_and_on_the_page(figure) -> None:
    boxes = _boxes(figure)
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= COLUMN * figure.dpi + 0.5
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("layers", [(0,), (0, 8, 16), (0, 1, 2, 3, 4), (0, 4, 8, 12, 16, 20, 30)])
@pytest.mark.parametrize("draw", FIGURES.values())
def test_no_words_collide_or_leave_the_page(draw, layers: tuple[int, ...]) -> None:
    figure = draw(make_comparison(*layers))
    if figure is None:  # the activation of one layer needs a polynomial one
        assert (draw, layers) == (costs.activation_figure, (0,))
        return
    _assert_words_apart_and_on_the_page(figure)


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("draw", FIGURES.values())
def test_axis_labels_and_ticks_stay_on_the_page(draw) -> None:
    figure = draw(make_comparison(secure=True))
    figure.canvas.draw()
    for axes in figure.axes:
        box = axes.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1


@pytest.mark.usefixtures("style")
def test_a_legend_with_every_group_fits(style) -> None:
    record = make_record(8)
    entries = [*record.ledger.online.entries, entry(0, "m", "operator of tomorrow", 10**7, 40)]
    record.ledger.online = phase(entries)
    figure = costs.latency_figure([make_comparison()[0], record])
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert "other, between" in [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("kl", [True, False])
def test_labels_of_points_in_one_place_do_not_collide(kl: bool) -> None:
    """They stand in the panel without error bars, if there is one."""
    records = [make_record(8, placement=name) for name in ("first", "last", "1,2", "3,4")]
    for record in records:
        record.fidelity = record.fidelity if kl else None
    figure = tradeoff.tradeoff_figure(records)
    boxes = _boxes(figure, "label")
    assert len(boxes) == 4
    assert sum(text.get_gid() == "label" for text in figure.axes[-1].texts) == 4
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


def _with_settings(records: list[Record]) -> list[Record]:
    for record in records:
        plain = record.accuracy[0]
        record.accuracy += [
            plain.model_copy(update={"setting": "fixed-point", "n": 100, "stderr": 0.05}),
            plain.model_copy(update={"setting": "secret-shared", "n": 20, "stderr": 0.11}),
        ]
    return records


@pytest.mark.usefixtures("style")
def test_settings_are_told_apart_in_a_legend_that_fits() -> None:
    figure = tradeoff.tradeoff_figure(_with_settings(make_comparison()))
    legend = figure.legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["plaintext (n=570)", "fixed-point (n=100)", "secret-shared (n=20)"]
    box = legend.get_window_extent(figure.canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("settings", [False, True])
def test_protocols_are_told_apart_in_a_legend_and_points_by_their_layers(settings: bool) -> None:
    records = make_comparison() + [record.model_copy(deep=True) for record in make_comparison()]
    for record in records[len(records) // 2 :]:
        record.protocol.name = "frontier"
        record.latency.median_seconds /= 8
    figure = tradeoff.latency_tradeoff_figure(_with_settings(records) if settings else records)
    renderer = figure.canvas.get_renderer()
    legend = figure.legends[-1]
    assert [text.get_text() for text in legend.get_texts()] == ["crypten", "frontier"]
    assert len(figure.legends) == 1 + settings
    boxes = [found.get_window_extent(renderer) for found in figure.legends]
    assert boxes[-1].y0 >= figure.axes[0].get_tightbbox(renderer).y1 - 1
    assert not settings or boxes[0].y0 >= boxes[1].y1 - 1
    labels = [text.get_text() for text in figure.axes[-1].texts if text.get_gid() == "label"]
    counts = [str(len(record.model.polynomial_layers)) for record in records]
    assert [label.split()[0].rstrip("†") for label in labels] == counts
    marks = [line for line in figure.axes[-1].lines if line.get_marker() in ("o", "D")]
    assert len({line.get_color() for line in marks}) == 2


@pytest.mark.usefixtures("style")
def test_the_front_joins_what_nothing_beats() -> None:
    points = [(3.0, 50.0), (1.0, 40.0), (2.0, 40.0), (4.0, 49.0), (1.0, 39.0), (5.0, 60.0)]
    assert tradeoff.pareto(points, most=True) == [(1.0, 40.0), (3.0, 50.0), (5.0, 60.0)]
    assert tradeoff.pareto(points, most=False) == [(1.0, 39.0)]
    with paper():
        figure = tradeoff.latency_tradeoff_figure(make_comparison())
    (line,) = [line for line in figure.axes[-1].lines if line.get_gid() == tradeoff.FRONT]
    records = sorted(make_comparison(), key=lambda record: record.latency.median_seconds)
    shown = [(record.latency.median_seconds, record.fidelity.kl) for record in records]
    assert list(map(tuple, line.get_xydata())) == tradeoff.pareto(shown, most=False)


def test_the_name_of_a_task_fits() -> None:
    records = make_comparison()
    for record in records:
        record.accuracy[0].task = "science questions that come with mpcbench"
    figure = tradeoff.tradeoff_figure(records)
    box = figure.axes[0].get_tightbbox(figure.canvas.get_renderer())
    assert box.x1 <= figure.bbox.x1


@pytest.mark.usefixtures("style")
def test_the_footnote_fits_whatever_the_provider_is_called() -> None:
    records = make_comparison()
    for record in records:
        record.protocol.provider = "a trusted first party with a very long name"
    figure = costs.bytes_figure(records)
    note = next(text for text in figure.texts if "†" in text.get_text())
    assert note.get_window_extent(figure.canvas.get_renderer()).x1 <= figure.bbox.x1


@pytest.mark.usefixtures("style")
def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    record = make_record(0)
    record.accuracy, record.fidelity = [], None
    names = {path.name for path in write_figures([record], tmp_path)}
    kept = ("online_bytes", "latency", "latency_links")
    assert names == {f"{name}.{kind}" for name in kept for kind in ("pdf", "png")} | {"figures.md"}


def test_the_style_does_not_leak(drawn: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with paper():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def test_quartiles_of_a_latency_interpolate_and_want_three_times() -> None:
    record = make_record(0)
    record.latency.online_seconds = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert latency_quartiles(record) == (2.0, 4.0)
    record.latency.online_seconds = [1.0, 2.0]
    record.latency.median_seconds = 1.5
    assert latency_quartiles(record) == (1.5, 1.5)


def test_ink_and_hatches() -> None:
    assert ink("#0072B2") == "white"
    assert ink("#F0E442") == "black"
    assert "activation" in HATCHES


def _halved(record: Record) -> Record:
    """The same run with half of the traffic."""
    entries = [
        entry.model_copy(update={"bytes_sent": tuple(sent // 2 for sent in entry.bytes_sent)})
        for entry in record.ledger.online.entries
    ]
    return record.model_copy(update={"ledger": record.ledger.model_copy(update={"online": phase(entries)})})


@pytest.mark.usefixtures("style")
def test_one_layers_activation_is_never_averaged_over_protocols() -> None:
    ours = [make_record(layers) for layers in (0, 8)]
    other = [_halved(make_record(layers, protocol="crypten-reuse")) for layers in (0, 8)]
    pairs = costs.one_layer([*ours, *other])
    assert list(pairs) == ["crypten", "crypten-reuse"]
    assert pairs["crypten"] == costs.one_layer(ours)["crypten"]
    halves = [2 * cost.bytes for cost in pairs["crypten-reuse"]]
    assert halves == pytest.approx([cost.bytes for cost in pairs["crypten"]], rel=1e-4)
    figure = costs.activation_figure([*ours, *other])
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([cost.bytes / 1e6 for pair in pairs.values() for cost in pair])
    _assert_words_apart_and_on_the_page(figure)
