from __future__ import annotations

import json

import pytest

from mpcbench.checkpoints import load
from mpcbench.distill import Texts, calibrate
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.parties.network import NO_EMULATION
from mpcbench.pipeline.estimate import Setting, estimate, exported
from mpcbench.pipeline.export import export
from mpcbench.pipeline.single import check_shares, run_single
from mpcbench.progress import silent
from mpcbench.records.schema import PHASES, Record
from mpcbench.records.store import read, write
from tests.pipeline.conftest import TOKENS, changed
from tests.tiny import tiny_folder, tiny_texts

TEXTS = Texts(tiny_texts(), "random words", "0")


def test_shares_of_other_weights_are_refused(original, plan, tmp_path):
    export(original, tmp_path / "out", "private", 16, TEXTS)
    other = load(str(tiny_folder(tmp_path / "other", seed=1, layers=3)))
    with pytest.raises(UserError, match="exported from other weights"):
        check_shares(tmp_path / "out", other, plan.settings)
    assert check_shares(tmp_path / "out", original, plan.settings).embedding == "private"


def test_shares_with_another_prefix_are_refused(original, plan, tmp_path):
    export(original, tmp_path / "out", "private", 16, TEXTS, prefix=TOKENS[:, :3])
    with pytest.raises(UserError, match="a prefix of 3 tokens, and --prefix has 0"):
        check_shares(tmp_path / "out", original, plan.settings)


def test_a_run_is_recorded_with_what_it_was(original, plan, tmp_path):
    """The whole way with two real parties: polynomial checkpoint, shares, run, record."""
    checkpoint = load(str(calibrate(original, 2, placement="first", texts=TEXTS)))
    export(checkpoint, tmp_path / "out", "private", 16, TEXTS)
    settings = changed(plan, embedding="private", repetitions=2).settings
    record = run_single(tmp_path / "out", checkpoint, settings, (plan.task_data, 5), silent)

    assert record.model.polynomial_layers == [0, 1]
    assert record.model.sha256 == original.sha256 != record.model.checkpoint_sha256
    assert record.workload.tokens == TOKENS.shape[1] and record.workload.embedding == "private"
    assert record.agreement.argmax_equal and record.agreement.max_logit_error < 0.05
    assert record.accuracy[0].n == 5 and record.fidelity.kl > 0
    assert record.openings.unmasked == ["logits of the last position"]
    assert len(record.latency.online_seconds) == 2
    operators = {entry.operator for entry in record.ledger.online.entries}
    assert {"quadratic_glu", "swiglu", "embedding", "softmax", "rms_norm"} <= operators
    sent = [sum(entry.bytes_sent[rank] for entry in record.ledger.online.entries) for rank in (0, 1)]
    assert list(record.ledger.online.bytes_sent) == sent and record.ledger.online.bytes == sum(sent)
    assert record.protocol.provider == "dealer" and record.protocol.provider_is_secure
    assert record.truncation.cut_locally > 1000 and 0 < record.truncation.expected_failures < 1
    assert record.truncation.far_logits == record.truncation.repeated_rounds == 0
    share = json.loads((tmp_path / "out" / "party1" / "share.json").read_text())
    assert record.graph_sha256 == share["graph_sha256"]
    _assert_ranges(record, SecureGraph.read(tmp_path / "out" / "party1" / "graph.json"))
    assert read(write(record, tmp_path / "results")) == record

    setting = Setting([settings.protocol], [TOKENS.shape[1]], [NO_EMULATION])
    (priced,) = estimate([exported(tmp_path / "out")], setting)
    assert _traffic(priced) == _traffic(record)
    assert priced.sharing == record.sharing


def _assert_ranges(record: Record, graph: SecureGraph) -> None:
    ranged = {node.name: node.attrs["range"] for node in graph.nodes if "range" in node.attrs}
    assert record.ranges.keys() == ranged.keys() and {"rms_norm", "softmax"} <= {
        node.op for node in graph.nodes if node.name in ranged
    }
    for name, spans in ranged.items():
        assert {key: pytest.approx(span, rel=1e-5) for key, span in spans.items()} == record.ranges[name]


def _traffic(record: Record) -> dict[tuple, tuple]:
    """All that an estimate foresees of a record, by phase, layer, module and operator."""
    return {
        (phase, e.layer, e.module, e.operator): (
            e.bytes_sent, e.rounds, e.tuples, e.dealt_bytes, e.unseeded_bytes
        )
        for phase in PHASES
        for e in getattr(record.ledger, phase).entries
    }  # fmt: skip
