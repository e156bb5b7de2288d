"""Protocol files: what is wrong in one is named, with what would be right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import OPERATORS
from mpcbench.secure.operators import REGISTRY
from mpcbench.secure.protocol import PROVIDERS, available, load_protocol, parse_protocol


@pytest.fixture
def body() -> dict[str, Any]:
    return yaml.safe_load(available()["crypten"].read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", available())
def test_every_packaged_protocol_loads(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    together = {"sum_squares", "normed_scores"}
    assert set(protocol.operators) | together == set(OPERATORS) - {"tokens", "past"}
    assert together & set(protocol.operators) in (set(), together)
    assert all(operator.op == op for op, operator in protocol.operators.items())
    assert protocol.provider in PROVIDERS


def test_norms_are_put_off_by_two_operators_or_none() -> None:
    body = yaml.safe_load(available()["frontier"].read_text(encoding="utf-8"))
    del body["operators"]["sum_squares"]
    with pytest.raises(UserError, match="no implementation of sum_squares"):
        parse_protocol(body, "file")
    del body["operators"]["normed_scores"]
    parse_protocol(body, "file")


def test_parameters_reach_the_operator(body: dict) -> None:
    body["operators"]["softmax"] = {"use": "crypten.softmax", "exp_iterations": 5}
    assert parse_protocol(body, "file").operators["softmax"].params.exp_iterations == 5


@pytest.mark.parametrize("name", available())
def test_fraction_bits_reach_the_operators(name: str) -> None:
    body = yaml.safe_load(available()[name].read_text(encoding="utf-8"))
    body["fixed_point"]["fraction_bits"] = 20
    assert {operator.bits for operator in parse_protocol(body, "file").operators.values()} == {20}


def _set(*path: str, to: Any) -> Callable[[dict], None]:
    def change(body: dict) -> None:
        for key in path[:-1]:
            body = body[key]
        body[path[-1]] = to

    return change


def _drop(*path: str) -> Callable[[dict], None]:
    def change(body: dict) -> None:
        for key in path[:-1]:
            body = body[key]
        del body[path[-1]]

    return change


LINEAR = ", ".join(sorted(name for name, kind in REGISTRY.items() if kind.op == "linear"))
WRONG = {
    "operator": (
        _set("operators", "sofmax", to="x"),
        ["operator 'sofmax'", "choose add, append, argmax, embedding", "softmax"],
    ),
    "input": (_set("operators", "tokens", to="x"), ["operator 'tokens'", "choose add"]),
    "implementation": (
        _set("operators", "linear", to="crypten.lineal"),
        ["implementation of linear 'crypten.lineal' is unknown", f"choose {LINEAR}."],
    ),
    "of another operator": (
        _set("operators", "linear", to="crypten.softmax"),
        ["implementation of linear", f"choose {LINEAR}."],
    ),
    "no implementation": (_set("operators", "linear", to={}), ["implementation of linear None", LINEAR]),
    "parameter": (
        _set("operators", "softmax", "exp_iteration", to=4),
        ["crypten.softmax", "'exp_iteration' is unknown", "allowed are exp_iterations", "margin"],
    ),
    "parameter of none": (
        _set("operators", "linear", to={"use": "crypten.linear", "bits": 4}),
        ["'bits' is unknown", "allowed are none"],
    ),
    "parameter's type": (
        _set("operators", "softmax", "exp_iterations", to="many"),
        ["crypten.softmax", "exp_iterations", "integer"],
    ),
    "parameter's name": (_set("operators", "softmax", 3, to=4), ["softmax", "names that are words"]),
    "provider": (
        _set("provider", to="oracle"),
        ["provider 'oracle' is unknown", "choose dealer, first-party"],
    ),
    "missing operators": (
        lambda body: [_drop("operators", op)(body) for op in ("rope", "linear")],
        ["names no implementation of linear, rope"],
    ),
    "missing field": (_drop("threat_model"), ["lacks threat_model", "protocols/crypten.yaml"]),
    "field": (_set("rounds", to=3), ["'rounds' is unknown", "allowed are", "fixed_point", "operators"]),
    "ring": (_set("fixed_point", "ring_bits", to=32), ["fixed_point.ring_bits", "64"]),
    "fraction bits": (_set("fixed_point", "fraction_bits", to=40), ["fixed_point.fraction_bits", "30"]),
    "operators": (_set("operators", to=["linear"]), ["operators", "dictionary"]),
    "fraction bits of an operator": (
        lambda body: [
            _set("fixed_point", "fraction_bits", to=25)(body),
            _set("operators", "quadratic_glu", to="frontier.quadratic_glu")(body),
        ],
        ["frontier.quadratic_glu adds weights of 25 fraction bits", "input_bits to 13 or more"],
    ),
    "fraction bits of another": (
        lambda body: [
            _set("fixed_point", "fraction_bits", to=13)(body),
            _set("operators", "nested_glu", to={"use": "frontier.nested_glu", "input_bits": 6})(body),
        ],
        ["frontier.nested_glu adds weights of 13 fraction bits to squares of 12", "input_bits to 7 or more"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_what_is_allowed(body: dict, case: str) -> None:
    change, expected = WRONG[case]
    change(body)
    with pytest.raises(UserError) as caught:
        parse_protocol(body, "mine.yaml")
    text = str(caught.value)
    assert text.startswith("mine.yaml")
    assert "\n" not in text
    for words in expected:
        assert words in text


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "3"])
def test_file_that_holds_no_protocol(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"odd\.yaml describes no protocol"):
        load_protocol(str(file))


def test_malformed_yaml_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("name: x\noperators: {linear: [\n")
    with pytest.raises(UserError, match=r"broken\.yaml is not valid YAML, line 3"):
        load_protocol(str(file))


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(f"name: !!python/object/apply:pathlib.Path.touch ['{tmp_path / 'made'}']\n")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_protocol(str(file))
    assert not (tmp_path / "made").exists()


def test_binary_file_folder_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.yaml is not text: give a YAML file in UTF-8"):
        load_protocol(str(tmp_path / "binary.yaml"))
    for name in (".", "missing.yaml"):
        with pytest.raises(UserError, match=r"There is no protocol .*: choose crypten"):
            load_protocol(str(tmp_path / name))


@pytest.mark.parametrize(
    "change",
    [
        _set("operators", "softmax", "exp_iterations", to=7),
        _set("fixed_point", "fraction_bits", to=12),
        _set("threat_model", to="other"),
    ],
)
def test_hash_changes_with_a_parameter(body: dict, change: Callable[[dict], None]) -> None:
    before = copy.deepcopy(body)
    change(body)
    assert parse_protocol(body, "a").sha256() != parse_protocol(before, "a").sha256()
    assert parse_protocol(before, "a").sha256() == parse_protocol(copy.deepcopy(before), "b").sha256()


def test_hash_of_a_copy_of_the_file_is_the_same(tmp_path: Path) -> None:
    copied = tmp_path / "copy.yaml"
    copied.write_bytes(b"# a comment\n" + available()["crypten"].read_bytes())
    assert load_protocol(str(copied)).sha256() == load_protocol("crypten").sha256()
