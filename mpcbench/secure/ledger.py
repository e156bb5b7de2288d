"""The ledger: every byte, round and second, entered under the operator that caused it.

A stack of scopes says who causes what happens now; the communicator and the provider enter traffic and
correlated randomness under the scope on top. Nothing is ever reset. Time is exclusive: a second belongs
to the innermost scope open while it passed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from mpcbench.records.schema import REPETITION, Phase


class Scope(NamedTuple):
    """Whose traffic it is."""

    phase: Phase
    layer: int | None
    module: str
    operator: str


@dataclass
class Tally:
    """What one scope has caused at this party."""

    calls: int = 0
    bytes_sent: int = 0
    rounds: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    tuples: Counter[str] = field(default_factory=Counter)
    dealt_bytes: int = 0
    unseeded_bytes: int = 0
    cut_locally: int = 0
    cut_failures: float = 0.0
    cut_failures_per_unit: float = 0.0

    def add(self, other: Tally) -> None:
        """Enter all that another tally holds."""
        self.calls += other.calls
        self.bytes_sent += other.bytes_sent
        self.rounds += other.rounds
        self.seconds += other.seconds
        self.wait_seconds += other.wait_seconds
        self.tuples += other.tuples
        self.dealt_bytes += other.dealt_bytes
        self.unseeded_bytes += other.unseeded_bytes
        self.cut_locally += other.cut_locally
        self.cut_failures += other.cut_failures
        self.cut_failures_per_unit += other.cut_failures_per_unit

    def as_json(self) -> dict:
        """Plain data, for the other party."""
        return {**vars(self), "tuples": dict(self.tuples)}


class Ledger:
    """One party's ledger of one stretch of work, such as one inference."""

    def __init__(self) -> None:
        self.tallies: dict[Scope, Tally] = {}
        self.risks: Counter[str] = Counter()
        """How many openings to expect to be made again, by :attr:`here`."""
        self._stack: list[Scope] = []
        self._mark = time.perf_counter()

    @contextmanager
    def scope(self, phase: Phase, layer: int | None, module: str, operator: str) -> Iterator[None]:
        """Enter everything that happens inside under this scope."""
        with self._push(Scope(phase, layer, module, operator)):
            yield

    @contextmanager
    def offline(self, calls: int = 1) -> Iterator[None]:
        """Enter what happens inside as the current operator's offline phase; in setup all is setup.

        ``calls`` is 0 for what a later inference does not do again, so that both enter the same.
        """
        if self._top().phase == "setup":
            yield
            return
        with self._push(self._top()._replace(phase="offline"), calls):
            yield

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Enter what happens inside as usual, or, if it raises, as the current module's repeated openings.

        A scope's own traffic is then what is foreseen, however often an attempt had to be given up.
        """
        self._settle()
        whole, self.tallies = self.tallies, {}
        operator = REPETITION
        try:
            yield
            operator = None
        finally:
            self._settle()
            whole, self.tallies = self.tallies, whole
            for scope, tally in whole.items():
                self._tally(scope._replace(operator=operator or scope.operator)).add(tally)

    @contextmanager
    def _push(self, scope: Scope, calls: int = 1) -> Iterator[None]:
        self._settle()
        self._stack.append(scope)
        self._tally(scope).calls += calls
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def sent(self, nbytes: int, rounds: int, waited: float) -> None:
        """Enter a transmission: payload bytes sent, rounds it took, seconds spent waiting."""
        tally = self._tally(self._top())
        tally.bytes_sent += nbytes
        tally.rounds += rounds
        tally.wait_seconds += waited

    def tuples(self, kind: str, count: int, dealt: int = 0, unseeded: int = 0) -> None:
        """Enter correlated randomness: bytes that this party holds of it beyond its seed, and in full."""
        tally = self._tally(self._top())
        tally.tuples[kind] += count
        tally.dealt_bytes += dealt
        tally.unseeded_bytes += unseeded

    def cut_locally(self, elements: int, bits: int, size: float | None = None) -> None:
        """Enter elements with ``bits`` fraction bits that each party cuts on its own, unchecked.

        ``size``: their largest magnitude; None where it is that of what the operator puts out, which is not
        known yet. One fails with probability size 2^(bits - 64) (SecureML, S&P 2017, theorem 1).
        """
        tally = self._tally(self._top())
        tally.cut_locally += elements
        if size is None:
            tally.cut_failures_per_unit += elements * 2.0 ** (bits - 64)
        else:
            tally.cut_failures += elements * size * 2.0 ** (bits - 64)

    def at_risk(self, chance: float) -> None:
        """Enter the probability with which the opening that follows has to be made again."""
        self.risks[self.here] += chance

    def total(self, phase: Phase) -> Tally:
        """The sum over one phase."""
        result = Tally()
        for scope, tally in self.tallies.items():
            if scope.phase == phase:
                result.add(tally)
        return result

    def as_json(self) -> list[dict]:
        """Plain data: one object a scope."""
        return [{**scope._asdict(), **tally.as_json()} for scope, tally in self.tallies.items()]

    @property
    def here(self) -> str:
        """The module and operator whose scope is open, in words."""
        return f"{self._top().module} ({self._top().operator})"

    @property
    def phase(self) -> Phase | None:
        """The phase whose scope is open; None outside every scope."""
        return self._stack[-1].phase if self._stack else None

    def _top(self) -> Scope:
        if not self._stack:
            raise RuntimeError("traffic outside every scope of the ledger")
        return self._stack[-1]

    def _tally(self, scope: Scope) -> Tally:
        return self.tallies.setdefault(scope, Tally())

    def _settle(self) -> None:
        """Give the time since the last change of scope to the scope on top."""
        now = time.perf_counter()
        if self._stack:
            self._tally(self._stack[-1]).seconds += now - self._mark
        self._mark = now
