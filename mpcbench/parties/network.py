"""Named links: how many bits a second each direction carries, and how long a round trip takes.

A profile is a YAML file with units in its text (``bandwidth: 100 Mbit/s``, ``round_trip: 40 ms``). Nothing
here needs PyTorch, so that whatever predicts or reads latencies can use the same profiles as a run.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError

Backend = Literal["transport", "netem", "namespaces"]
BACKENDS: dict[str, str] = {
    "transport": "each party holds back what it sends",
    "netem": "the kernel does, at each party's device; where it cannot, the party's transport",
    "namespaces": "a network namespace a party, joined by a line in user space that TCP crosses",
}
"""Who makes a link as slow as its profile says."""

LOOPBACK = "loopback"
UNLIMITED = "unlimited"
FOLDER = Path(__file__).parent / "links"

_BANDWIDTHS = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(\S*)\s*")
_REQUIRED, _OPTIONAL = ("bandwidth", "round_trip"), ("summary", "source")


@dataclass(frozen=True)
class LinkProfile:
    """A link: ``bandwidth`` in bits a second in each direction (None: unlimited), ``round_trip`` in seconds.

    Both directions are independent and alike. ``summary`` and ``source`` are words for people, ``origin``
    is what :func:`load_link` read it from.
    """

    name: str
    bandwidth: float | None
    round_trip: float
    summary: str = field(default="", compare=False)
    source: str = field(default="", compare=False)
    origin: str = field(default="", compare=False)

    @property
    def one_way(self) -> float:
        """Seconds from one end to the other."""
        return self.round_trip / 2

    @property
    def emulated(self) -> bool:
        """Whether the link asks for anything that loopback does not do by itself."""
        return self.bandwidth is not None or self.round_trip > 0

    def seconds(self, rounds: int, sent: float) -> float:
        """What the link adds to the time to compute: ``rounds`` exchanges, ``sent`` bytes by each party.

        In a round both parties send at once, so that it takes one one-way delay, not a round trip.
        """
        return rounds * self.one_way + (8 * sent / self.bandwidth if self.bandwidth else 0.0)

    def describe(self) -> str:
        """Bandwidth and round-trip time in words, such as ``100 Mbit/s, 40 ms round trip``."""
        return f"{_rate(self.bandwidth)}, {self.round_trip * 1e3:g} ms round trip"


NO_EMULATION = LinkProfile(LOOPBACK, None, 0.0, origin=LOOPBACK)


def available() -> dict[str, Path]:
    """The files of the packaged profiles by name, from the quickest link to the slowest."""
    order = {LOOPBACK: 0, "lan": 1, "geo": 2, "wan": 3}
    files = sorted(FOLDER.glob("*.yaml"), key=lambda file: (order.get(file.stem, len(order)), file.stem))
    return {file.stem: file for file in files}


def load_link(name: str) -> LinkProfile:
    """The packaged profile of this name, or the one in a YAML file, which is named as the file is.

    Raises UserError with one sentence for an unknown link, and for a quantity that is missing or lacks
    its unit.
    """
    packaged = available()
    path = packaged.get(name) or Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"The link {name} is not text: give a YAML file in UTF-8.") from None
    except (OSError, ValueError):
        raise UserError(
            f"There is no link {name}: choose {', '.join(packaged)}, or name a YAML file."
        ) from None
    return parse_link(parse_yaml(text, str(path)), path.stem, str(path), name)


def parse_link(body: object, name: str, path: str, origin: str) -> LinkProfile:
    """Check the content of the profile's file ``path``; raises UserError as :func:`load_link` does."""
    if not isinstance(body, dict):
        raise UserError(f"{path} describes no link: write `bandwidth: 100 Mbit/s` and `round_trip: 40 ms`.")
    for key in body:
        if key not in (*_REQUIRED, *_OPTIONAL):
            allowed = ", ".join((*_REQUIRED, *_OPTIONAL))
            raise UserError(f"{path}: {key!r} is unknown: allowed are {allowed}.")
    bandwidth = None
    if body.get("bandwidth") != UNLIMITED:
        bandwidth = _quantity(body.get("bandwidth"), "bandwidth", _BANDWIDTHS, "100 Mbit/s", path)
    round_trip = _quantity(body.get("round_trip"), "round_trip", _TIMES, "40 ms", path)
    return LinkProfile(name, bandwidth, round_trip, *(str(body.get(key, "")) for key in _OPTIONAL), origin)


def _quantity(value: object, key: str, units: dict[str, float], example: str, path: str) -> float:
    """A number with its unit in base units; a bandwidth of nothing is as wrong as one without a unit."""
    hint = f"write a number and a unit ({', '.join(units)}), such as `{key}: {example}`"
    if value is None:
        raise UserError(f"{path} has no {key}: {hint}.")
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise UserError(f"{path}: {key} {str(value)!r} is no quantity: {hint}.")
    number, unit = float(match[1]), match[2]
    if unit not in units:
        wrong = f"has no unit it could be read with ({unit})" if unit else "has no unit"
        raise UserError(f"{path}: {key} {str(value)!r} {wrong}: {hint}.")
    if not math.isfinite(number) or (number == 0 and units is _BANDWIDTHS):
        raise UserError(f"{path}: {key} {str(value)!r} lets nothing through: {hint}.")
    return number * units[unit]


def _rate(bandwidth: float | None) -> str:
    if bandwidth is None:
        return UNLIMITED
    unit = next(name for name, size in reversed(_BANDWIDTHS.items()) if bandwidth >= size or size == 1.0)
    return f"{bandwidth / _BANDWIDTHS[unit]:g} {unit}"
