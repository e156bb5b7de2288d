"""A pseudorandom generator fit for masks: AES-128 in counter mode, seeded by the operating system.

On a processor with AES instructions it is as fast as the Mersenne twister of ``torch.randint``, which is
no cryptographic generator. Every request has a number of its own, which is the upper half of the counter
block, so that no two requests ever see the same key stream.
"""

from __future__ import annotations

import os
import struct

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SEED_BYTES = 16
_ZEROS = memoryview(bytes(1 << 23))
_WORD = 8


def fresh_seed() -> bytes:
    """A new seed from the operating system."""
    return os.urandom(SEED_BYTES)


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
