"""Tables of estimates: exact in CSV, marked everywhere, one row a run and one column a link."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import pytest

from mpcbench.checkpoints.configuration import read_architecture
from mpcbench.parties.network import LinkProfile
from mpcbench.pipeline.estimate import Setting, estimate, variants
from mpcbench.records.schema import Record
from mpcbench.report.estimates import estimates_csv, rows, terminal_estimates, write_estimates
from mpcbench.report.figures import captions, write_figures
from mpcbench.report.tables import markdown
from mpcbench.report.words import DAGGER, DOUBLE_DAGGER
from mpcbench.secure.protocol import load_protocol
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llama(layers=3).config.save_pretrained(folder)
    links = [LinkProfile("lan", 1e9, 0.0005), LinkProfile("wan", 100e6, 0.04)]
    protocols = [load_protocol("crypten", "first-party"), load_protocol("frontier")]
    return estimate(variants(read_architecture(str(folder)), [0, 2]), Setting(protocols, [7], links))


def test_a_row_a_run_and_a_column_a_link(records):
    heads, cells = rows(records)
    assert heads[-2:] == ["lan [s]", "wan [s]"] and len(cells) == 4
    assert cells[0][:3] == [f"crypten{DAGGER}{DOUBLE_DAGGER}", "7", "0 of 3"]
    assert cells[2][0] == f"frontier{DOUBLE_DAGGER}"


@pytest.mark.parametrize(("by", "some"), [("operator", "RMSNorm"), ("layer", "layer 2")])
def test_parts_add_up(by, some, records):
    _, cells = rows(records, by)
    assert some in {row[3] for row in cells}
    starts = [place for place, row in enumerate(cells) if row[0]] + [len(cells)]
    rounds = [sum(int(row[-1].replace(",", "")) for row in cells[a:b]) for a, b in pairwise(starts)]
    assert rounds == [record.ledger.online.rounds for record in records[::2]]


def test_block_is_that_of_one_layer(records):
    """The MLP's row alone gives the budget of a layer, as docs/costs.md tells it."""
    _, cells = rows([record for record in records if not record.model.polynomial_layers], "block")
    mlp = next(row for row in cells if row[3] == "mlp")
    hidden, channels = 7 * 16, 7 * 24
    opened = 3 * 16 * 24 + 2 * hidden + 52 * channels  # reference: CrypTen's SwiGLU layer, elements
    assert (mlp[-2], mlp[-1]) == (f"{16 * opened / 1e6:.3g}", "28")


def test_csv_is_exact(records):
    found = list(csv.DictReader(io.StringIO(estimates_csv(records))))
    assert len(found) == len(records)
    for row, record in zip(found, records, strict=True):
        assert int(row["online_bytes"]) == record.ledger.online.bytes
        assert float(row["online_seconds"]) == record.latency.median_seconds
        assert int(row["offline_unseeded_bytes_a_party"]) > int(row["offline_dealt_bytes"]) > 0


def test_all_that_is_written_says_that_it_is_an_estimate(records, tmp_path: Path):
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(terminal_estimates(records))
    one_link = [r for r in records if r.link.profile == "lan" and not r.model.polynomial_layers]
    texts = [console.export_text(), (write_estimates(records, tmp_path)[1]).read_text(),
             markdown(one_link), captions(one_link, ["online_bytes", "latency"])]  # fmt: skip
    for text in texts:
        assert f"{DOUBLE_DAGGER} Estimated" in text
        assert "threads a party" not in text and "warm-up" not in text


def test_figures_of_a_comparison_are_drawn_from_estimates(records, tmp_path: Path):
    one_link = [r for r in records if r.link.profile == "lan" and r.protocol.name == "frontier"]
    names = {path.name for path in write_figures(one_link, tmp_path)}
    assert {"online_bytes.png", "latency.pdf", "activation_layer.png"} <= names
    assert "accuracy_communication.png" not in names  # nothing was scored
