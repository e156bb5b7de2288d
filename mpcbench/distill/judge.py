"""How far a student is from a reference on held-out text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mpcbench.distill.data import Batch, Sequences, padded
from mpcbench.distill.objective import Answer, ask, layer_error

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

    def __init__(self, reference: nn.Module, sequences: Sequences):
        self.batches = [batch.to(reference.device) for batch in padded(sequences, ROWS)]
        self.kept = []
        for batch in self.batches:
            answer = ask(reference, batch, list(range(reference.config.num_hidden_layers)))
            layers = {layer: output.cpu() for layer, output in answer.layers.items()}
            self.kept.append(Answer(answer.logits.log_softmax(-1).cpu(), layers))

    def judge(self, model: nn.Module, layers: list[int]) -> Verdict:
        """model: a Llama over the same vocabulary; layers: those whose outputs are compared."""
        return self.verdict(lambda batch, wanted: ask(model, batch.to(model.device), wanted), layers)

    @torch.no_grad()
    def verdict(self, asked: Callable[[Batch, list[int]], Answer], layers: list[int]) -> Verdict:
        """:meth:`judge` of whatever answers ``asked(batch, layers)``."""
        kl = errors = 0.0
        equal = tokens = later_tokens = 0
        for batch, kept in zip(self.batches, self.kept, strict=True):
            answer = asked(batch, layers)
            own = answer.logits.log_softmax(-1)
            reference = kept.logits.to(own.device)
            kl += nn.functional.kl_div(own, reference, reduction="sum", log_target=True).item()
            equal += int((own.argmax(-1) == reference.argmax(-1)).sum())
            tokens += len(own)
            if layers:
                later = (batch.real.cumsum(1) > 1)[batch.real].to(own.device)
                goals = {layer: kept.layers[layer].to(own.device) for layer in layers}
                errors += layer_error(answer.layers, goals, later, relative=False).item() * int(later.sum())
                later_tokens += int(later.sum())
        return Verdict(kl / tokens, equal / tokens, errors / later_tokens if later_tokens else None, tokens)
