"""A pseudorandom generator fit for masks: AES-128 in counter mode, seeded by the operating system.

On a processor with AES instructions it is as fast as the Mersenne twister of ``torch.randint``, which is
no cryptographic generator. Every request has a number of its own, which is the upper half of the counter
block, so that no two requests ever see the same key stream.

Tests may have a process take all its seeds from a number instead, which is **insecure**: whoever knows the
number can read everything. The parties and the dealer agree on it before anything moves, and the record, and
every table and figure of it, says so.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import struct
from collections.abc import Iterator

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SEED_BYTES = 16
_ZEROS = memoryview(bytes(1 << 23))
_WORD = 8
_fixed = 0
_label = ""
_calls: Iterator[int] = itertools.count()


def fix_seeds(number: int, role: str) -> None:
    """For tests alone, **insecure**: from now on what this process draws follows from ``number`` (1 or more).

    ``role`` tells the processes of a run apart, which must not draw the same.
    """
    global _fixed, _label, _calls
    # Of the process, as the operating system's generator is: seeds are drawn deep inside of operators.
    _fixed, _label, _calls = number, role, itertools.count()


def fixed_seeds() -> int:
    """What :func:`fix_seeds` was given in this process, 0 where seeds come from the operating system."""
    return _fixed


def entropy(count: int) -> bytes:
    """So many bytes from the operating system, for seeds."""
    if _fixed:
        return hashlib.shake_256(f"{_fixed} {_label} {next(_calls)}".encode()).digest(count)
    return os.urandom(count)


def fresh_seed() -> bytes:
    """A new seed from the operating system."""
    return entropy(SEED_BYTES)


def words(seed: bytes, number: int, count: int) -> torch.Tensor:
    """``count`` uniform int64 of request ``number`` (0 to 2^64 - 1), the same for the same seed."""
    cipher = Cipher(algorithms.AES(seed), modes.CTR(struct.pack(">QQ", number, 0)))
    encryptor = cipher.encryptor()
    length = _WORD * count
    stream = bytearray(length + 15)  # update_into wants room for one more block
    view = memoryview(stream)
    done = 0
    while done < length:
        part = min(length - done, len(_ZEROS))
        done += encryptor.update_into(_ZEROS[:part], view[done:])
    if not count:
        return torch.empty(0, dtype=torch.int64)
    return torch.frombuffer(stream, dtype=torch.int64, count=count)
