"""What an operator declares that it costs, before anything runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

RING_BITS = 64
RING_BYTES = RING_BITS // 8


@dataclass(frozen=True)
class Cost:
    """Cost of one call at one party: bytes it sends online, rounds, the tuples it consumes, the bytes
    of corrections that a dealer sends for them to party 1, and by how many bytes openings are narrower than
    their masks.

    Costs of steps that depend on each other add up.
    """

    bytes_sent: int = 0
    rounds: int = 0
    tuples: Counter[str] = field(default_factory=Counter)
    dealt_bytes: int = 0
    narrowed_bytes: int = 0

    @property
    def unseeded_bytes(self) -> int:
        """What each party would be sent without seeds: masks and values in full.

        Every opened element has a mask of its own.
        """
        return self.bytes_sent + self.narrowed_bytes + self.dealt_bytes

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.bytes_sent + other.bytes_sent,
            self.rounds + other.rounds,
            self.tuples + other.tuples,
            self.dealt_bytes + other.dealt_bytes,
            self.narrowed_bytes + other.narrowed_bytes,
        )

    def __mul__(self, times: int) -> Cost:
        tuples = Counter({kind: count * times for kind, count in self.tuples.items()})
        return Cost(
            self.bytes_sent * times, self.rounds * times, tuples, self.dealt_bytes * times,
            self.narrowed_bytes * times,
        )  # fmt: skip

    __rmul__ = __mul__


def opening(elements: int, kind: str, tuples: int) -> Cost:
    """One round in which each party sends ``elements`` ring elements and ``tuples`` of ``kind`` are used,
    one correction each."""
    counted = Counter({kind: tuples}) if tuples else Counter()
    return Cost(RING_BYTES * elements, 1, counted, RING_BYTES * tuples)


def narrow_opening(elements: int, width: int) -> Cost:
    """Both ways at once, ``width`` bytes of every element, whose mask is one of the ring."""
    return Cost(width * elements, 1, narrowed_bytes=(RING_BYTES - width) * elements)


def dealt(kind: str, tuples: int, corrections: int | None = None) -> Cost:
    """``tuples`` of ``kind``, and what the dealer sends for them: one correction each unless it is said."""
    return Cost(0, 0, Counter({kind: tuples}), RING_BYTES * (tuples if corrections is None else corrections))


FREE = Cost()
