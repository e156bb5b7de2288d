"""What a dealer does with a request, and the table of all recipes. Holds no state of a connection."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import ValidationError

from mpcbench.secure.randomness import activations, attention, linear, series, stock
from mpcbench.secure.randomness.prg import words
from mpcbench.secure.randomness.recipe import (
    MAX_WORDS,
    Kept,
    Recipe,
    joined,
    narrowed,
    split,
)

_MODULES: tuple[tuple[type[Recipe], ...], ...] = (
    (stock.Product, stock.Square, stock.And, stock.Bit),
    (linear.WeightMask, linear.Linear, linear.Matmul, linear.CachedRows, linear.CachedMatmul),
    (series.Trig,),
    (activations.Norm, activations.QuadraticGLU, activations.SwiGLU, activations.NestedGLU),
    (activations.Products, attention.NormedScores),
)

RECIPES: dict[str, type[Recipe]] = {recipe.kind: recipe for module in _MODULES for recipe in module}
"""Every recipe by the name that requests use."""


def as_request(number: int, recipe: Recipe) -> list[Any]:
    """A request as JSON data."""
    return [number, recipe.kind, recipe.model_dump(mode="json")]


def from_request(item: Any) -> tuple[int, Recipe]:
    """A request from JSON data that a party sent; raises ValueError when it is none."""
    try:
        number, kind, body = item
        recipe = RECIPES[kind].model_validate(body)
        if type(number) is not int or not 0 <= number < 1 << 64:
            raise ValueError("the number of a request is a 64-bit one")
        if max(recipe.mask_words(), recipe.value_words()) > MAX_WORDS:
            raise ValueError("the request is too large")
    except (TypeError, KeyError, ValidationError) as error:
        raise ValueError(f"not a request: {type(error).__name__}") from None
    return number, recipe


def correction(seeds: tuple[bytes, bytes], number: int, recipe: Recipe, kept: Kept) -> torch.Tensor:
    """Party 1's share of the values, flat: all that has to be sent for a request."""
    hidden, values = recipe.mask_words(), recipe.value_words()
    first = words(seeds[0], number, hidden + values)
    second = words(seeds[1], number, hidden)
    flat = joined(narrowed(recipe, first[:hidden]), narrowed(recipe, second), recipe.xor_masks)
    masks = split(flat, recipe.masks())
    if recipe.kept:
        kept.put(number, masks[0])
    corrections = first[hidden:]  # party 0's shares of the values, each of which makes way for party 1's
    shares = split(corrections, recipe.values())
    without = torch.bitwise_xor if recipe.xor_values else torch.sub
    for value, share in zip(recipe.derive(masks, kept), shares, strict=True):
        without(value, share, out=share)
    return corrections


def shares(
    rank: int, seed: bytes, number: int, recipe: Recipe, received: torch.Tensor | None
) -> list[torch.Tensor]:
    """A party's shares of a tuple, masks first: from its seed and, at party 1, what the dealer sent."""
    hidden, values = recipe.mask_words(), recipe.value_words()
    flat = words(seed, number, hidden + (values if rank == 0 else 0))
    masks = split(narrowed(recipe, flat[:hidden]), recipe.masks())
    return masks + split(flat[hidden:] if rank == 0 else received, recipe.values())
