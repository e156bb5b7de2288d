"""Material: dealt right, used once, marked before, and refused when anything about it is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.protocol import load_protocol
from mpcbench.secure.randomness import ahead
from mpcbench.secure.randomness.linear import Linear, WeightMask
from mpcbench.secure.randomness.material import ABOUT, SETUP, Material, inference_file, used_file
from mpcbench.secure.randomness.prg import SEED_BYTES
from mpcbench.secure.randomness.stock import Product, Square
from mpcbench.secure.rehearsal import Demand
from mpcbench.secure.stored import StoredProvider
from tests.secure.links import links, together

MASK = WeightMask(size=(3, 4))
PRODUCT = Product(op="matmul", left=(2, 3), right=(3, 4))
LINEAR = Linear(size=(2, 3), weights=(0,), columns=(4,))
DIFFERENCE = torch.arange(12).reshape(3, 4)
"""A weight of which the mask has been taken off."""
DEMAND = Demand((MASK,), (PRODUCT, LINEAR), (Square(size=(5,)),))
INFERENCES = 3


class _Graph:
    """Stands in for a graph of which the dealer needs the hash alone."""

    @staticmethod
    def sha256() -> str:
        return "graph"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both parties' folders."""
    monkeypatch.setattr(ahead, "rehearse", lambda graph, protocol, tokens: DEMAND)
    ahead.preprocess(_Graph(), load_protocol("crypten"), 7, INFERENCES, tmp_path / "made")
    return tmp_path / "made"


def _providers(made: Path, wanted: int = 1, other: Path | None = None) -> tuple[Any, Any]:
    folders = (made / "party0", (other or made) / "party1")
    with links() as pair:
        return together(*(
            lambda rank=rank: StoredProvider(
                LinkCommunicator(rank, pair[rank]), Material(folders[rank], rank), wanted
            )
            for rank in (0, 1)
        ))  # fmt: skip


def _ask(provider: StoredProvider, recipe: Any, again: bool = False) -> list[torch.Tensor]:
    with provider.communicator.ledger.scope("online", 0, "m", "o"):
        return provider.request(recipe, again)


def _both(providers: tuple[Any, Any], recipe: Any, again: bool = False) -> list[torch.Tensor]:
    first, second = (_ask(provider, recipe, again) for provider in providers)
    return [a + b for a, b in zip(first, second, strict=True)]


def _set_up(providers: tuple[Any, Any]) -> torch.Tensor:
    """Open a weight less the mask that is returned."""
    (mask,) = _both(providers, MASK)
    for provider in providers:
        provider.weight_opened(DIFFERENCE)
    return mask


def test_tuples_are_right_and_fresh_and_refer_to_the_masks_of_the_setup(made: Path) -> None:
    providers = _providers(made, INFERENCES)
    mask = _set_up(providers)
    assert [provider.last for provider in providers] == [0, 0]
    seen = []
    for _ in range(INFERENCES):
        for provider in providers:
            provider.prepare()
        a, b, c = _both(providers, PRODUCT)
        r, product = _both(providers, LINEAR)
        s, square = _both(providers, DEMAND.spare[0], again=True)
        assert (
            torch.equal(a @ b, c)
            and torch.equal(r @ (mask + DIFFERENCE), product)
            and torch.equal(s * s, square)
        )
        seen.append(a)
    assert len({tuple(a.flatten().tolist()) for a in seen}) == INFERENCES


def test_bytes_and_storage(made: Path) -> None:
    providers = _providers(made)
    _set_up(providers)
    for provider in providers:
        provider.prepare()
    _both(providers, PRODUCT)
    offline = [provider.communicator.ledger.total("offline") for provider in providers]
    assert [tally.bytes_sent for tally in offline] == [0, 8 * 8]
    words = PRODUCT.value_words() + LINEAR.value_words() + 5  # the spare is stored as well
    sizes = [(SEED_BYTES, SEED_BYTES), (SEED_BYTES, SEED_BYTES + 8 * words)]
    assert [provider.stored_bytes() for provider in providers] == sizes
    assert all(provider.dealer_seconds() > 0 for provider in providers)
    assert all(provider.dealer_seconds() == 0 for provider in providers)


