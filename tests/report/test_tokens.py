from __future__ import annotations

from pathlib import Path

from mpcbench.report.style import paper
from mpcbench.report.tokens import tokens_figure, write_tokens_figure
from tests.records.factory import make_record
from tests.report.texts import with_text


def test_a_curve_for_every_text_says_what_each_token_took(tmp_path: Path):
    records = [with_text(make_record(0, protocol="stock")), with_text(make_record(8, protocol="ours"))]
    with paper():
        figure = tokens_figure(records)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["stock, private logits†", "ours, 8 polynomial, private logits†"]
    for axes, expected in zip(figure.axes, (3.0, 400.0, None), strict=True):
        assert len(axes.lines) == 2
        for line in axes.lines:
            assert list(line.get_xdata()) == [17]  # the first token took the prompt: it is not a step
            assert expected is None or list(line.get_ydata()) == [expected]
    assert {path.name for path in write_tokens_figure(records, tmp_path)} == {"tokens.pdf", "tokens.png"}


def test_where_no_text_has_a_second_token_nothing_is_drawn(tmp_path: Path):
    assert write_tokens_figure([make_record(0), with_text(make_record(8), tokens=1)], tmp_path) == []
    assert not list(tmp_path.iterdir())
