"""How far a student is from a reference on held-out text."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mpcbench.distill.data import Sequences, pad
from mpcbench.distill.objective import layer_error, outputs_of

ROWS = 16


@dataclass(frozen=True)
class Verdict:
    """Mean KL(reference || student) in nats a token, share of equal argmax, and ``tokens`` averaged over.

    ``layer_mse``: layer by layer mean squared error of the polynomial layers' outputs, averaged over
    layers, without first tokens; None without polynomial layers.
    """

    kl: float
    argmax_agreement: float
    layer_mse: float | None
    tokens: int


class Judge:
    """Keeps a reference's answers to held-out text, and holds students against them, in float32."""

    @torch.no_grad()
    def __init__(self, reference: nn.Module, sequences: Sequences):
        rows = sorted(sequences, key=len)
        batches = [pad(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]
        self.batches = [batch.to(reference.device) for batch in batches]
        self.head = reference.lm_head
        self.answers = []
        layers = list(range(reference.config.num_hidden_layers))
        for batch in self.batches:
            with outputs_of(reference, layers) as seen:
                hidden = reference.model(input_ids=batch.ids, use_cache=False).last_hidden_state
            kept = {layer: output[batch.real].float().cpu() for layer, output in seen.items()}
            self.answers.append((hidden[batch.real].float(), kept))

    @torch.no_grad()
    def verdict(self, model: nn.Module, layers: list[int]) -> Verdict:
        """model: any Llama over the same vocabulary; layers: those whose outputs are compared."""
        kl = errors = 0.0
        equal = tokens = later_tokens = 0
        for batch, (answer, kept) in zip(self.batches, self.answers, strict=True):
            with outputs_of(model, layers) as seen:
                hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state[batch.real]
            reference = self.head(answer).log_softmax(-1)
            own = model.lm_head(hidden.float()).log_softmax(-1)
            kl += nn.functional.kl_div(own, reference, reduction="sum", log_target=True).item()
            equal += int((own.argmax(-1) == reference.argmax(-1)).sum())
            tokens += len(own)
            later = (batch.real.cumsum(1) > 1)[batch.real]
            if layers:
                outputs = {layer: seen[layer][batch.real] for layer in layers}
                goals = {layer: kept[layer].to(own.device) for layer in layers}
                errors += layer_error(outputs, goals, later, relative=False).item() * int(later.sum())
                later_tokens += int(later.sum())
        mse = errors / later_tokens if later_tokens else None
        return Verdict(kl / tokens, equal / tokens, mse, tokens)