def test_an_inference_is_marked_before_it_is_read_and_emptied_after(made: Path, monkeypatch) -> None:
    folder = made / "party1"
    material = Material(folder, 1)
    monkeypatch.setattr(material, "_read", lambda name, path: 1 / 0)  # dies between mark and use
    with pytest.raises(ZeroDivisionError):
        material.use(0)
    again = Material(folder, 1)
    assert again.first_unused() == 1
    with pytest.raises(UserError, match=r"^Inference 0 .* has been used already, and nothing is used twice"):
        again.use(0)
    again.use(1)
    assert not (folder / inference_file(1)).exists() and (folder / used_file(1)).stat().st_size == 0


def test_parties_skip_what_either_has_used(made: Path) -> None:
    Material(made / "party0", 0).use(1)
    providers = _providers(made)
    _set_up(providers)
    for provider in providers:
        provider.prepare()
    assert [Material(made / f"party{rank}", rank).first_unused() for rank in (0, 1)] == [3, 3]
    assert (made / "party1" / inference_file(1)).exists()


def test_too_little_left_is_refused_and_nothing_is_marked(made: Path) -> None:
    Material(made / "party1", 1).use(0)
    with pytest.raises(UserError, match=r"is left for 2 inferences and this run has 3, warm-ups included"):
        _providers(made, 3)
    assert Material(made / "party0", 0).first_unused() == 0


def test_folders_of_two_makings(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ahead.preprocess(_Graph(), load_protocol("crypten"), 7, 1, other)
    with pytest.raises(PeerError, match="not of one making"):
        _providers(made, other=other)


def test_more_repetitions_than_spares(made: Path) -> None:
    providers = _providers(made)
    _set_up(providers)
    for provider in providers:
        provider.prepare()
        _ask(provider, DEMAND.spare[0], again=True)
        with pytest.raises(UserError, match=r"^m \(o\) opened again more often"):
            _ask(provider, DEMAND.spare[0], again=True)


def test_another_order_than_planned_is_a_defect(made: Path) -> None:
    first, _ = _providers(made)
    with pytest.raises(RuntimeError, match=r"where .* was planned"):
        _ask(first, PRODUCT)


@pytest.mark.parametrize("name", [SETUP, inference_file(0)])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow"])
def test_damaged_files_are_noticed(made: Path, name: str, damage: str) -> None:
    file = made / "party1" / name
    content = bytearray(file.read_bytes())
    content[3] ^= damage == "flip"
    file.write_bytes(content[:-1] if damage == "cut" else content + b"0" * (damage == "grow"))
    material = Material(made / "party1", 1)
    with pytest.raises(UserError, match=r"is not what was written there: run mpcbench preprocess again"):
        material.open_setup() if name == SETUP else material.use(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "holds the material of party 0, not of party 1"),
        ({"version": "0"}, "was made by mpcbench 0"),
        ({"plan": [[0, "oracle", {}]]}, "is damaged"),
        ({"files": 3}, "is damaged"),
        ({"secret": 1}, "is damaged"),
    ],
)
def test_wrong_descriptions_are_refused(made: Path, change: dict, words: str) -> None:
    path = made / "party1" / ABOUT
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=words):
        Material(made / "party1", 1)


def test_what_it_was_made_for(made: Path) -> None:
    material, protocol = Material(made / "party1", 1), load_protocol("crypten").sha256()
    material.check("graph", protocol, 7)
    for arguments, words in (
        (("other", protocol, 7), "another graph"),
        (("graph", "other", 7), "another protocol"),
        (("graph", protocol, 8), "7 tokens instead of 8"),
    ):
        with pytest.raises(UserError, match=f"was made for {words}: run mpcbench preprocess"):
            material.check(*arguments)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no material in"):
        Material(tmp_path, 0)


def test_folders_appear_whole_or_not_at_all(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="exists already"):
        ahead.preprocess(_Graph(), load_protocol("crypten"), 7, 1, made)
    shutil.rmtree(made)
    monkeypatch.setattr(ahead, "correction", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ahead.preprocess(_Graph(), load_protocol("crypten"), 7, 1, made)
    assert list(made.parent.iterdir()) == []


def test_others_cannot_read_it(made: Path) -> None:
    assert [os.stat(made / f"party{rank}").st_mode & 0o077 for rank in (0, 1)] == [0, 0]
