"""Where a party gets its shares of correlated randomness, behind CrypTen's provider interface.

CrypTen's protocols and ours ask the same provider: CrypTen's through the methods that
``crypten/mpc/provider/provider.py`` names, ours through :meth:`Provider.request`. Every request is entered
in the ledger's offline phase, and its masks are reported to the guard.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch

from mpcbench.compat import import_crypten
from mpcbench.secure.communicator import BYTES_PER_ELEMENT, LinkCommunicator
from mpcbench.secure.randomness.dealing import correction
from mpcbench.secure.randomness.dealing import shares as expand
from mpcbench.secure.randomness.linear import Linear
from mpcbench.secure.randomness.prg import fresh_seed
from mpcbench.secure.randomness.recipe import Kept, Recipe
from mpcbench.secure.randomness.stock import And, Bit, Product, Square

import_crypten()

from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor  # noqa: E402
from crypten.mpc.provider.provider import TupleProvider  # noqa: E402

Shape = torch.Size | Sequence[int]


class Provider(TupleProvider):
    """Common to all providers: requests are numbered, counted and reported to the guard."""

    NAME = ""
    SECURE = False
    CORRECTED = 1
    """The party whose share of the values does not follow from its seed."""

    def __init__(self, communicator: LinkCommunicator):
        super().__init__()
        self.communicator = communicator
        self.requests = 0
        self._differences: dict[int, torch.Tensor] = {}

    def request(self, recipe: Recipe, again: bool = False) -> list[torch.Tensor]:
        """This party's shares of a fresh tuple, masks first. Those of a linear layer's products A B come with
        A E added, see :meth:`weight_opened`.

        ``again`` marks a request that no plan foresees, because the opening before has to be repeated.
        """
        shares = self._entered(recipe, again)
        self.communicator.guard.issue(shares[: len(recipe.masks())], recipe.mask_bits)
        return shares

    def _entered(self, recipe: Recipe, again: bool = False) -> list[torch.Tensor]:
        """The shares of a fresh tuple, entered in the ledger."""
        ledger = self.communicator.ledger
        with ledger.offline():
            values = BYTES_PER_ELEMENT * recipe.value_words()
            dealt = values if self.communicator.get_rank() == self.CORRECTED else 0
            unseeded = values + recipe.mask_bytes()
            ledger.tuples(recipe.name, recipe.count(), dealt, unseeded)
            return self._shares(recipe, again)

    @property
    def last(self) -> int:
        """The number of the latest request, by which later ones name the masks that it made."""
        return self.requests - 1

    def weight_opened(self, difference: torch.Tensor) -> None:
        """E = W - B is open for the mask B of the latest request. No input is needed for A E, so that it is
        part of what a later request for A B gets, ahead of time where that is."""
        self._differences[self.last] = difference

    def _finished(self, recipe: Recipe, shares: list[torch.Tensor]) -> list[torch.Tensor]:
        if isinstance(recipe, Linear):
            recipe.finish(shares, self._differences)
        return shares

    def prepare(self, what: str = "inference") -> None:
        """Get ahead of time what ``what``, which comes next, needs, where that is possible."""

    def close(self) -> None:
        """Nothing more will be asked for."""

    def dealer_seconds(self) -> float:
        """Processor seconds that a dealer has spent on requests since the last call, 0 without a dealer."""
        return 0.0

    def stored_bytes(self) -> tuple[int, int]:
        """What this party had on disk of it before the run: for the set-up, and for one inference."""
        return 0, 0

    @abstractmethod
    def _shares(self, recipe: Recipe, again: bool) -> list[torch.Tensor]:
        """Make or fetch them."""

    # What CrypTen's protocols call.

    def _for_crypten(self, recipe: Recipe) -> list[torch.Tensor]:
        """As :meth:`request`, for openings that do not say which masks they subtract."""
        shares = self._entered(recipe)
        self.communicator.guard.issue_shapes(recipe.masks())
        return shares

    def generate_additive_triple(
        self, size0: Shape, size1: Shape, op: str, device: object = None
    ) -> tuple[ArithmeticSharedTensor, ...]:
        """Shares of a, b and op(a, b) for uniform a, b; ``op`` is ``mul`` or ``matmul``."""
        recipe = Product(op=op, left=tuple(size0), right=tuple(size1))
        return tuple(_arithmetic(share) for share in self._for_crypten(recipe))

    def square(self, size: Shape, device: object = None) -> tuple[ArithmeticSharedTensor, ...]:
        """Shares of r and r² for uniform r."""
        return tuple(_arithmetic(share) for share in self._for_crypten(Square(size=tuple(size))))

    def generate_binary_triple(
        self, size0: Shape, size1: Shape, device: object = None
    ) -> tuple[BinarySharedTensor, ...]:
        """Exclusive-or shares of a, b and a & b for uniform 64-bit words a, b."""
        return tuple(_binary(s) for s in self._for_crypten(And(left=tuple(size0), right=tuple(size1))))

    def B2A_rng(
        self, size: Shape, device: object = None
    ) -> tuple[ArithmeticSharedTensor, BinarySharedTensor]:
        """Arithmetic and exclusive-or shares of the same uniform bits."""
        bits, same = self._for_crypten(Bit(size=tuple(size)))
        return _arithmetic(same), _binary(bits)


class FirstPartyProvider(Provider):
    """CrypTen's trusted first party: party 0 makes every tuple in the clear.

    **Insecure**: party 0 knows both seeds and can read all that party 1 masks. It needs no communication,
    because party 1's shares, values included, come from a seed that both hold. Good for development;
    whatever is measured with it is marked. (CrypTen's own class lets party 1 make tuples of its own and
    throw them away; here it only expands its shares, which changes no count and halves the work.)

    With one party alone the "shares" are the tuples themselves.
    """

    NAME = "first-party"
    CORRECTED = 0

    def __init__(self, communicator: LinkCommunicator):
        super().__init__(communicator)
        self._mine = fresh_seed()
        self._kept = Kept()

    def _shares(self, recipe: Recipe, again: bool) -> list[torch.Tensor]:
        return self._finished(recipe, self._made(recipe))

    def _made(self, recipe: Recipe) -> list[torch.Tensor]:
        number, self.requests = self.requests, self.requests + 1
        common = self.communicator.common_seed
        if self.communicator.get_rank() == 1:
            return expand(0, common, number, recipe, None)
        # The dealer's arithmetic with its roles swapped: the common seed's party gets no correction.
        made = correction((common, self._mine), number, recipe, self._kept)
        shares = expand(1, self._mine, number, recipe, made)
        if self.communicator.get_world_size() == 1:
            theirs = expand(0, common, number, recipe, None)
            masks = len(recipe.masks())
            return [
                a ^ b if (recipe.xor_masks if i < masks else recipe.xor_values) else a + b
                for i, (a, b) in enumerate(zip(shares, theirs, strict=True))
            ]
        return shares


def _arithmetic(share: torch.Tensor) -> ArithmeticSharedTensor:
    return ArithmeticSharedTensor.from_shares(share, precision=0)


def _binary(share: torch.Tensor) -> BinarySharedTensor:
    return BinarySharedTensor.from_shares(share)
