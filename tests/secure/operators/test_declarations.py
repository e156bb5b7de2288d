"""The one shared test: every operator, on its own sample, is what it declares to be.

Two processes run all samples once, at each of two precisions. Each implementation must be right within its
declared error, and take exactly the bytes, rounds and tuples that it declares.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mpcbench.cost.declared import FREE
from mpcbench.graph.secure_graph import OPERATORS as GRAPH_OPERATORS
from mpcbench.graph.shares import encode
from mpcbench.secure.ledger import Ledger
from mpcbench.secure.operators import REGISTRY, Sample
from tests.secure.pair import run_pair

FINER = 20


def _shared(value: torch.Tensor) -> Any:
    from mpcbench.secure.substrate import crypten

    return crypten.cryptensor(value, src=0, precision=0 if value.dtype == torch.int64 else None)


def _share(weight: torch.Tensor, rank: int, bits: int) -> torch.Tensor:
    """A party's share of a weight, as an export would store it."""
    mask = torch.randint(-(2**62), 2**62, weight.shape, generator=torch.Generator().manual_seed(8))
    return mask if rank == 0 else encode(weight, bits) - mask


def _named(sample: Sample) -> list[tuple[str, torch.Tensor]]:
    return list(zip(sample.node.weights or [""] * len(sample.weights), sample.weights, strict=True))


def _loaded(operator: Any, sample: Sample, name: str, weight: torch.Tensor, rank: int) -> Any:
    if _public(sample):
        return weight
    return operator.load(sample.node, name, _share(weight, rank, operator.bits), operator.bits)


def _public(sample: Sample) -> bool:
    return sample.node.op in ("rope", "normed_scores")  # frequencies are the one public weight


def _measure(communicator: Any, bits: int) -> dict[str, dict]:
    """In a party's process: run every registered operator on its sample, under a ledger of its own."""
    from mpcbench.secure.substrate import crypten

    crypten.cfg["encoder.precision_bits"] = bits
    results = {}
    for name, kind in REGISTRY.items():
        operator, sample = kind(kind.Params(), bits), kind.sample()
        setup = communicator.ledger = Ledger()
        weights = [_loaded(operator, sample, *pair, communicator.get_rank()) for pair in _named(sample)]
        inputs = [None if value is None else _shared(value) for value in sample.inputs]
        communicator.ledger = Ledger()
        with (
            crypten.cfg.temp_override(dict(operator.settings(sample.node))),
            communicator.ledger.scope("online", 0, "sample", sample.node.op),
        ):
            value = operator.run(sample.node, inputs, weights)
        online, offline = communicator.ledger.total("online"), communicator.ledger.total("offline")
        with communicator.ledger.scope("online", 0, "sample", "output"), communicator.guard.output("sample"):
            opened = value.reveal().double() / value.encoder.scale
        results[name] = {
            "value": opened.tolist(), "bytes": online.bytes_sent, "rounds": online.rounds,
            "tuples": dict(offline.tuples), "dealt": offline.bytes_sent,
            "setup": setup.total("setup").as_json(),
            "other": setup.total("online").as_json() | setup.total("offline").as_json(),
        }  # fmt: skip
    return results


@pytest.fixture(scope="module")
def measured() -> tuple[dict, dict]:
    return run_pair(_measure, 16, provider="dealer")


@pytest.fixture(scope="module")
def finer() -> tuple[dict, dict]:
    """With more fraction bits than any packaged protocol has."""
    return run_pair(_measure, FINER, provider="dealer")


@pytest.mark.parametrize("name", REGISTRY)
def test_value_is_the_oracles_within_the_declared_error(name, measured):
    _assert_right(name, measured)


@pytest.mark.parametrize("name", REGISTRY)
def test_value_is_right_with_more_fraction_bits(name, finer):
    """Where nothing is cut locally: with so many bits that fails in one run of some hundred."""
    if not _declared(name, FINER).tuples.keys() & REGISTRY[name].cuts_locally:
        _assert_right(name, finer)


def _assert_right(name, measured):
    kind = REGISTRY[name]
    sample = kind.sample()
    if sample.node.op == "embedding":
        expected = sample.inputs[0].float() @ sample.weights[0]
    else:
        expected = kind(kind.Params()).reference(sample.node, sample.inputs, sample.weights)
    for party in measured:
        value = torch.tensor(party[name]["value"], dtype=torch.float64)
        assert value.shape == expected.shape
        assert (value - expected).abs().max() <= kind.error


@pytest.mark.parametrize("name", REGISTRY)
def test_cost_is_the_declared_one(name, measured):
    _assert_cost(name, measured, _declared(name, 16))


@pytest.mark.parametrize("name", REGISTRY)
def test_cost_with_more_fraction_bits_is_the_declared_one(name, finer):
    _assert_cost(name, finer, _declared(name, FINER))


def _declared(name, bits):
    kind = REGISTRY[name]
    sample = kind.sample()
    given = [value for value in sample.inputs if value is not None]  # None: an empty cache
    shapes = [tuple(v.shape) for v in given], [tuple(w.shape) for w in sample.weights]
    return kind(kind.Params(), bits).cost(sample.node, *shapes)


def _assert_cost(name, measured, declared):
    for party in measured:
        assert party[name]["rounds"] == declared.rounds
        assert party[name]["bytes"] == declared.bytes_sent
        assert party[name]["tuples"] == dict(declared.tuples)
    assert [party[name]["dealt"] for party in measured] == [0, declared.dealt_bytes]


@pytest.mark.parametrize("name", REGISTRY)
def test_cost_of_loading_weights_is_the_declared_one(name, measured):
    kind = REGISTRY[name]
    sample = kind.sample()
    declared = FREE
    if not _public(sample):
        for weight, value in _named(sample):
            declared += kind(kind.Params()).setup_cost(sample.node, weight, tuple(value.shape))
    for party in measured:
        setup = party[name]["setup"]
        assert (setup["bytes_sent"], setup["rounds"]) == (declared.bytes_sent, declared.rounds)
        assert setup["tuples"] == dict(declared.tuples)
        assert not party[name]["other"]["tuples"]  # what is made for setup belongs to setup


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_reader_needs_is_stated(name):
    kind = REGISTRY[name]
    assert kind.name == name and kind.op in GRAPH_OPERATORS
    assert kind.source and kind.domain and kind.error > 0
    assert kind.__doc__


def test_errors_are_declared_tightly(measured):
    """A declared error far above the measured one would let a wrong operator pass."""
    for name, kind in REGISTRY.items():
        sample = kind.sample()
        if sample.node.op == "embedding":
            continue
        expected = kind(kind.Params()).reference(sample.node, sample.inputs, sample.weights)
        error = float((torch.tensor(measured[0][name]["value"]) - expected).abs().max())
        assert kind.error <= 50 * max(error, 2.0**-16), f"{name}: declared {kind.error}, measured {error}"
