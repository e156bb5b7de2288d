"""Shares as int64 tensors with a number of fraction bits, and what a party computes on them alone.

CrypTen's tensors travel between operators, so that a protocol can mix its operators with ours; ours look
at the share itself. A product is not cut back to its factors' fraction bits: the value travels with the
bits it has, and the next opening cuts it (:mod:`mpcbench.secure.opening`).
"""

from __future__ import annotations

from typing import Any

import torch

from mpcbench.secure.substrate import communicator, crypten


def wrap(share: torch.Tensor, bits: int) -> Any:
    """A CrypTen tensor around this party's share of a value with ``bits`` fraction bits."""
    tensor = crypten.mpc.MPCTensor.__new__(crypten.mpc.MPCTensor)
    crypten.CrypTensor.__init__(tensor)
    tensor._tensor = crypten.mpc.primitives.ArithmeticSharedTensor.from_shares(share, precision=bits)
    tensor.ptype = crypten.mpc.arithmetic
    return tensor


def bits_of(value: Any) -> int:
    """Fraction bits of a CrypTen tensor."""
    return int(value.encoder.scale).bit_length() - 1


def rescaled(share: torch.Tensor, bits: int, wanted: int) -> torch.Tensor:
    """The same value with more fraction bits, exactly."""
    if wanted < bits:
        raise ValueError(f"a share of {bits} fraction bits cannot be given {wanted} without truncation")
    return share << (wanted - bits) if wanted > bits else share


def plus(share: torch.Tensor, public: torch.Tensor | int) -> torch.Tensor:
    """The sum with a public value: party 0 adds it."""
    return share + public if communicator().get_rank() == 0 else share


def matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Product of integer matrices (..., k) x (k, n); a single row is quicker as a matrix times a vector."""
    rows = left.reshape(-1, left.shape[-1])
    product = torch.mv(right.t(), rows[0]).unsqueeze(0) if rows.shape[0] == 1 else rows @ right
    return product.reshape(*left.shape[:-1], right.shape[-1])


def truncated_locally(share: torch.Tensor, bits: int, wanted: int, size: float | None = None) -> torch.Tensor:
    """Each party cuts its own share from ``bits`` to ``wanted`` fraction bits (SecureML, S&P 2017, 4.1).

    With s bits less, wrong by 2^(64 - s) with probability |v| 2^-64, for a value v as an integer. What is cut
    is entered in the ledger; ``size`` as there.
    """
    shift = bits - wanted
    if shift == 0:
        return share
    communicator().ledger.cut_locally(share.numel(), bits, size)
    return share >> shift if communicator().get_rank() == 0 else -(-share >> shift)
