"""The provider of a party whose correlated randomness lies in a folder that a dealer filled before."""

from __future__ import annotations

from collections import deque

import torch

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.dealt import Dealt, FromDealer
from mpcbench.secure.randomness.material import SETUP, Material, inference_file
from mpcbench.secure.randomness.recipe import Recipe


class StoredProvider(FromDealer):
    """Shares from :class:`~mpcbench.secure.randomness.material.Material`, one of its files an inference.

    Both parties agree on the first inference that neither has used. ``wanted`` is how many the run needs.
    Raises UserError when too few are left, and PeerError when the peer's folder is not this one's fellow.
    """

    def __init__(self, communicator: LinkCommunicator, material: Material, wanted: int):
        super().__init__(communicator)
        self.material = material
        self._next = self._agree(wanted)
        self._seed, corrections = material.open_setup()
        self._ahead = deque(self._cut(material.setup, corrections))
        self._spare: dict[Recipe, deque[Dealt]] = {}

    def prepare(self, what: str = "inference") -> None:
        """Mark the next inference's material as used, read it, and expand the seeds that go with it."""
        index, self._next = self._next, self._next + 1
        material = self.material
        self._seed, corrections = material.use(index)
        self._dealer_seconds += material.seconds(index)
        dealt = self._cut([*material.plan, *material.spare], corrections)
        self._ahead = deque(self._expanded(item) for item in dealt[: len(material.plan)])
        self._spare = {}
        for item in dealt[len(material.plan) :]:
            self._spare.setdefault(item.recipe, deque()).append(item)

    def stored_bytes(self) -> tuple[int, int]:
        return self.material.bytes(SETUP), self.material.bytes(inference_file(0))

    def _agree(self, wanted: int) -> int:
        about, link = self.material.about, self.communicator.link
        mine = {"material": about.material, "next": self.material.first_unused()}
        theirs = link.swap_control(mine)
        if theirs.get("material") != about.material:
            raise PeerError(
                "the parties' material is not of one making: name party0 and party1 of one preprocess."
            )
        if type(theirs.get("next")) is not int:
            raise PeerError(f"{link.peer} does not say which material it has used: look at its own output.")
        first = max(mine["next"], theirs["next"])
        left = max(0, about.inferences - first)
        if left < wanted:
            raise UserError(
                f"The material in {self.material.folder} is left for {left} inferences and this run has "
                f"{wanted}, warm-ups included; nothing is used twice: run mpcbench preprocess for more."
            )
        return first

    def _cut(self, requests: list[tuple[int, Recipe]], corrections: torch.Tensor) -> list[Dealt]:
        """Requests with their corrections, which party 0 does not need."""
        if self.communicator.get_rank() == 0:
            return [Dealt(number, recipe, None) for number, recipe in requests]
        parts = corrections.split([recipe.value_words() for _, recipe in requests])
        return [Dealt(number, recipe, part) for (number, recipe), part in zip(requests, parts, strict=True)]

    def _spare_for(self, recipe: Recipe) -> Dealt:
        if not self._spare.get(recipe):
            raise UserError(
                f"{self.communicator.ledger.here} opened again more often than the material has spares for, "
                "which is one in a billion or a value out of its calibrated range: run it again."
            )
        return self._spare[recipe].popleft()

    def _shares(self, recipe: Recipe, again: bool) -> list[torch.Tensor]:
        dealt = self._spare_for(recipe) if again else self._ahead.popleft()
        if dealt.recipe != recipe:
            raise RuntimeError(f"an inference asks for {recipe!r} where {dealt.recipe!r} was planned")
        return self._taken(dealt)
