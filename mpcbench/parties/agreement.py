"""Public numbers that both parties must have alike to the last bit: the model owner's, told to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpcbench.errors import PeerError
from mpcbench.secure.series import HARMONICS, Series
from mpcbench.secure.transport import Link

_Coefficients = Annotated[list[float], Field(max_length=HARMONICS[-1])]


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    log_period: Annotated[int, Field(ge=-64, le=64)]
    turns: Annotated[int, Field(ge=1, le=1 << 16)]
    constant: float
    cosines: _Coefficients
    sines: _Coefficients
    error: float


def agreed(link: Link, rank: int, own: Callable[[], Series]) -> Series:
    """Party 0's own series at both ends, which then go on together; at the first use of a series.

    Raises PeerError at the client for what is no series.
    """
    if rank == 0:
        series = own()
        link.meet({"series": asdict(series)})
        return series
    try:
        told = _Told.model_validate(link.meet({}).get("series"))
    except ValidationError:
        raise PeerError(f"{link.peer} sent a malformed series: look at its own output.") from None
    if len(told.cosines) != len(told.sines):
        raise PeerError(f"{link.peer} sent a malformed series: look at its own output.")
    return Series(
        told.log_period, told.turns, told.constant, tuple(told.cosines), tuple(told.sines), told.error
    )
