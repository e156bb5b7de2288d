"""Which layers become polynomial."""

from __future__ import annotations

from collections.abc import Callable

from mpcbench.checkpoints.polyllama import check_layers
from mpcbench.errors import UserError

LEAST_SENSITIVE = "least-sensitive"
PLACEMENTS = (LEAST_SENSITIVE, "first", "last")


def place(placement: str, layers: int | None, total: int, ranking: Callable[[], list[int]]) -> list[int]:
    """The sorted layers that ``placement`` means in a model of ``total`` layers.

    placement: ``least-sensitive`` (asks ``ranking()`` for all layers, best first), ``first``, ``last``, or
    a list such as ``1,5,7``, with which ``layers`` may be None. Raises UserError when the number of layers
    is missing, impossible or not that of the list, or the list is malformed, repeats, or leaves the model.
    """
    if placement in PLACEMENTS:
        if layers is None:
            raise UserError(f"Say how many layers to replace: --layers 1 to {total}.")
        if not 1 <= layers <= total:
            raise UserError(f"Cannot replace {layers} layers: the model has {total}, choose 1 to {total}.")
        if placement == LEAST_SENSITIVE and layers < total:
            return sorted(ranking()[:layers])
        return list(range(total - layers, total)) if placement == "last" else list(range(layers))
    chosen = check_layers(_parse(placement), total)
    if layers is not None and layers != len(chosen):
        raise UserError(f"The placement {placement} names {len(chosen)} layers, but --layers says {layers}.")
    return chosen


def check_placement(placement: str) -> None:
    """UserError unless it is a placement's name or a list of layers, of whatever model."""
    if placement not in PLACEMENTS:
        _parse(placement)


def _parse(placement: str) -> list[int]:
    parts = [part.strip() for part in placement.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError(
            f"The placement {placement!r} is none of {', '.join(PLACEMENTS)} "
            "and no list of layer numbers such as 1,5,7."
        )
    return [int(part) for part in parts]
