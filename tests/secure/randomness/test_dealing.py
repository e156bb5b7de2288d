"""What a dealer makes: both parties' shares together are the tuple, and nonsense is refused."""

from __future__ import annotations

import pytest
import torch

from mpcbench.secure.randomness.dealing import RECIPES, as_request, correction, from_request, shares
from mpcbench.secure.randomness.prg import fresh_seed
from mpcbench.secure.randomness.recipe import MAX_WORDS, Kept
from mpcbench.secure.randomness.stock import And, Bit, Product, Square

STOCK = [
    Product(op="mul", left=(3, 4), right=(4,)),
    Product(op="matmul", left=(2, 3, 4), right=(4, 5)),
    Square(size=(6,)),
    And(left=(5,), right=(5,)),
    Bit(size=(400,)),
]


def dealt(recipe, number: int = 5, kept: Kept | None = None) -> list[torch.Tensor]:
    """A whole tuple, as both parties would see it together."""
    seeds = (fresh_seed(), fresh_seed())
    received = correction(seeds, number, recipe, kept or Kept())
    assert received.numel() == recipe.value_words()
    first = shares(0, seeds[0], number, recipe, None)
    second = shares(1, seeds[1], number, recipe, received)
    masks = len(recipe.masks())
    xor = [recipe.xor_masks] * masks + [recipe.xor_values] * len(recipe.values())
    return [a ^ b if x else a + b for a, b, x in zip(first, second, xor, strict=True)]


@pytest.mark.parametrize("recipe", STOCK, ids=lambda recipe: recipe.name)
def test_shares_are_of_the_tuple(recipe) -> None:
    *masks, value = dealt(recipe)
    assert value.equal(recipe.derive(masks, Kept())[0])
    assert [tuple(mask.shape) for mask in masks] == recipe.masks()
    if recipe.kind == "bit":
        assert set(masks[0].tolist()) == {0, 1}


@pytest.mark.parametrize("recipe", STOCK, ids=lambda recipe: recipe.name)
def test_requests_travel_as_json(recipe) -> None:
    import json

    assert from_request(json.loads(json.dumps(as_request(9, recipe)))) == (9, recipe)


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        [1, "no such kind", {}],
        [1, "square", {"size": [3], "more": 1}],
        [1, "square", {"size": [-3]}],
        [1, "square", {"size": [1 << 31, 1 << 31]}],
        [-1, "square", {"size": [3]}],
        [True, "square", {"size": [3]}],
        [1 << 64, "square", {"size": [3]}],
        [1, "product", {"op": "conv1d", "left": [1], "right": [1]}],
        [1, "product", {"op": "matmul", "left": [2, 3], "right": [4, 5]}],
        [1, ["square"], {"size": [3]}],
    ],
)
def test_nonsense_is_refused_before_anything_is_allocated(item) -> None:
    with pytest.raises(ValueError):
        from_request(item)


def test_limit_is_on_masks_and_values() -> None:
    assert MAX_WORDS * 8 <= 1 << 34
    with pytest.raises(ValueError, match="too large"):
        from_request([0, "product", {"op": "matmul", "left": [1 << 16, 1], "right": [1, 1 << 16]}])


def test_every_recipe_says_what_it_is() -> None:
    for kind, recipe in RECIPES.items():
        assert recipe.kind == kind
        assert recipe.__doc__
