from __future__ import annotations

import pytest

from mpcbench.graph.secure_graph import OPERATORS
from mpcbench.report.groups import GROUPS, activation_per_layer, by_group, group_of
from tests.records.factory import entry, make_record, phase


@pytest.mark.parametrize(
    ("module", "operator", "group"),
    [
        ("model.layers.0.mlp.up_proj", "linear", "linear"),
        ("lm_head", "linear", "lm_head"),
        ("lm_head", "lm_head", "lm_head"),
        ("model.embed_tokens", "embedding", "embedding"),
        ("model.layers.0.self_attn", "matmul", "attention"),
        ("model.layers.0.self_attn", "softmax", "attention"),
        ("model.layers.0.self_attn", "rope", "attention"),
        ("model.norm", "rms_norm", "rms_norm"),
        ("model.layers.0.mlp", "swiglu", "activation"),
        ("model.layers.0.mlp.act_fn", "silu", "activation"),
        ("model.layers.0.mlp.activation", "polynomial_glu", "activation"),
        ("model.layers.0.mlp", "quadratic_glu", "activation"),
        ("model.layers.0.mlp", "mul", "activation"),
        ("model.layers.0", "mul", "other"),
        ("output", "output", "output"),
        ("input", "input", "input"),
        ("model.layers.0", "an operator of tomorrow", "other"),
    ],
)
def test_every_operator_has_its_group(module: str, operator: str, group: str) -> None:
    assert group_of(entry(0, module, operator, 8, 1)) == group


def test_every_operator_of_a_graph_that_communicates_has_a_group() -> None:
    free = {"tokens", "past", "add", "reshape", "transpose", "last_token"}
    lost = {op for op in OPERATORS if group_of(entry(0, "layers.0", op, 8, 1)) == "other"}
    assert lost == free


@pytest.mark.parametrize("layers", [0, 8, 30])
def test_groups_add_up_to_the_ledger(layers: int) -> None:
    record = make_record(layers)
    unknown = entry(3, "model.layers.3", "an operator of tomorrow", 12345, 7)
    ledger = phase([*record.ledger.online.entries, unknown])
    groups = by_group(ledger)
    assert list(groups) == list(GROUPS)
    assert sum(cost.bytes for cost in groups.values()) == ledger.bytes
    for rank in (0, 1):
        assert sum(cost.bytes_sent[rank] for cost in groups.values()) == ledger.bytes_sent[rank]
    assert sum(cost.rounds for cost in groups.values()) == ledger.rounds
    assert sum(c.seconds for c in groups.values()) == pytest.approx(sum(e.seconds for e in ledger.entries))
    assert groups["other"].bytes == 2 * 12345
    assert groups["other"].rounds == 7


def test_the_activation_is_told_apart_by_layer() -> None:
    kept, replaced = activation_per_layer(make_record(8).ledger.online, range(22, 30))
    assert (len(kept), len(replaced)) == (22, 8)
    assert {cost.rounds for cost in kept} == {24}
    assert {cost.rounds for cost in replaced} == {2}
    assert kept[0].bytes == 2 * 8 * 49 * 16 * 1536


def test_a_split_activation_counts_once_a_layer() -> None:
    parts = [
        entry(0, "model.layers.0.mlp.act_fn", "silu", 100, 20),
        entry(0, "model.layers.0.mlp", "mul", 50, 1),
    ]
    kept, replaced = activation_per_layer(phase(parts), [])
    assert [(cost.bytes, cost.rounds) for cost in kept] == [(300, 21)]
    assert replaced == []
