"""Records of runs that did not take place: what they hold, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpcbench.checkpoints.configuration import read_architecture
from mpcbench.errors import UserError
from mpcbench.parties.network import LinkProfile
from mpcbench.pipeline.estimate import Setting, estimate, exported, variants
from mpcbench.records.compare import check_comparable
from mpcbench.records.store import read, write
from mpcbench.secure.protocol import load_protocol
from tests.cost.runs import export
from tests.records.factory import make_record
from tests.tiny import tiny_llama

LAN, WAN = LinkProfile("lan", 1e9, 0.0005), LinkProfile("wan", 100e6, 0.04)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tiny")
    tiny_llama(layers=3).config.save_pretrained(made)
    return made


def _setting(*protocols: str, **more: object) -> Setting:
    return Setting([load_protocol(name, "dealer") for name in protocols], [7], [LAN, WAN], **more)


def test_one_record_for_every_variant_protocol_and_link(folder: Path, tmp_path: Path) -> None:
    found = variants(read_architecture(str(folder)), [0, 2])
    records = estimate(found, _setting("crypten", "frontier"))
    assert len(records) == 2 * 2 * 2
    assert {record.kind for record in records} == {"estimated"}
    assert [len(r.model.polynomial_layers) for r in records[:4:2]] == [0, 2]
    assert records[0].ledger.online.bytes == records[1].ledger.online.bytes
    assert records[0].latency.median_seconds < records[1].latency.median_seconds
    assert len({record.key for record in records}) == len(records)
    again = read(write(records[0], tmp_path))
    assert again == records[0]


def test_polynomial_layers_cost_less(folder: Path) -> None:
    kept, replaced = estimate(variants(read_architecture(str(folder)), [0, 3]), _setting("crypten"))[::2]
    assert replaced.ledger.online.bytes < kept.ledger.online.bytes
    assert replaced.ledger.online.rounds < kept.ledger.online.rounds


def test_assumptions_are_stated_where_they_matter(folder: Path) -> None:
    found = variants(read_architecture(str(folder)), [0, 1])
    records = estimate(found, _setting("crypten", "mpcformer", widen=2.0))
    for record in records:
        text = " ".join(record.notes)
        assert "what rms_norm cost depends on calibrated ranges" in text and "widened 2 times" in text
        assert ("degree 2 are assumed to fold" in text) == bool(record.model.polynomial_layers)
        assert "time to compute is not in it" in text


def test_export_is_priced_with_its_own_ranges(tmp_path: Path) -> None:
    graph = export(tmp_path, "swiglu", "client")
    facts = make_record(0).model.model_dump()
    for rank in (0, 1):
        path = tmp_path / f"party{rank}" / "graph.json"
        path.write_text(json.dumps({**json.loads(graph.to_json()), "model": facts}))
    (record,) = estimate([exported(tmp_path)], Setting([load_protocol("frontier")], [7], [LAN]))
    assert not any("assumed" in note for note in record.notes)
    assert record.model.name == "smollm2-135m"


def test_configuration_with_polynomial_layers_is_taken_at_its_word(tmp_path: Path) -> None:
    body = tiny_llama(layers=3).config.to_dict()
    body |= {"model_type": "poly_llama", "polynomial_layers": [1], "polynomial_degree": 4}
    (tmp_path / "config.json").write_text(json.dumps(body))
    architecture = read_architecture(str(tmp_path))
    (own,) = variants(architecture, None)
    assert own.model.polynomial_layers == [1] and own.model.degree == 4
    assert any(node.op == "nested_glu" for node in own.graph.nodes)
    (none,) = variants(architecture, [0])
    assert none.model.polynomial_layers == []


@pytest.mark.parametrize(
    ("counts", "degree", "sentence"),
    [
        ([4], 2, "--layers 4 is out of range: the model has 3 layers"),
        ([-1], 2, "out of range"),
        ([1, 1], 2, "more than once"),
        ([1], 5, "degree of 5 is not offered"),
    ],
)
def test_impossible_layers_are_refused(counts: list[int], degree: int, sentence: str, folder: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        variants(read_architecture(str(folder)), counts, degree)


def test_estimates_and_measurements_do_not_stand_in_one_table(folder: Path) -> None:
    (made,) = estimate(
        variants(read_architecture(str(folder)), [0]), Setting([load_protocol("crypten")], [7], [LAN])
    )
    with pytest.raises(UserError, match="kind is"):
        check_comparable([made, make_record(0)])
