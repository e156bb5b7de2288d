"""Greedy generation on a secure interpreter: the prompt, then a token at a time, on secret-shared keys
and values that stay with the parties."""

from __future__ import annotations

import torch

from mpcbench.graph.decoding import choosing, continued, with_cache
from mpcbench.secure.interpreter import SecureInterpreter

LOGITS, TOKEN = "logits of the last position", "token"
"""What a step opens to the client, by the name that the guard knows."""


class Decoder:
    """Steps, each after :meth:`prepare`. ``past`` is how many tokens' keys and values are cached.

    ``private``: the largest logit is found under MPC, and its index alone is opened to the client.
    """

    def __init__(self, interpreter: SecureInterpreter, private: bool):
        self.interpreter, self.private = interpreter, private
        graph = with_cache(interpreter.source)
        self._graph = choosing(graph) if private else graph
        self.past = 0
        self.logits: torch.Tensor | None = None

    def restart(self) -> None:
        """Forget all keys and values: the next step begins a text."""
        self.interpreter.cache.clear()
        self.past = 0

    def prepare(self, count: int) -> None:
        """Make ready for the next step, of ``count`` tokens, which is no part of its time."""
        self.interpreter.use(continued(self._graph, self.past), count)

    def step(self, tokens: torch.Tensor | None, count: int) -> int | None:
        """Take in ``count`` tokens, which the client gives as (1, count), and choose the next one.

        Returns it to the client, to the other party None. Unless generation is private, the client finds the
        step's logits (V,) in ``logits``.
        """
        opened = self.interpreter.compute(tokens, count, TOKEN if self.private else LOGITS)
        self.past += count
        if opened is None:
            return None
        if self.private:
            return int(opened)
        self.logits = opened
        return int(opened.argmax())
