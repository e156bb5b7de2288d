"""A run whose parties write down every payload that they receive, from the peer and from the dealer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from mpcbench.secure.communicator import LinkCommunicator
from tests.parties.faults import ROLES, Run, free_port

PATIENCE = 240


class Scope(NamedTuple):
    """When a message came: phase, module and operator of the receiver's ledger."""

    phase: str
    module: str
    operator: str


@dataclass(frozen=True)
class Message:
    """One payload, and who it is from: ``peer`` or ``dealer``."""

    sender: str
    scope: Scope
    body: bytes

    @property
    def words(self) -> np.ndarray:
        """As 64-bit words, without a rest that is none: elements are sent in 3, 6, 7 or 8 bytes."""
        return np.frombuffer(self.body[: len(self.body) // 8 * 8], dtype=np.int64)


def install(path: Path) -> Any:
    """In a party's process: record from now on; returns what writes it all to ``path``."""
    import mpcbench.secure.dealt as dealt

    messages: list[tuple[str, list[str], str]] = []
    transmit, ask = LinkCommunicator._transmit, dealt.ask

    def recording_transmit(self: LinkCommunicator, out: list, into: list) -> None:
        transmit(self, out, into)
        scope = self.ledger._stack[-1]
        if into:
            body = b"".join(tensor.numpy().tobytes() for tensor in into)
            messages.append(("peer", [scope.phase, scope.module, scope.operator], body.hex()))

    def recording_ask(link: Any, requests: list, sizes: list[int]) -> Any:
        answer = ask(link, requests, sizes)
        for (_, kind, _), words in zip(requests, answer[0], strict=True):
            messages.append(("dealer", ["offline", "corrections", kind], words.numpy().tobytes().hex()))
        return answer

    LinkCommunicator._transmit, dealt.ask = recording_transmit, recording_ask
    return lambda: path.write_text(json.dumps(messages))


def recorded_run(
    folder: Path, shares: Path, protocol: str, tokens: list[int], *more: str
) -> dict[str, list[Message]]:
    """One inference with a dealer, all given ``more`` words; what each party received, by role."""
    folder.mkdir()
    run = Run(folder, (free_port(), free_port()))
    meet, dealt = (f"127.0.0.1:{port}" for port in run.ports)
    asked = {"tokens": torch.tensor([tokens]), "stop": torch.zeros(0, dtype=torch.long)}
    save_file(asked, folder / "tokens.safetensors")
    usual = ("--wait", str(PATIENCE), "--timeout", "60", *more)
    try:
        run.start("dealer", "dealer", "--rendezvous", dealt, *usual)
        for rank, role in enumerate(ROLES[:2]):
            words = ["party", "--rank", str(rank), "--shares", str(shares / role), "--protocol", protocol,
                     "--provider", "dealer", "--rendezvous", meet, "--dealer", dealt, "--threads", "1",
                     *usual]  # fmt: skip
            if rank == 1:
                words += ["--token-ids", str(folder / "tokens.safetensors")]
            run.start(role, *words, record=folder / f"{role}.json")
        for role in ROLES:
            run.processes[role].join(timeout=PATIENCE)
            assert run.processes[role].exitcode == 0, run.log(role)
    finally:
        run.end()
    return {role: _read(folder / f"{role}.json") for role in ROLES[:2]}


def _read(path: Path) -> list[Message]:
    return [
        Message(sender, Scope(*scope), bytes.fromhex(body))
        for sender, scope, body in json.loads(path.read_text())
    ]
