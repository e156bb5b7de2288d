"""Statistics of what a party receives: whether bytes look uniform, and whether two runs look alike.

All thresholds lie at about seven standard deviations of a chi-squared of 255 degrees of freedom, whose tail
there is below 10^-10: what is right fails by chance in no lifetime.
"""

from __future__ import annotations

import numpy as np

THRESHOLD = 430.0
PLACES = 8


def places(words: np.ndarray) -> np.ndarray:
    """Histograms (8, 256) of the bytes at each place of 64-bit words."""
    rows = words.view(np.uint8).reshape(-1, PLACES)
    return np.stack([np.bincount(rows[:, place], minlength=256) for place in range(PLACES)])


def from_uniform(words: np.ndarray) -> float:
    """The largest chi-squared of a place's bytes against the uniform distribution."""
    seen = places(words)
    expected = len(words) / 256
    return float((((seen - expected) ** 2) / expected).sum(axis=1).max())


def from_each_other(first: np.ndarray, second: np.ndarray) -> float:
    """The largest chi-squared of a place's bytes in two samples, against one distribution for both."""
    one, two = places(first), places(second)
    both, share = one + two, len(first) / (len(first) + len(second))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (one - both * share) ** 2 / (both * share) + (two - both * (1 - share)) ** 2 / (
            both * (1 - share)
        )
    return float(np.nan_to_num(terms).sum(axis=1).max())


def coin(bits: np.ndarray) -> float:
    """Standard score of the number of ones among bits that should be fair coins."""
    return float(abs(bits.sum() - len(bits) / 2) / (len(bits) / 4) ** 0.5)
