"""How far two output distributions are apart, without the logits of a whole batch in memory."""

from __future__ import annotations

from typing import Any

import torch

ROWS = 64
"""Tokens at a time: what belongs to them stays near the processor."""


class Divergence(torch.autograd.Function):
    """T^2 KL(teacher/T || student/T) in nats, and how far apart the likelihoods of given tokens are.

    The second is T^2 (log q(t) - log p(t))^2 of the token t. Both are means over tokens. Their gradients for
    hidden states, (q - p) W and 2 (log q(t) - log p(t)) (1_t - q) W, are taken on the way, since the frozen
    output layer W needs none. With one output layer for both models the difference of logits is that layer
    of the difference of hidden states: what bfloat16 rounds off is then a fraction of a small number, not of
    logits near 20.
    """

    @staticmethod
    def forward(
        context: Any, student: torch.Tensor, teacher: torch.Tensor, own: torch.Tensor,
        other: torch.Tensor | None, dtype: torch.dtype, temperature: float,
        labels: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """student, teacher: hidden states [tokens, hidden]; own, other: output layers [vocabulary, hidden].

        ``other`` is the teacher's output layer, None where it is the student's too; dtype: of the products;
        labels: [tokens] the given tokens, -100 for none. Without labels the second value is 0.
        """
        own, other = own.to(dtype), None if other is None else other.to(dtype)
        total, apart = student.new_zeros(2, dtype=torch.float32)
        gradient, second = torch.empty_like(student), None if labels is None else torch.empty_like(student)
        given = 0 if labels is None else int((labels >= 0).sum())
        room = _Room(min(ROWS, len(student)), own)
        for start in range(0, len(student), ROWS):
            rows = slice(start, start + ROWS)
            product, reference, logits, p, q = room.rows(len(student[rows]))
            _logits(teacher[rows], own if other is None else other, temperature, product, reference)
            if other is None:
                _logits(student[rows] - teacher[rows], own, temperature, product, logits).add_(reference)
            else:
                _logits(student[rows], own, temperature, product, logits)
            torch.log_softmax(reference, -1, out=p)
            torch.log_softmax(logits, -1, out=q)
            difference = None if labels is None else _at(q, labels[rows]) - _at(p, labels[rows])
            chance = torch.exp(p, out=logits)
            total += p.sub_(q).mul_(chance).sum()
            torch.sub(q.exp_(), chance, out=p)
            gradient[rows] = product.copy_(p) @ own
            if difference is not None:
                apart += difference.square().sum()
                _toward(q, labels[rows]).mul_(2 * difference[:, None])
                second[rows] = product.copy_(q) @ own
        gradient.mul_(temperature / len(student))
        if second is not None:
            second.mul_(temperature / max(given, 1))
        context.save_for_backward(gradient, second)
        return total * temperature**2 / len(student), apart * temperature**2 / max(given, 1)

    @staticmethod
    def backward(context: Any, kl: torch.Tensor, likelihood: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, second = context.saved_tensors
        whole = gradient * kl if second is None else gradient * kl + second * likelihood
        return whole, *[None] * 6


class _Room:
    """Memory for some tokens' logits, used again for the next ones.

    Fresh arrays of this size would come from the kernel, page by page, for every few tokens.
    """

    def __init__(self, rows: int, head: torch.Tensor):
        shape = (rows, len(head))
        self._product = head.new_empty(shape)
        self._floats = [head.new_empty(shape, dtype=torch.float32) for _ in range(4)]

    def rows(self, count: int) -> list[torch.Tensor]:
        """The products' array and four of float32, [count, vocabulary] each."""
        return [array[:count] for array in (self._product, *self._floats)]


def _at(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of each row [rows, vocabulary] the value at its label, 0 where it has none."""
    return values.gather(1, labels.clamp(min=0)[:, None])[:, 0].masked_fill(labels < 0, 0.0)


def _toward(chances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """1 at each row's label less the chances, in their place; a row without one is to be multiplied by 0."""
    chances.neg_()
    return chances.scatter_add_(1, labels.clamp(min=0)[:, None], torch.ones_like(chances[:, :1]))


def _logits(
    hidden: torch.Tensor, head: torch.Tensor, temperature: float, product: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    torch.mm(hidden.to(head.dtype), head.T, out=product)
    return out.copy_(product).div_(temperature)
