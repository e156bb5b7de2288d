"""CrypTen's trusted first party, counted: who makes the correlated randomness, and how much of it.

Party 0 samples every tuple in the clear, so **this provider is insecure**: party 0 can read all that
party 1 masks. It is CrypTen's default and good for development; whatever is measured with it is marked.

CrypTen's own class (``crypten/mpc/provider/tfp_provider.py``) lets party 1 sample and multiply tuples of
its own and throw them away. Here party 1 only expands its share from the seed that both hold, which
changes no value and no count but halves the work on one machine.
"""

from __future__ import annotations

import torch

from mpcbench.compat import import_crypten
from mpcbench.secure.communicator import LinkCommunicator

import_crypten()

from crypten.common.rng import generate_kbit_random_tensor, generate_random_ring_element  # noqa: E402
from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor  # noqa: E402
from crypten.mpc.provider.provider import TupleProvider  # noqa: E402

Size = torch.Size | tuple[int, ...]


class FirstPartyProvider(TupleProvider):
    """Tuples from party 0, entered in the ledger's offline phase and reported to the guard."""

    NAME = "first-party"
    SECURE = False

    def __init__(self, communicator: LinkCommunicator):
        super().__init__()
        self.communicator = communicator

    def generate_additive_triple(
        self, size0: Size, size1: Size, op: str, device: object = None, *args: object, **kwargs: object
    ) -> tuple[ArithmeticSharedTensor, ArithmeticSharedTensor, ArithmeticSharedTensor]:
        """Shares of a, b and op(a, b) for uniform a, b; ``op`` is ``mul`` or ``matmul``."""
        size = product_size(size0, size1, op)
        with self._made(f"{op}_triple", size.numel(), [size0, size1]):
            if self.rank != 0:
                return _share(size0), _share(size1), _share(size)
            a, b = generate_random_ring_element(size0), generate_random_ring_element(size1)
            c = getattr(torch, op)(a, b, *args, **kwargs)
            return _share(size0, a), _share(size1, b), _share(size, c)

    def square(
        self, size: Size, device: object = None
    ) -> tuple[ArithmeticSharedTensor, ArithmeticSharedTensor]:
        """Shares of r and r² for uniform r."""
        with self._made("square", torch.Size(size).numel(), [size]):
            if self.rank != 0:
                return _share(size), _share(size)
            r = generate_random_ring_element(size)
            return _share(size, r), _share(size, r * r)

    def generate_binary_triple(
        self, size0: Size, size1: Size, device: object = None
    ) -> tuple[BinarySharedTensor, BinarySharedTensor, BinarySharedTensor]:
        """Exclusive-or shares of a, b and a & b for uniform 64-bit words a, b."""
        size = torch.broadcast_shapes(size0, size1)
        with self._made("binary_triple", size.numel(), [size0, size1]):
            if self.rank != 0:
                return _share_bits(size0), _share_bits(size1), _share_bits(size)
            a, b = generate_kbit_random_tensor(size0), generate_kbit_random_tensor(size1)
            return _share_bits(size0, a), _share_bits(size1, b), _share_bits(size, a & b)

    def B2A_rng(self, size: Size, device: object = None) -> tuple[ArithmeticSharedTensor, BinarySharedTensor]:
        """Arithmetic and exclusive-or shares of the same uniform bits."""
        with self._made("bit", torch.Size(size).numel(), [size]):
            if self.rank != 0:
                return _share(size), _share_bits(size)
            bits = generate_kbit_random_tensor(size, bitlength=1)
            return _share(size, bits), _share_bits(size, bits)

    def _made(self, kind: str, count: int, masks: list[Size]) -> _Offline:
        return _Offline(self.communicator, kind, count, masks)


class _Offline:
    """Context of one request: its time and count go to the offline phase, its masks to the guard."""

    def __init__(self, communicator: LinkCommunicator, kind: str, count: int, masks: list[Size]):
        self.scope = communicator.ledger.offline()
        self.communicator, self.kind, self.count, self.masks = communicator, kind, count, masks

    def __enter__(self) -> None:
        self.scope.__enter__()
        self.communicator.ledger.tuples(self.kind, self.count)
        self.communicator.guard.issue(self.masks)

    def __exit__(self, *error: object) -> None:
        self.scope.__exit__(*error)


def product_size(size0: Size, size1: Size, op: str) -> torch.Size:
    """Shape of ``torch.mul`` or ``torch.matmul`` for operands of at least two dimensions."""
    if op == "mul":
        return torch.broadcast_shapes(size0, size1)
    if op == "matmul":
        batch = torch.broadcast_shapes(tuple(size0[:-2]), tuple(size1[:-2]))
        return torch.Size([*batch, size0[-2], size1[-1]])
    raise ValueError(f"no triple for {op}")


def _share(size: Size, value: torch.Tensor | None = None) -> ArithmeticSharedTensor:
    return ArithmeticSharedTensor(value, size=torch.Size(size), precision=0, src=0)


def _share_bits(size: Size, value: torch.Tensor | None = None) -> BinarySharedTensor:
    return BinarySharedTensor(value, size=torch.Size(size), src=0)
