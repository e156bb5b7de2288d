"""Cut a graph's weights into additive shares in Z_2^64, one folder a party, and read them back.

A folder holds ``graph.json`` (public), ``shares.safetensors`` (this party's share of every secret
tensor, int64), ``public.safetensors`` (RoPE frequencies; the embedding table too where the client may
see it) and ``share.json`` (whose folder it is, which other folder it belongs with, and the hashes of the
tensors' files). One folder alone is uniformly random bits and reveals no weight; both together are the
weights.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.paths import file_sha256

PARTIES = 2
FORMAT = 2
TENSORS = ("shares.safetensors", "public.safetensors")


@dataclass(frozen=True)
class ShareFolder:
    """One party's folder, read: the graph, its share of the secret tensors, and the public tensors."""

    rank: int
    sharing: str
    fraction_bits: int
    graph: SecureGraph
    shares: dict[str, torch.Tensor]
    public: dict[str, torch.Tensor]


def encode(values: torch.Tensor, fraction_bits: int) -> torch.Tensor:
    """Fixed point: nearest multiple of 2^-f, as int64. Raises UserError when a value does not fit."""
    scaled = values.double() * 2.0**fraction_bits
    if not torch.isfinite(scaled).all() or scaled.abs().max() >= 2.0**62:
        raise UserError("A weight is infinite or too large for 64-bit fixed point: check the checkpoint.")
    return scaled.round().long()


def uniform(shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform int64 from the operating system's generator: masks must not come from a simulation PRNG."""
    words = bytearray(os.urandom(8 * math.prod(shape)))
    return torch.frombuffer(words, dtype=torch.int64).reshape(shape)


def write_shares(
    graph: SecureGraph, weights: Mapping[str, torch.Tensor], out: Path, fraction_bits: int,
    progress: Callable[[int], None] = lambda done: None,
) -> str:  # fmt: skip
    """Write ``out/party0`` and ``out/party1``; returns the sharing's id. ``progress`` gets elements done.

    The folders appear whole or not at all. Raises UserError when ``out`` holds shares already.
    """
    folders = [out / f"party{rank}" for rank in range(PARTIES)]
    taken = [folder for folder in folders if folder.exists()]
    if taken:
        raise UserError(f"{taken[0]} exists already: choose another --out or remove it.")
    parts = [folder.with_name(folder.name + ".part") for folder in folders]
    sharing = secrets.token_hex(16)
    try:
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        _write_tensors(graph, weights, parts, fraction_bits, progress)
        for rank, part in enumerate(parts):
            (part / "graph.json").write_text(graph.to_json(), encoding="utf-8")
            about = {
                "format": FORMAT, "rank": rank, "sharing": sharing,
                "graph_sha256": graph.sha256(), "fraction_bits": fraction_bits,
                "sha256": {name: file_sha256(part / name) for name in TENSORS},
            }  # fmt: skip
            (part / "share.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        for part, folder in zip(parts, folders, strict=True):
            part.rename(folder)
    except BaseException:
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
        raise
    return sharing


def folder_bytes(graph: SecureGraph) -> tuple[int, int]:
    """Bytes of the tensors in each party's folder: eight an element of a share, four a public one."""
    shared = sum(8 * math.prod(weight.shape) for weight in graph.weights.values() if weight.secret)
    return tuple(
        shared + sum(4 * math.prod(graph.weights[name].shape) for name in _public_names(graph, rank))
        for rank in range(PARTIES)
    )


def _public_names(graph: SecureGraph, rank: int) -> list[str]:
    """The client's embedding table stays with the client, party 1; the model owner has its own."""
    tables = {name for node in graph.nodes if node.op == "embedding" for name in node.weights}
    return [
        name for name, weight in graph.weights.items()
        if not weight.secret and (rank == 1 or name not in tables)
    ]  # fmt: skip


def _write_tensors(
    graph: SecureGraph, weights: Mapping[str, torch.Tensor], parts: list[Path], fraction_bits: int,
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    shares: list[dict[str, torch.Tensor]] = [{}, {}]
    done = 0
    for name, declared in graph.weights.items():
        if declared.secret:
            shares[0][name] = uniform(declared.shape)
            # Wraps around modulo 2^64, which is what makes each share alone uniform.
            shares[1][name] = encode(weights[name], fraction_bits) - shares[0][name]
        done += weights[name].numel()
        progress(done)
    for rank, part in enumerate(parts):
        public = {name: weights[name] for name in _public_names(graph, rank)}
        for name, tensors in zip(TENSORS, (shares[rank], public), strict=True):
            save_file(tensors, part / name)


def read_shares(folder: Path, rank: int | None = None) -> ShareFolder:
    """Read one party's folder. Raises UserError when it is missing, damaged, or another party's."""
    graph = SecureGraph.read(folder / "graph.json")
    try:
        about = json.loads((folder / "share.json").read_text(encoding="utf-8"))
        found, sharing, bits = int(about["rank"]), str(about["sharing"]), int(about["fraction_bits"])
        matches = about["graph_sha256"] == graph.sha256()
        shares, public = (_load(folder / name, about["sha256"][name]) for name in TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder} is not a whole share folder ({error}): export the model again.") from None
    if rank is not None and found != rank:
        raise UserError(
            f"{folder} holds the shares of party {found}, not of party {rank}: name party{rank}'s."
        )
    wrong = [
        name for name, declared in graph.weights.items()
        if declared.secret and (name not in shares or tuple(shares[name].shape) != tuple(declared.shape)
                                or shares[name].dtype != torch.int64)
    ]  # fmt: skip
    if not matches or wrong:
        raise UserError(f"{folder} mixes the files of two exports: export the model again.")
    return ShareFolder(found, sharing, bits, graph, shares, public)


def _load(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    if file_sha256(path) != sha256:
        raise ValueError(f"{path.name} is damaged, its hash is not that of the export")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
