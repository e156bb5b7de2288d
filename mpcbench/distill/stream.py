"""Texts on their way through a Llama, one decoder layer at a time.

Stopping between attention and MLP of each layer lets one single pass fit a layer, replace it, and go on
with what the replaced layer produces, which is what the next one will see.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from transformers import LlamaForCausalLM

BATCH_TOKENS = 1024


class Stream:
    """Hidden states of all tokens of some texts, just before or in the middle of a layer.

    Texts of like length are batched with padding on the right, which causal attention never looks at
    from the left. ``hidden``: one [batch, length, hidden_size] tensor a batch; ``real`` marks its tokens.
    ``weights``: what the tokens of each text count, 1 unless given.
    """

    def __init__(
        self, model: LlamaForCausalLM, sequences: Sequence[Sequence[int]],
        weights: Sequence[float] | None = None,
    ):  # fmt: skip
        self.model = model
        self.hidden: list[torch.Tensor] = []
        self.real: list[torch.Tensor] = []
        self.counts: list[torch.Tensor] = []
        for places in _batches(sequences):
            batch = [sequences[place] for place in places]
            counts = torch.tensor([1.0 if weights is None else weights[place] for place in places])
            self.counts.append(counts.to(model.device))
            longest = max(len(tokens) for tokens in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            real = torch.zeros(len(batch), longest, dtype=torch.bool)
            for row, tokens in enumerate(batch):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                real[row, : len(tokens)] = True
            self.hidden.append(model.model.embed_tokens(ids.to(model.device)))
            self.real.append(real.to(model.device))

    @property
    def first(self) -> torch.Tensor:
        """[tokens] bool: which real tokens stand at position 0."""
        return torch.cat([(real.cumsum(1) == 1)[real] for real in self.real])

    @property
    def weight(self) -> torch.Tensor:
        """[tokens]: what each real token counts."""
        pairs = zip(self.counts, self.real, strict=True)
        return torch.cat([counts[:, None].expand_as(real)[real] for counts, real in pairs])

    def branch(self) -> Stream:
        """A second stream that starts from where this one is; they part without touching each other."""
        twin = copy.copy(self)
        twin.hidden = list(self.hidden)
        return twin

    def attend(self, layer: int) -> None:
        """Add the layer's attention to the residual."""
        block = self.model.model.layers[layer]
        for index, hidden in enumerate(self.hidden):
            length = hidden.shape[1]
            positions = torch.arange(length, device=hidden.device)[None]
            mask = torch.full((length, length), float("-inf"), device=hidden.device).triu(1)[None, None]
            attended = block.self_attn(
                hidden_states=block.input_layernorm(hidden),
                position_embeddings=self.model.model.rotary_emb(hidden, positions),
                attention_mask=mask,
            )[0]
            self.hidden[index] = hidden + attended

    def transform(self, layer: int, mlp: nn.Module) -> None:
        """Add ``mlp`` of the layer's normalised residual to the residual."""
        norm = self.model.model.layers[layer].post_attention_layernorm
        self.hidden = [hidden + mlp(norm(hidden)) for hidden in self.hidden]

    def run(self, layers: range) -> None:
        """Pass the given whole layers of the model."""
        for layer in layers:
            self.attend(layer)
            self.transform(layer, self.model.model.layers[layer].mlp)

    def mlp_inputs(self, layer: int) -> list[torch.Tensor]:
        """Per batch: the normalised residual of the real tokens, [tokens, hidden_size]."""
        norm = self.model.model.layers[layer].post_attention_layernorm
        return [norm(hidden[real]) for hidden, real in zip(self.hidden, self.real, strict=True)]

    def log_probabilities(self) -> Iterator[torch.Tensor]:
        """Per batch: log-probabilities of the next token at the real tokens, [tokens, vocabulary]."""
        for hidden, real in zip(self.hidden, self.real, strict=True):
            yield self.model.lm_head(self.model.model.norm(hidden[real])).log_softmax(-1)


def divergence(original: Sequence[torch.Tensor], other: Stream) -> tuple[float, float, int]:
    """Mean KL(original || other) in nats a token, share of equal argmax, and the number of tokens.

    original: kept :meth:`Stream.log_probabilities` of the same texts.
    """
    total, equal, count = 0.0, 0, 0
    for kept, now in zip(original, other.log_probabilities(), strict=True):
        total += nn.functional.kl_div(now, kept, reduction="sum", log_target=True).item()
        equal += int((kept.argmax(-1) == now.argmax(-1)).sum())
        count += len(kept)
    return total / count, equal / count, count


def _batches(sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of the sequences in order of length, in groups of at most ``BATCH_TOKENS`` padded tokens."""
    batch: list[int] = []
    for place in sorted(range(len(sequences)), key=lambda place: len(sequences[place])):
        if batch and len(sequences[place]) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
