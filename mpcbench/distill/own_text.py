"""Text that a model writes itself, to be trained on: data-free distillation, or more of what there is.

Sampled without cuts of the distribution: from random first tokens at temperature 1 as in LLM-QAT (Liu et al.,
Findings of ACL 2024, section 3.1), or behind examples in the way of Self-Instruct (Wang et al., ACL 2023,
section 2.2), somewhat colder, so that a small model keeps to what the examples are about.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import LlamaForCausalLM

from mpcbench.checkpoints import Checkpoint
from mpcbench.distill.precision import with_precision
from mpcbench.distill.texts import Texts
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir, whole_file
from mpcbench.progress import Progress, silent

SELF_PASSAGES = 768
SELF_LENGTH = 64
SELF_BATCH = 32
ALIKE_BATCH = 64
BETWEEN = "\n\n"
"""What stands between examples, and ends a passage that is written behind them."""
ALIKE_TEMPERATURE = 0.7
LEAST_WORDS = 4
"""Shorter passages behind examples are leftovers, such as a lone answer."""

MOST_DRAWN = 8
"""Batches drawn behind examples, in units of those that would do if every passage were kept."""


@dataclass(frozen=True)
class Alike:
    """Passages to write more of: token sequences, and how many of them each new one is written behind."""

    sequences: Sequence[Sequence[int]]
    examples: int

    @property
    def digest(self) -> str:
        """Of both, in a few digits."""
        content = json.dumps([[list(tokens) for tokens in self.sequences], self.examples])
        return hashlib.sha256(content.encode()).hexdigest()[:8]


def self_texts(
    original: Checkpoint, progress: Progress = silent, count: int | None = None, alike: Alike | None = None,
    device: torch.device | str = "cpu",
) -> Texts:  # fmt: skip
    """``count`` passages (``SELF_PASSAGES`` unless given) of at most ``SELF_LENGTH`` tokens.

    Kept in the cache, under the name of the model's weights. Behind examples no passage comes twice, and
    none is one of theirs; a model that repeats itself gives fewer. ``device``: where a copy of the model
    writes; another kind of device draws other passages. Raises UserError as :func:`check_room`.
    """
    if alike is not None:
        check_room(alike, original)
    count = count or SELF_PASSAGES
    words = f"-{alike.digest}" if alike else ""
    path = cache_dir() / "sampled" / f"{original.sha256[:24]}-{count}x{SELF_LENGTH}{words}.json"
    if not path.is_file():
        generator_state = torch.random.get_rng_state()
        torch.manual_seed(0)
        try:
            write = _any if alike is None else partial(_alike, alike)
            passages = write(original, count, progress, device)
        finally:
            torch.random.set_rng_state(generator_state)
        with whole_file(path) as part:
            part.write_text(json.dumps(passages), encoding="utf-8")
    passages = json.loads(path.read_text(encoding="utf-8"))
    return Texts.of(passages, f"{len(passages)} passages sampled from the model")


def check_room(alike: Alike, original: Checkpoint) -> None:
    """Raise UserError when so many examples and a passage may be longer than the model's positions."""
    between = len(original.tokenizer(BETWEEN, add_special_tokens=False)["input_ids"])
    longest = sorted(map(len, alike.sequences))[-alike.examples :]
    positions = original.model.config.max_position_embeddings
    if sum(longest) + len(longest) * between + SELF_LENGTH > positions:
        raise UserError(
            f"{len(longest)} examples of up to {longest[-1]} tokens and a passage behind them do not fit "
            f"into the model's {positions} positions: set own_text.examples to fewer."
        )


def _any(original: Checkpoint, count: int, progress: Progress, device: torch.device | str) -> list[str]:
    """Passages from random first tokens."""
    passages: list[str] = []
    model, tokenizer = with_precision(original.model, "float32", device), original.tokenizer
    while len(passages) < count:
        progress("sampling text from the model", len(passages), count)
        first = torch.randint(model.config.vocab_size, (SELF_BATCH, 1)).tolist()
        texts = tokenizer.batch_decode(_sample(model, first, 1.0, SELF_LENGTH - 1), skip_special_tokens=True)
        passages += [text.strip() for text in texts if text.strip()]
    return passages


def _alike(
    alike: Alike, original: Checkpoint, count: int, progress: Progress, device: torch.device | str
) -> list[str]:
    """Passages behind examples, which are drawn anew for each."""
    tokenizer = original.tokenizer
    # bfloat16 takes half the time; what is drawn is text in any precision
    model = copy.deepcopy(original.model).bfloat16().to(device)
    between = tokenizer(BETWEEN, add_special_tokens=False)["input_ids"]
    given = set(tokenizer.batch_decode(alike.sequences, skip_special_tokens=True))
    examples = min(alike.examples, len(alike.sequences))
    passages: dict[str, None] = {}
    chooser = random.Random(0)
    for _ in range(MOST_DRAWN * -(-count // ALIKE_BATCH)):
        if len(passages) >= count:
            break
        progress("sampling text from the model", len(passages), count)
        drawn = [chooser.sample(alike.sequences, examples) for _ in range(ALIKE_BATCH)]
        prompts = [[token for tokens in chosen for token in [*tokens, *between]] for chosen in drawn]
        written = _sample(model, prompts, ALIKE_TEMPERATURE, SELF_LENGTH)[:, max(map(len, prompts)) :]
        decoded = tokenizer.batch_decode(written, skip_special_tokens=True)
        texts = [text.split(BETWEEN)[0].strip() for text in decoded]
        passages |= {text: None for text in texts if len(text.split()) >= LEAST_WORDS and text not in given}
    return list(passages)[:count]


@torch.no_grad()
def _sample(model: LlamaForCausalLM, prompts: list[list[int]], temperature: float, room: int) -> torch.Tensor:
    """Each prompt and ``room`` tokens behind it, [prompts, longest + room]; padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    real = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        real[row, longest - len(prompt) :] = 1
    return model.generate(
        input_ids=ids.to(model.device), attention_mask=real.to(model.device), do_sample=True, top_k=0,
        top_p=1.0, temperature=temperature, pad_token_id=model.config.eos_token_id or 0,
        max_length=longest + room,
    )  # fmt: skip
