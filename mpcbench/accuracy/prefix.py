"""Log-likelihoods of several continuations of one context, the context computed once.

A multiple-choice question asks for the likelihood of each answer after the same question. Scored one by
one, the question is computed four times; here all answers of a question lie side by side in one row, and
an attention mask keeps them from seeing one another:

    row        q0 q1 q2 | a0 a1 | b0 b1 b2        each token attends to the question,
    position    0  1  2 |  3  4 |  3  4  5        to its own answer's earlier tokens, and to itself

The results are those of separate rows up to the rounding of float32, for a third of the work on ARC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mpcbench.compat  # noqa: F401  -- before transformers

if TYPE_CHECKING:
    import torch

Tokens = Sequence[int]
Answer = tuple[float, bool]

TOKENS_PER_BATCH = 512
"""Bounds the memory of a forward pass: at most this many positions with logits over the vocabulary."""


@dataclass(frozen=True)
class Row:
    """One context and its continuations; ``indices`` are their places in the caller's list."""

    context: tuple[int, ...]
    continuations: list[Tokens]
    indices: list[int]

    @property
    def length(self) -> int:
        """Tokens of the packed row: the last token of a continuation predicts nothing and is left out."""
        return len(self.context) + sum(len(tokens) - 1 for tokens in self.continuations)

    @property
    def reach(self) -> int:
        """Length of the longest separate row, the one that has to fit into the model's positions."""
        return len(self.context) + max(len(tokens) for tokens in self.continuations) - 1


def pack(pairs: Sequence[tuple[Tokens, Tokens]]) -> list[Row]:
    """Group (context, continuation) pairs by context; rows come longest context first.

    Longest first makes rows of a batch alike in length, estimates of the time left pessimistic, and a
    shortage of memory immediate.
    """
    rows: dict[tuple[int, ...], Row] = {}
    for index, (context, continuation) in enumerate(pairs):
        row = rows.setdefault(tuple(context), Row(tuple(context), [], []))
        row.continuations.append(continuation)
        row.indices.append(index)
    return sorted(rows.values(), key=lambda row: (-len(row.context), -row.length))


def batches(rows: list[Row], budget: int = TOKENS_PER_BATCH) -> Iterator[list[Row]]:
    """Consecutive rows whose padded tokens stay within ``budget``; a longer row is a batch of its own."""
    batch: list[Row] = []
    for row in rows:
        longest = max(row.length, *(other.length for other in batch)) if batch else row.length
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def log_likelihoods(
    model,
    pairs: Sequence[tuple[Tokens, Tokens]],
    answered: Callable[[int, Answer], None] | None = None,
) -> list[Answer]:
    """Log-likelihood in nats of every continuation after its context, and whether it is the greedy one.

    ``model`` is a Hugging Face causal LM; contexts and continuations are lists of token ids and are not
    empty. ``answered(index, answer)`` is called for every pair as soon as it is known.
    """
    answers: list[Answer] = [(0.0, False)] * len(pairs)
    for batch in batches(pack(pairs)):
        for row, row_answers in zip(batch, _forward(model, batch), strict=True):
            for index, answer in zip(row.indices, row_answers, strict=True):
                answers[index] = answer
                if answered is not None:
                    answered(index, answer)
    return answers


def _forward(model, batch: list[Row]) -> Iterator[list[Answer]]:
    """One forward pass over a batch of rows; yields the answers of each row."""
    import torch

    tokens, positions, segments = _layout(batch)
    first = min(len(row.context) for row in batch) - 1  # no row needs logits before its last context token
    with torch.inference_mode():
        logits = model(
            input_ids=tokens.to(model.device),
            position_ids=positions.to(model.device),
            attention_mask=_mask(segments, model.dtype).to(model.device),
            logits_to_keep=torch.arange(first, tokens.shape[1], device=model.device),
            use_cache=False,
        ).logits
        for row, row_logits in zip(batch, logits, strict=True):
            yield [_answer(row_logits, steps, row_tokens) for steps, row_tokens in _steps(row, first)]


def _layout(batch: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, position ids and segments of the packed rows, each [rows, longest] and padded right.

    Segment 0 is the context, 1, 2, … are the continuations, -1 is padding.
    """
    import torch

    shape = (len(batch), max(row.length for row in batch))
    tokens = torch.zeros(shape, dtype=torch.long)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1, dtype=torch.long)
    for place, row in enumerate(batch):
        start = len(row.context)
        tokens[place, :start] = torch.tensor(row.context)
        positions[place, :start] = torch.arange(start)
        segments[place, :start] = 0
        for segment, continuation in enumerate(row.continuations, start=1):
            end = start + len(continuation) - 1
            tokens[place, start:end] = torch.tensor(continuation[:-1], dtype=torch.long)
            positions[place, start:end] = torch.arange(end - start) + len(row.context)
            segments[place, start:end] = segment
            start = end
    return tokens, positions, segments


def _mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The additive attention mask [rows, 1, query, key] of the packed rows."""
    import torch

    length = segments.shape[1]
    query, key = segments.unsqueeze(2), segments.unsqueeze(1)
    # Padding attends to padding (and to nothing else of use): a query with no key would give NaN.
    allowed = ((key == 0) | (key == query)) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
    return mask.unsqueeze(1)


def _steps(row: Row, first: int) -> Iterator[tuple[list[int], Tokens]]:
    """For each continuation: the places, counted from ``first``, whose logits predict its tokens."""
    start = len(row.context)
    for continuation in row.continuations:
        end = start + len(continuation) - 1
        yield [len(row.context) - 1 - first, *range(start - first, end - first)], continuation
        start = end


def _answer(logits: torch.Tensor, steps: list[int], continuation: Tokens) -> Answer:
    import torch

    chosen = logits[steps].float()  # [tokens of the continuation, vocabulary]
    target = torch.tensor(continuation, device=logits.device)
    scores = chosen.gather(1, target.unsqueeze(1)).squeeze(1) - chosen.logsumexp(1)
    return float(scores.sum()), bool((chosen.argmax(1) == target).all())
