"""The KL of two output distributions from hidden states, without the logits of a whole batch in memory."""

from __future__ import annotations

from typing import Any

import torch

ROWS = 64
"""Tokens at a time: what belongs to them stays near the processor."""


class Divergence(torch.autograd.Function):
    """T^2 KL(teacher/T || student/T) in nats, mean over tokens, and its gradient.

    The gradient for hidden states, (q - p) W, is taken on the way, since the frozen output layer W needs
    none. With one output layer for both models the difference of logits is that layer of the difference of
    hidden states: what bfloat16 rounds off is then a fraction of a small number, not of logits near 20.
    """

    @staticmethod
    def forward(
        context: Any, student: torch.Tensor, teacher: torch.Tensor, own: torch.Tensor,
        other: torch.Tensor | None, dtype: torch.dtype, temperature: float,
    ) -> torch.Tensor:  # fmt: skip
        """student, teacher: hidden states [tokens, hidden]; own, other: output layers [vocabulary, hidden].

        ``other`` is the teacher's output layer, None where it is the student's too; dtype: of the products.
        """
        own, other = own.to(dtype), None if other is None else other.to(dtype)
        total = student.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(student)
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
            chance = torch.exp(p, out=logits)
            total += p.sub_(q).mul_(chance).sum()
            gradient[rows] = product.copy_(q.exp_().sub_(chance)) @ own
        context.save_for_backward(gradient.mul_(temperature / len(student)))
        return total * temperature**2 / len(student)

    @staticmethod
    def backward(context: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = context.saved_tensors
        return gradient * grad, None, None, None, None, None


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


def _logits(
    hidden: torch.Tensor, head: torch.Tensor, temperature: float, product: torch.Tensor, out: torch.Tensor
) -> torch.Tensor:
    torch.mm(hidden.to(head.dtype), head.T, out=product)
    return out.copy_(product).div_(temperature)
