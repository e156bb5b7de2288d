"""Correlated randomness made ahead of time: one folder a party, and in it one file an inference.

A file holds a seed, from which a party expands its own shares, and at party 1 the dealer's corrections
behind it, as 64-bit little-endian words in the order of the plan. ``material.json`` says what the files are
for, what is in them, and their hashes.

An inference's file is used once. It is marked before anything is read from it, by renaming it, and emptied
after: whatever dies in between, nothing is ever used twice. The file of the set-up holds masks of weights,
which later files refer to. It is opened in every run, always under the same weights, because the graph's
hash covers them; opening the same difference again says nothing new.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import mpcbench
from mpcbench.errors import UserError
from mpcbench.secure.randomness.dealing import as_request, from_request
from mpcbench.secure.randomness.prg import SEED_BYTES
from mpcbench.secure.randomness.recipe import Recipe

ABOUT = "material.json"
SETUP = "setup.bin"
MAX_INFERENCES = 10_000
Count = Annotated[int, Field(ge=0)]


class FileInfo(BaseModel):
    """One file: its size, its hash, and the dealer's processor seconds for both parties' files together."""

    model_config = ConfigDict(extra="forbid")

    bytes: Count
    sha256: str
    dealer_seconds: float


class About(BaseModel):
    """What ``material.json`` says. Recipes are listed as requests are, with their numbers."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    version: str
    material: str
    rank: Literal[0, 1]
    graph_sha256: str
    protocol_sha256: str
    tokens: Count
    inferences: Count
    setup: list[Any]
    plan: list[Any]
    spare: list[Any]
    files: dict[str, FileInfo]

    def recipes(self, part: Literal["setup", "plan", "spare"]) -> list[tuple[int, Recipe]]:
        """The requests of one part: number and recipe. Raises ValueError for what is none."""
        return [from_request(item) for item in getattr(self, part)]


def inference_file(index: int) -> str:
    """The name of an inference's file while it is unused."""
    return f"inference-{index:04d}.bin"


def used_file(index: int) -> str:
    """Its name from the moment on that it is used."""
    return f"used-{index:04d}.bin"


def numbered(start: int, recipes: tuple[Recipe, ...]) -> list[Any]:
    """Recipes as requests with consecutive numbers."""
    return [as_request(start + index, recipe) for index, recipe in enumerate(recipes)]


class Material:
    """One party's folder, opened for a run.

    Raises UserError when it is missing, damaged, of another version, or another party's.
    """

    def __init__(self, folder: Path, rank: int):
        self.folder = folder
        try:
            self.about = About.model_validate_json((folder / ABOUT).read_text(encoding="utf-8"))
            self.setup, self.plan, self.spare = (self.about.recipes(p) for p in ("setup", "plan", "spare"))
        except FileNotFoundError:
            raise UserError(
                f"There is no material in {folder}: name this party's folder that mpcbench preprocess wrote."
            ) from None
        except (OSError, ValueError, ValidationError) as error:
            raise UserError(
                f"{folder / ABOUT} is damaged ({type(error).__name__}): run mpcbench preprocess again."
            ) from None
        if self.about.version != mpcbench.__version__:
            raise UserError(
                f"The material in {folder} was made by mpcbench {self.about.version}, this is "
                f"{mpcbench.__version__}: run mpcbench preprocess again."
            )
        if self.about.rank != rank:
            raise UserError(
                f"{folder} holds the material of party {self.about.rank}, not of party {rank}: "
                f"name party{rank}'s."
            )

    def check(self, graph_sha256: str, protocol_sha256: str, tokens: int) -> None:
        """Raise UserError unless the material was made for exactly this graph, protocol and length."""
        for found, wanted, what in (
            (self.about.graph_sha256, graph_sha256, "another graph"),
            (self.about.protocol_sha256, protocol_sha256, "another protocol"),
            (self.about.tokens, tokens, f"{self.about.tokens} tokens instead of {tokens}"),
        ):
            if found != wanted:
                raise UserError(
                    f"The material in {self.folder} was made for {what}: run mpcbench preprocess for this."
                )

    def first_unused(self) -> int:
        """The first inference after all that have been used."""
        used = [int(file.stem.removeprefix("used-")) for file in self.folder.glob("used-*.bin")]
        return max(used, default=-1) + 1

    def open_setup(self) -> tuple[bytes, torch.Tensor]:
        """The set-up's seed and corrections, flat."""
        return self._read(SETUP, SETUP)

    def use(self, index: int) -> tuple[bytes, torch.Tensor]:
        """Seed and corrections of an inference, which from now on is used, whatever happens.

        Raises UserError when it has been used already, and when the file is not what was written.
        """
        name, used = inference_file(index), used_file(index)
        try:
            os.rename(self.folder / name, self.folder / used)
        except FileNotFoundError:
            raise UserError(
                f"Inference {index} of the material in {self.folder} has been used already, and nothing is "
                "used twice: run mpcbench preprocess for more."
            ) from None
        _make_lasting(self.folder)
        seed, corrections = self._read(name, used)
        os.truncate(self.folder / used, 0)
        return seed, corrections

    def seconds(self, index: int) -> float:
        """The dealer's processor seconds for an inference."""
        return self.about.files[inference_file(index)].dealer_seconds

    def bytes(self, name: str) -> int:
        """What a file takes on disk, by its first name."""
        return self.about.files[name].bytes

    def _read(self, name: str, path: str) -> tuple[bytes, torch.Tensor]:
        info = self.about.files.get(name)
        requests = self.setup if name == SETUP else [*self.plan, *self.spare]
        words = sum(recipe.value_words() for _, recipe in requests) if self.about.rank == 1 else 0
        file = self.folder / path
        try:
            whole = info is not None and file.stat().st_size == info.bytes == SEED_BYTES + 8 * words
            content = bytearray(info.bytes) if whole else bytearray()
            with file.open("rb") as stream:
                whole = whole and stream.readinto(content) == len(content)
        except FileNotFoundError:
            whole = False
        if not whole or hashlib.sha256(content).hexdigest() != info.sha256:
            raise UserError(f"{file} is not what was written there: run mpcbench preprocess again.")
        corrections = torch.frombuffer(content, dtype=torch.int64, offset=SEED_BYTES) if words else _NOTHING
        return bytes(content[:SEED_BYTES]), corrections


_NOTHING = torch.empty(0, dtype=torch.int64)


def _make_lasting(folder: Path) -> None:
    """Have a rename on the disk before anything follows from it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_about(folder: Path, about: About) -> None:
    """Write ``material.json``."""
    text = json.dumps(about.model_dump(mode="json"), indent=None)
    (folder / ABOUT).write_text(text, encoding="utf-8")
