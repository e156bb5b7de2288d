"""How close one model's predictions are to another's: over a text, and at the one position MPC opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mpcbench.compat  # noqa: F401  -- before transformers
from mpcbench.accuracy.questions import QuestionSet, load_questions
from mpcbench.errors import UserError
from mpcbench.progress import Progress, silent
from mpcbench.records.schema import Agreement, Fidelity

if TYPE_CHECKING:
    import torch

TOKENS_PER_BATCH = 512
"""Two models' logits over a vocabulary of 49,152 take 0.2 GB at this many positions."""


def task_texts(task_data: Path | None = None, limit: int | None = None) -> tuple[list[str], str]:
    """The evaluation questions with their right answers as texts, and a description in words."""
    return question_texts(load_questions(task_data).head(limit))


def question_texts(questions: QuestionSet) -> tuple[list[str], str]:
    """:func:`task_texts` of questions that are in hand."""
    texts = [f"Question: {question.text}\nAnswer: {question.answer}" for question in questions.questions]
    return texts, f"{len(texts)} questions with their right answers; {questions.task}: {questions.source}"


def fidelity(
    original,
    model,
    tokenizer,
    texts: Sequence[str],
    description: str,
    progress: Progress = silent,
) -> Fidelity:
    """Mean KL(original || model) in nats a token, and how often both predict the same token.

    Every position of every text that has a next token counts once; ``tokens`` is their number. Both
    models are Hugging Face causal LMs over one vocabulary, and are evaluated in float32. ``progress``
    hears of the texts done. Raises UserError if the texts hold nothing to predict or the vocabularies
    differ.
    """
    import torch

    if original.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"The models' vocabularies differ ({original.config.vocab_size} and {model.config.vocab_size} "
            "tokens), so their predictions cannot be compared; choose a checkpoint made from this original."
        )
    longest = min(original.config.max_position_embeddings, model.config.max_position_embeddings)
    rows = [ids[:longest] for ids in tokenizer(list(texts)).input_ids if len(ids) > 1] if texts else []
    if not rows:
        raise UserError("The texts to compare the models on hold no two tokens in a row; give longer texts.")
    total = equal = done = 0
    divergence = 0.0
    with torch.inference_mode():
        for batch in _batches(sorted(rows, key=len, reverse=True)):
            reference = _log_probabilities(original, batch)
            candidate = reference if model is original else _log_probabilities(model, batch)
            divergence += float(_kl(reference, candidate).sum(dtype=torch.float64))
            equal += int((reference.argmax(-1) == candidate.argmax(-1)).sum())
            total += len(reference)
            done += len(batch)
            progress("comparing texts", done, len(rows))
    # Rounding can leave a sum of zeros a hair below zero; a divergence is not negative.
    return Fidelity(
        text=description, tokens=total, kl=max(divergence / total, 0.0), argmax_agreement=equal / total
    )


def agreement(
    plain_logits: torch.Tensor, secure_logits: torch.Tensor, original_logits: torch.Tensor, tokenizer
) -> Agreement:
    """The opened logits against the same checkpoint's in plaintext; all of shape [vocabulary].

    ``original_logits`` are those of the unmodified model in plaintext, and only name its next token.
    Raises UserError if the secure logits are not finite: such a run has failed.
    """
    import torch

    if not bool(torch.isfinite(secure_logits).all()):
        raise UserError(
            "The opened logits are not finite numbers: the protocol's fixed point overflowed; choose another "
            "number of fraction bits, or a protocol whose ranges fit this model."
        )
    plain, secure = plain_logits.detach().double().cpu(), secure_logits.detach().double().cpu()
    error = (plain - secure).abs()
    kl = _kl(plain.log_softmax(-1), secure.log_softmax(-1))
    return Agreement(
        next_token=tokenizer.decode([int(secure.argmax())]),
        plaintext_next_token=tokenizer.decode([int(plain.argmax())]),
        original_next_token=tokenizer.decode([int(original_logits.argmax())]),
        argmax_equal=bool(plain.argmax() == secure.argmax()),
        max_logit_error=float(error.max()),
        mean_logit_error=float(error.mean()),
        cosine=float(torch.nn.functional.cosine_similarity(plain, secure, dim=0)),
        kl=max(float(kl), 0.0),
        top5_kept=len(set(plain.topk(5).indices.tolist()) & set(secure.topk(5).indices.tolist())),
    )


def _batches(rows: list[list[int]], budget: int = TOKENS_PER_BATCH) -> Iterator[list[list[int]]]:
    """Rows, longest first, cut into batches of at most ``budget`` padded tokens."""
    while rows:
        count = max(1, budget // len(rows[0]))
        yield rows[:count]
        rows = rows[count:]


def _log_probabilities(model, batch: list[list[int]]) -> torch.Tensor:
    """Log-probabilities at the positions of ``batch`` that have a next token: [positions, vocabulary]."""
    import torch

    lengths = torch.tensor([len(row) for row in batch])
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in batch], batch_first=True)
    # Padding on the right needs no mask: causal attention never looks there.
    logits = model(input_ids=tokens.to(model.device), use_cache=False).logits
    counted = torch.arange(tokens.shape[1]) < (lengths - 1).unsqueeze(1)
    return logits[counted.to(logits.device)].float().log_softmax(-1)


def _kl(reference: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
    """KL(reference || candidate) in nats over the last dimension, from log-probabilities."""
    return (reference.exp() * (reference - candidate)).sum(-1)
