from __future__ import annotations

import pytest

from mpcbench.parties.result import Line
from mpcbench.pipeline.truncation import FAR, expected, far_note
from mpcbench.records.schema import Entry, Truncation
from mpcbench.secure.protocol import load_protocol


def entry(operator: str, module: str = "layers.0.mlp", **tuples: int) -> Entry:
    return Entry(
        layer=0, module=module, operator=operator, calls=1, bytes_sent=(0, 0), rounds=1, seconds=0.0,
        wait_seconds=0.0, tuples=tuples,
    )  # fmt: skip


def line(operator: str, module: str, **cuts: float) -> Line:
    return Line(
        phase="online", layer=0, module=module, operator=operator, calls=1, bytes_sent=0, rounds=1,
        seconds=0.0, wait_seconds=0.0, tuples={}, **cuts,
    )  # fmt: skip


def test_each_product_fails_with_its_magnitude_over_the_ring() -> None:
    operators = load_protocol("crypten").operators
    entries = [
        entry("linear", "a", matmul_triple=100),
        entry("swiglu", "b", mul_triple=40, square=60, binary_triple=10**9, bit=10**9),
    ]
    count, failures = expected(entries, (), {("a", "linear"): 8.0, ("b", "swiglu"): 0.1}, 16, operators)
    assert count == 200
    assert failures == pytest.approx((100 * 8 + 100 * 1) / 2**32)


def test_four_more_fraction_bits_fail_256_times_as_often() -> None:
    operators = load_protocol("crypten").operators
    entries = [entry("linear", matmul_triple=1000)]
    few, many = (expected(entries, (), {}, bits, operators)[1] for bits in (12, 16))
    assert many == pytest.approx(256 * few)


def test_what_operators_enter_is_weighed_where_its_size_is_not_known() -> None:
    operators = load_protocol("frontier").operators
    entries = [entry("linear", "a", linear=1000), entry("argmax", mul_triple=7)]
    lines = [
        line("linear", "a", cut_locally=10, cut_failures_per_unit=1e-9),
        line("rope", "b", cut_locally=20, cut_failures_per_unit=1e-9),
        line("matmul", "c", cut_locally=30, cut_failures=1e-9),
    ]
    means = {("a", "linear"): 8.0, ("b", "rope"): 0.1, ("c", "matmul"): 99.0}
    count, failures = expected(entries, lines, means, 16, operators)
    assert count == 60
    assert failures == pytest.approx((8 + 1 + 1) * 1e-9)


def test_operators_outside_the_protocol_count_nothing() -> None:
    assert expected([entry("seeds", square=5)], (), {}, 16, load_protocol("crypten").operators) == (0, 0.0)


def test_a_run_with_a_wrong_output_says_so_and_what_to_do() -> None:
    seen = Truncation(cut_locally=0, expected_failures=0.0, repeated_rounds=0, far_logits=0, far=FAR)
    assert far_note(None) == far_note(seen) == []
    (note,) = far_note(seen.model_copy(update={"far_logits": 1234}))
    assert note.startswith("WRONG OUTPUT: 1,234 opened logits") and "--check-ranges" in note
