"""Costs of CrypTen 0.4.1's functions for two parties, in closed form.

Derived from CrypTen's source (file and function in each docstring) with one opening, batched or not,
counted as one round. ``n`` counts elements, ``bits`` are the protocol's fraction bits. The operators' shared
test holds these formulas against measurement, byte for byte.
"""

from __future__ import annotations

import math

from mpcbench.cost.declared import FREE, Cost, opening

_WORD_LEVELS = 6  # log2 of 64: depth of CrypTen's carry and equality trees


def mul(x: int, y: int | None = None, out: int | None = None) -> Cost:
    """Elementwise product of x and y elements (``mpc/primitives/beaver.py``: mul)."""
    y = x if y is None else y
    return opening(x + y, "mul_triple", max(x, y) if out is None else out)


def square(n: int) -> Cost:
    """``beaver.py``: square."""
    return opening(n, "square", n)


def matmul(m: int, k: int, n: int, batch: int = 1, weight: bool = False) -> Cost:
    """(batch, m, k) by (batch, k, n), or by one (k, n) when ``weight`` (``beaver.py``: matmul)."""
    right = k * n * (1 if weight else batch)
    return opening(batch * m * k + right, "matmul_triple", batch * m * n)


def conjunction(x: int, y: int | None = None) -> Cost:
    """Bitwise and of 64-bit words (``beaver.py``: AND); CrypTen broadcasts both operands first."""
    n = max(x, x if y is None else y)
    return opening(2 * n, "binary_triple", n)


def ltz(n: int) -> Cost:
    """``mpc/mpc.py``: _ltz. An adder (and, then a tree on pairs of words), then one bit to arithmetic."""
    adder = conjunction(n) + _WORD_LEVELS * conjunction(2 * n)
    return adder + opening(n, "bit", n)


def eqz(n: int) -> Cost:
    """``mpc/mpc.py``: _eqz_2PC. A tree of ands on one word, then one bit to arithmetic."""
    return _WORD_LEVELS * conjunction(n) + opening(n, "bit", n)


def exp(n: int, iterations: int) -> Cost:
    """``common/functions/approximations.py``: exp, by repeated squaring."""
    return iterations * square(n)


def reciprocal(n: int, exp_iterations: int, nr_iterations: int) -> Cost:
    """``approximations.py``: reciprocal of positive inputs, Newton-Raphson from an exponential."""
    return exp(n, exp_iterations) + nr_iterations * (square(n) + mul(n))


def inv_sqrt(n: int, exp_iterations: int, nr_iterations: int) -> Cost:
    """``approximations.py``: inv_sqrt, Newton-Raphson from an exponential."""
    return exp(n, exp_iterations) + nr_iterations * (square(n) + mul(n) + mul(n))


def sigmoid(n: int, exp_iterations: int) -> Cost:
    """``approximations.py``: sigmoid by reciprocal: sign, absolute value, exp, three Newton steps of which
    the first has a public start and is free, and a selection. The exponential here is CrypTen's own
    setting; the reciprocal inside starts from 0.75 and needs none.
    """
    newton = 2 * (square(n) + mul(n))
    return ltz(n) + mul(n) + exp(n, exp_iterations) + newton + 2 * mul(n)


def rand(n: int, bits: int) -> Cost:
    """``mpc/mpc.py``: rand. As many random bits as there are fraction bits, all converted to arithmetic in
    one round."""
    return opening(bits * n, "bit", bits * n)


def weighted_index(rows: int, n: int, bits: int) -> Cost:
    """``common/functions/sampling.py``: weighted_index, which breaks ties in every argmax."""
    return rand(rows, bits) + mul(rows) + ltz(rows * n)


def pairwise_max(rows: int, n: int, bits: int) -> Cost:
    """``common/functions/maximum.py``: max with method ``pairwise`` over n elements of each row."""
    others = (n if n > 1 else 2) - 1
    cost = ltz(others * rows * n)
    left = others
    while left > 1:  # common/functions/regular.py: prod
        cost += mul((left // 2) * rows * n)
        left = left // 2 + left % 2
    return cost + weighted_index(rows, n, bits) + mul(rows * n)


def maximum(rows: int, n: int, bits: int) -> Cost:
    """``maximum.py``: max along a dimension with method ``log_reduction``, with the one-hot argmax that
    it computes and its caller throws away."""
    cost, left = FREE, n
    for _ in range(int(math.log(n))):
        half = (left // 2) * rows
        cost += ltz(half) + 2 * mul(half)
        left = left // 2 + left % 2
    return cost + pairwise_max(rows, left, bits) + eqz(rows * n) + weighted_index(rows, n, bits)


def softmax(rows: int, n: int, exp_iterations: int, nr_iterations: int, bits: int) -> Cost:
    """``approximations.py``: softmax over n elements of each row."""
    total = reciprocal(rows, exp_iterations, nr_iterations)
    return maximum(rows, n, bits) + exp(rows * n, exp_iterations) + total + mul(rows * n, rows)
