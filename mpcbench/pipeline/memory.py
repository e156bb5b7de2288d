"""Will a run fit into this machine's memory? Asked before anything long starts."""

from __future__ import annotations

from collections.abc import Mapping

from mpcbench.errors import UserError

PROGRAMS = 1.5e9
"""Bytes that two parties, a dealer and their launcher hold without any model, libraries above all."""
BYTES_PER_PARAMETER = 82
"""Their shares, masks and openings, and the checkpoint in float32, at the peak of a run of SmolLM2-135M."""


def needed(parameters: int) -> float:
    """Bytes that a run of a model with so many parameters takes, both parties on one machine."""
    return PROGRAMS + BYTES_PER_PARAMETER * parameters


def check_memory(models: Mapping[str, int], free: float, where: str = "here") -> None:
    """Raise UserError for the first model, by name and number of parameters, that does not fit."""
    for name, parameters in models.items():
        room = needed(parameters)
        if room > free:
            raise UserError(
                f"{name} has {parameters / 1e6:,.0f} million parameters, which take {room / 1e9:,.1f} GB "
                f"for two parties and their launcher, and {free / 1e9:,.1f} GB of memory are free {where}: "
                "leave it out, or price it with `mpcbench estimate`."
            )
