"""The generated text of a run for its record: what every token took, beside what plaintext gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mpcbench.checkpoints import Checkpoint
from mpcbench.errors import UserError
from mpcbench.parties.handshake import too_long
from mpcbench.parties.party import Outcome
from mpcbench.parties.result import by_operator, later_steps, merge_latency, merge_lines, merge_openings
from mpcbench.records.schema import GeneratedToken, Generation

if TYPE_CHECKING:
    from mpcbench.pipeline.measure import Settings
    from mpcbench.secure.operators import Operator

CACHES = {
    "frontier.append": "opened once under masks that the dealer keeps; a step opens its own keys and values",
    "local.append": "shares alone are kept; a step opens all of them again under fresh masks",
}
"""How cached keys and values are used, by the implementation of ``append``."""


def check_length(tokens: int, new_tokens: int, max_tokens: int) -> None:
    """Raise UserError when prompt and new tokens exceed the model's positions; the last one needs none."""
    if tokens + new_tokens > max_tokens + 1:
        sentence = too_long(tokens, new_tokens, max_tokens)
        raise UserError(f"{sentence[0].upper()}{sentence[1:]}")


def ends(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The tokens that end a text, as the checkpoint's generation settings and tokenizer name them."""
    settings = getattr(checkpoint.model, "generation_config", None)
    named = [getattr(settings, "eos_token_id", None), checkpoint.tokenizer.eos_token_id]
    found: set[int] = set()
    for item in named:
        found.update(item if isinstance(item, list) else [] if item is None else [item])
    return tuple(sorted(found))


@torch.no_grad()
def plaintext_tokens(checkpoint: Checkpoint, tokens: torch.Tensor, new_tokens: int) -> list[int]:
    """What Transformers generates greedily behind ``tokens`` (1, S), in float32."""
    stop = list(ends(checkpoint))
    made = checkpoint.model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False,
        num_beams=1, eos_token_id=stop or None, pad_token_id=stop[0] if stop else 0,
    )  # fmt: skip
    return made[0, tokens.shape[1] :].tolist()


def generation(outcome: Outcome, checkpoint: Checkpoint, settings: Settings) -> Generation:
    """The record's part about the text."""
    plain = plaintext_tokens(checkpoint, settings.context, settings.new_tokens)
    decode = checkpoint.tokenizer.decode
    return Generation(
        max_new_tokens=settings.new_tokens,
        private_logits=settings.private_logits,
        stopped="end of text" if outcome.tokens[-1] in ends(checkpoint) else "length",
        cache=_cache(settings.protocol.operators["append"]),
        text=decode(outcome.tokens),
        plaintext_text=decode(plain),
        equals_plaintext=list(outcome.tokens) == plain,
        tokens=_tokens(outcome, checkpoint, settings.tokens.shape[1], settings.context.shape[1]),
    )


def _cache(append: Operator) -> str:
    return CACHES[append.name]


def _tokens(outcome: Outcome, checkpoint: Checkpoint, prompt: int, context: int) -> list[GeneratedToken]:
    first, second = (by_operator(result.lines) for result in outcome.results)
    online, offline = (merge_lines(phase, first, second) for phase in ("online", "offline"))
    costs = [(online, offline, merge_latency(outcome.results), merge_openings(outcome.results))]
    costs += later_steps(outcome.results)
    found = []
    for index, (token, (online, offline, times, openings)) in enumerate(
        zip(outcome.tokens, costs, strict=True)
    ):
        found.append(
            GeneratedToken(
                token_id=token,
                text=checkpoint.tokenizer.decode([token]),
                cached=context + index - 1 if index else context - prompt,
                online=online,
                offline=offline,
                openings=openings,
                latency=times,
            )
        )
    return found
