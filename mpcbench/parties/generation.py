"""A generation between two parties: the prompt, then token after token until one ends the text.

The client alone learns the tokens. The model owner learns how many there are, because it takes part in every
step and has to be told whether another one follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mpcbench.errors import PeerError
from mpcbench.parties.result import Inference, Line, PartyResult, StepResult, average, by_operator
from mpcbench.secure.decoding import Decoder

if TYPE_CHECKING:
    from mpcbench.parties.party import Session


@dataclass
class _Step:
    """What one step was at this party; ``token`` is what the client has learned."""

    token: int | None
    inference: Inference
    lines: list[Line]
    masked: int
    unmasked: list[str]


class Generation:
    """All texts of a session: warm-ups, then repetitions.

    ``tokens`` and ``logits`` are what the client got in the last text: ids, and the logits (V,) behind the
    prompt, None when they are private.
    """

    def __init__(self, session: Session):
        self.session, self.client = session, session.client
        self.decoder = Decoder(session.interpreter, self.client.private_logits)
        self.tokens: list[int] = []
        self.logits: torch.Tensor | None = None
        self._done = 0

    def run(self) -> PartyResult:
        """Generate them all, and report."""
        self.session.interpreter.on_node = lambda node: None
        warmups = [self._text("warm-up") for _ in range(self.client.warmups)]
        texts = [self._text("generation") for _ in range(self.client.repetitions)]
        first, *later = _by_position(texts)
        self.session.ledgers = [step.lines for step in first]
        seconds = [steps[0].inference.seconds for steps in warmups]
        report = self.session.report(seconds, [step.inference for step in first])
        return report.model_copy(
            update={
                "masked_openings": first[-1].masked,
                "unmasked_openings": first[-1].unmasked,
                "later": [_step_result(steps) for steps in later],
            }
        )

    def _text(self, what: str) -> list[_Step]:
        self.decoder.restart()
        steps: list[_Step] = []
        tokens, count = self.session.job.tokens, self.client.tokens
        while True:
            steps.append(self._step(tokens, count))
            token, self._done = steps[-1].token, self._done + 1
            texts = self.client.warmups + self.client.repetitions
            self.session.progress(what, self._done, self.client.new_tokens * texts)
            if len(steps) == 1:
                self.logits = self.decoder.logits
            if len(steps) == self.client.new_tokens or not self._another(token):
                break
            tokens, count = (None if token is None else torch.tensor([[token]])), 1
        self.tokens = [] if steps[0].token is None else [step.token for step in steps]
        return steps

    def _step(self, tokens: torch.Tensor | None, count: int) -> _Step:
        self.decoder.prepare(count)
        name = f"step of {count} after {self.decoder.past}"
        token, inference, lines = self.session.measured(name, lambda: self.decoder.step(tokens, count))
        guard = self.session.communicator.guard
        return _Step(token, inference, lines, guard.masked, guard.unmasked)

    def _another(self, token: int | None) -> bool:
        """Whether a step follows, as the client says: none does behind a token that ends the text."""
        wanted = token not in self.session.job.stop
        answer = self.session.link.swap_control({"more": wanted}).get("more")
        if not isinstance(answer, bool):
            raise PeerError(f"{self.session.link.peer} does not say whether to go on: run the same version.")
        return wanted if self.session.job.rank == 1 else answer


def _by_position(texts: list[list[_Step]]) -> list[list[_Step]]:
    """For every step of the last text, that step of all texts that went so far."""
    return [[text[i] for text in texts if i < len(text)] for i in range(len(texts[-1]))]


def _step_result(steps: list[_Step]) -> StepResult:
    return StepResult(
        lines=average([by_operator(step.lines) for step in steps]),
        inferences=[step.inference for step in steps],
        masked_openings=steps[-1].masked,
        unmasked_openings=steps[-1].unmasked,
    )
