"""The dealer ahead of time: writes material for N inferences into one folder a party, and is then gone."""

from __future__ import annotations

import hashlib
import secrets
import time
from pathlib import Path
from typing import Any, BinaryIO

import mpcbench
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.paths import whole_folder
from mpcbench.progress import Progress, silent
from mpcbench.secure import trig
from mpcbench.secure.protocol import Protocol
from mpcbench.secure.randomness.dealing import correction, from_request
from mpcbench.secure.randomness.material import (
    SETUP,
    About,
    FileInfo,
    inference_file,
    numbered,
    write_about,
)
from mpcbench.secure.randomness.prg import fresh_seed
from mpcbench.secure.randomness.recipe import Kept
from mpcbench.secure.rehearsal import rehearse


def preprocess(
    graph: SecureGraph, protocol: Protocol, tokens: int, inferences: int, out: Path,
    progress: Progress = silent,
) -> tuple[About, About]:  # fmt: skip
    """Write ``out/party0`` and ``out/party1``, which appear together or not at all; returns what is in them.

    Raises UserError when ``out`` exists already.
    """
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out or remove it.")
    demand = rehearse(graph, protocol, tokens)
    setup = numbered(0, demand.setup)
    plan = numbered(len(setup), demand.inference)
    spare = numbered(len(setup) + len(plan), demand.spare)
    with whole_folder(out) as part:
        dealer = _Dealer(part, {SETUP: setup}, progress)
        dealer.requests |= {inference_file(index): plan + spare for index in range(inferences)}
        infos = dealer.run()
        material = secrets.token_hex(16)
        both = tuple(
            About(
                version=mpcbench.__version__, material=material, rank=rank, graph_sha256=graph.sha256(),
                protocol_sha256=protocol.sha256(), tokens=tokens, inferences=inferences,
                setup=setup, plan=plan, spare=spare, files=infos[rank],
            )
            for rank in (0, 1)
        )  # fmt: skip
        for rank, about in enumerate(both):
            write_about(part / f"party{rank}", about)
    return both


class _Dealer:
    """Writes every file of both parties; remembers the masks of weights between them."""

    def __init__(self, out: Path, requests: dict[str, list[Any]], progress: Progress):
        self.folders = [out / f"party{rank}" for rank in (0, 1)]
        for folder in self.folders:
            folder.mkdir(mode=0o700)
        self.requests, self.progress = requests, progress
        self.kept = Kept()

    def run(self) -> tuple[dict[str, FileInfo], dict[str, FileInfo]]:
        trig.prepare()
        infos: tuple[dict[str, FileInfo], dict[str, FileInfo]] = ({}, {})
        for done, (name, requests) in enumerate(self.requests.items()):
            self.progress("dealing", done, len(self.requests))
            for rank, info in enumerate(self._write(name, requests)):
                infos[rank][name] = info
        self.progress("dealing", len(self.requests), len(self.requests))
        return infos

    def _write(self, name: str, requests: list[Any]) -> list[FileInfo]:
        started = time.process_time()
        seeds = (fresh_seed(), fresh_seed())
        with (self.folders[0] / name).open("xb") as first, (self.folders[1] / name).open("xb") as second:
            files = [_Hashed(first), _Hashed(second)]
            for file, seed in zip(files, seeds, strict=True):
                file.write(memoryview(seed))
            for item in requests:
                made = correction(seeds, *from_request(item), self.kept)
                if made.numel():
                    files[1].write(memoryview(made.numpy()).cast("B"))
        seconds = time.process_time() - started
        return [
            FileInfo(bytes=file.bytes, sha256=file.digest.hexdigest(), dealer_seconds=seconds)
            for file in files
        ]


class _Hashed:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.bytes = file, hashlib.sha256(), 0

    def write(self, view: memoryview) -> None:
        self.file.write(view)
        self.digest.update(view)
        self.bytes += view.nbytes
