"""The provider of a party that has a dealer: seeds expanded here, corrections fetched from the dealer.

The first inference asks as it goes and writes down what it asked for. Later ones of the same name are the
same, so their corrections are fetched, their seeds expanded, and the products of masks with opened weights
added, before they start: the offline phase then really is over when the online phase begins. What an
inference needs beyond its plan, it asks for in line, and both parties go on together: else one would already
be sending while the other still waits for its dealer, and delays of the link would hide in the offline phase.
The steps of a generation have names of their own, because what they need grows with the cache.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from mpcbench.errors import PeerError
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.provider import Provider
from mpcbench.secure.randomness.dealing import as_request, shares
from mpcbench.secure.randomness.recipe import Recipe
from mpcbench.secure.randomness.server import ask, enrol
from mpcbench.secure.transport import Link


@dataclass
class Dealt:
    """A request by its number; ``received``: party 1's corrections for it; ``shares``: once expanded."""

    number: int
    recipe: Recipe
    received: torch.Tensor | None
    shares: list[torch.Tensor] | None = None


class FromDealer(Provider):
    """Shares of what a dealer has made, whichever way its corrections come."""

    NAME = "dealer"
    SECURE = True

    def __init__(self, communicator: LinkCommunicator):
        super().__init__(communicator)
        self._seed = b""
        self._last = -1
        self._ahead: deque[Dealt] = deque()
        self._dealer_seconds = 0.0

    def dealer_seconds(self) -> float:
        seconds, self._dealer_seconds = self._dealer_seconds, 0.0
        return seconds

    @property
    def last(self) -> int:
        return self._last

    def _expanded(self, dealt: Dealt) -> Dealt:
        """With this party's shares, from its seed and what it has received."""
        if dealt.shares is None:
            rank = self.communicator.get_rank()
            made = shares(rank, self._seed, dealt.number, dealt.recipe, dealt.received)
            dealt.shares = self._finished(dealt.recipe, made)
        return dealt

    def _taken(self, dealt: Dealt) -> list[torch.Tensor]:
        """This party's shares, for use; enters the corrections, which party 1 alone has."""
        self._last = dealt.number
        if dealt.received is not None:
            self.communicator.ledger.sent(dealt.received.numel() * 8, 0, 0.0)
        return self._expanded(dealt).shares


class DealerProvider(FromDealer):
    """Asks a dealer, see :mod:`mpcbench.secure.randomness.server`."""

    def __init__(self, communicator: LinkCommunicator, link: Link):
        super().__init__(communicator)
        self.link = link
        self.session, self._seed = enrol(link, communicator.get_rank())
        self._plans: dict[str, list[Recipe]] = {}
        self._asked: list[Recipe] = []

    def prepare(self, what: str = "inference") -> None:
        """Get what the next inference will ask for, if one of the same name has asked before.

        To be called before every inference, also before the first, after set-up.
        """
        plan = self._plans.get(what, [])
        self._asked = self._plans[what] = []
        numbered = [(self._number(), recipe) for recipe in plan]
        self._ahead = deque(self._expanded(dealt) for dealt in self._fetch(numbered))

    def close(self) -> None:
        """Tell the dealer that nothing more is needed."""
        if self.communicator.get_rank() == 1:
            self.link.tell({"done": True})

    def _shares(self, recipe: Recipe, again: bool) -> list[torch.Tensor]:
        if again or not self._ahead:
            dealt = self._expanded(self._fetch([(self._number(), recipe)])[0])
            self._go_on_together(dealt.number)
        else:
            dealt = self._ahead.popleft()
            if dealt.recipe != recipe:
                raise RuntimeError(
                    f"an inference asks for {recipe!r} where an earlier one asked for {dealt.recipe!r}"
                )
        if not again:
            self._asked.append(recipe)
        return self._taken(dealt)

    def _go_on_together(self, number: int) -> None:
        link, mine = self.communicator.link, {"dealt": number}
        if link.meet(mine) != mine:
            raise PeerError(f"{link.peer} asked its dealer for something else: start both parties anew.")

    def _number(self) -> int:
        number, self.requests = self.requests, self.requests + 1
        return number

    def _fetch(self, numbered: list[tuple[int, Recipe]]) -> list[Dealt]:
        """The corrections of several requests; party 0 has all it needs in its seed."""
        if self.communicator.get_rank() == 0:
            return [Dealt(number, recipe, None) for number, recipe in numbered]
        if not numbered:
            return []
        requests = [as_request(number, recipe) for number, recipe in numbered]
        received, _, seconds = ask(self.link, requests, [recipe.value_words() for _, recipe in numbered])
        self._dealer_seconds += seconds
        return [Dealt(n, recipe, words) for (n, recipe), words in zip(numbered, received, strict=True)]
