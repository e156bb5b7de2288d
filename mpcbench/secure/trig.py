"""cos and sin of many harmonics of a phase, the same to the last bit on every machine.

Two parties multiply shares by rounded cosines of a public phase. If their roundings differed once, the
result would be a random number, so nothing here is left to a library's cosine: only additions,
subtractions, products and roundings of IEEE 754 doubles, in a fixed order (:mod:`mpcbench.secure.kernels`).

Phases are int64 and turn once in 2^log_period (3 to 64). Where a harmonic is to turn c times, c times the
values are given: with a whole number of turns any period, to a fraction of it, divides 2^64, and c v modulo
2^64 is a phase.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import numpy as np
import torch

PHASE_BITS = 24
"""Where nothing but the phase of a value is opened, it is opened to so small a part of a turn."""
PHASE_BYTES = PHASE_BITS // 8


@cache
def kernels() -> ModuleType:
    """The compiled loops: Numba takes half a second to import, which only parties and dealers need."""
    from mpcbench.secure import kernels

    return kernels


def prepare() -> None:
    """Have the compiled loops ready, so that they are not waited for where time is measured."""
    nothing = torch.empty(0, dtype=torch.int64)
    circle(nothing, PHASE_BITS)
    none = waves(nothing, PHASE_BITS, [0])
    for pairs in (1, 2):
        combination(nothing, PHASE_BITS, (np.empty(1), np.empty(1)), *none * pairs)


def fingerprint() -> str:
    """Of many harmonics of many phases, to 2^-50: two machines with the same one round cosines alike."""
    phases = torch.arange(4096) * 0x1E3779B97F4A7C15  # modulo 2^64
    made = hashlib.sha256()
    for wave in waves(phases, 60, [50] * 64):
        made.update(memoryview(wave.numpy()).cast("B"))
    return made.hexdigest()[:16]


def circle(phases: torch.Tensor, log_period: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of ``phases``, in float64 and in their shape."""
    flat = phases.reshape(-1)
    cosine, sine = (torch.empty(len(flat), dtype=torch.float64) for _ in range(2))
    kernels().circle(flat.numpy(), log_period, cosine.numpy(), sine.numpy())
    return cosine.reshape(phases.shape), sine.reshape(phases.shape)


def waves(phases: torch.Tensor, log_period: int, bits: Sequence[int]) -> list[torch.Tensor]:
    """cos and sin of ``phases`` (n,) for the first harmonics, as many as there are numbers of fraction
    ``bits``: integers (harmonics, n)."""
    made = [torch.empty(len(bits), len(phases), dtype=torch.int64) for _ in range(2)]
    kernels().waves(phases.numpy(), log_period, np.ldexp(1.0, bits), *(wave.numpy() for wave in made))
    return made


def combination(
    phases: torch.Tensor, log_period: int, amplitudes: tuple[np.ndarray, np.ndarray], *waves: torch.Tensor
) -> list[torch.Tensor]:
    """The series a, b = ``amplitudes`` (harmonics,) at phase p + r, where the sum over k is (n,) of

    round(a cos kp + b sin kp) cos kr + round(b cos kp - a sin kp) sin kr

    for public ``phases`` p (n,) and ``waves``: cos kr and sin kr, or shares of them, (harmonics, n). More
    pairs of waves may follow, such as both times something: each pair has a sum of its own.
    """
    sums = [torch.empty_like(phases) for _ in waves[::2]]
    pairs = (waves[::2], waves[1::2], sums)
    kernels().combine(
        phases.numpy(), log_period, *amplitudes, *(tuple(map(torch.Tensor.numpy, each)) for each in pairs)
    )
    return sums
