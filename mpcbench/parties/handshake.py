"""Who is there, and do both mean the same run? Checked before anything secret moves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.transport import Link

MAX_REPETITIONS = 10_000


@dataclass(frozen=True)
class Hello:
    """What a party says of itself. The client (party 1) fills in the workload, the model owner leaves
    it at zero and follows. ``new_tokens`` asks for so many tokens of text, 0 for one forward pass;
    ``fixed_seeds`` is 0 but in tests, see :func:`mpcbench.secure.randomness.prg.fix_seeds`; ``arithmetic`` is
    :func:`mpcbench.secure.trig.fingerprint`."""

    version: str
    rank: int
    sharing: str
    graph_sha256: str
    protocol_sha256: str
    tokens: int = 0
    repetitions: int = 0
    warmups: int = 0
    network: str = ""
    new_tokens: int = 0
    private_logits: bool = False
    fixed_seeds: int = 0
    arithmetic: str = ""


def greet(link: Link, mine: Hello, max_tokens: int) -> Hello:
    """Exchange greetings; returns the client's, which holds the workload.

    Raises PeerError with one sentence that says what differs, at both parties.
    """
    theirs = _read(link.swap_control(asdict(mine)), link.peer)
    complaint = _difference(mine, theirs, link.peer) or _workload(mine, theirs, max_tokens)
    if complaint:
        link.fail(complaint)
        raise PeerError(complaint)
    return mine if mine.rank == 1 else theirs


def _read(message: dict[str, Any], peer: str) -> Hello:
    kinds = {"version": str, "rank": int, "sharing": str, "graph_sha256": str, "protocol_sha256": str,
             "tokens": int, "repetitions": int, "warmups": int, "network": str, "new_tokens": int,
             "private_logits": bool, "fixed_seeds": int, "arithmetic": str}  # fmt: skip
    if set(message) != set(kinds) or any(type(message[name]) is not kind for name, kind in kinds.items()):
        raise PeerError(f"{peer} greets in another format: install the same mpcbench on both sides.")
    return Hello(**message)


def _difference(mine: Hello, theirs: Hello, peer: str) -> str | None:
    if theirs.version != mine.version:
        return f"{peer} runs mpcbench {theirs.version}, this party {mine.version}: install the same version."
    if theirs.rank == mine.rank:
        return f"both parties are party {mine.rank}: give one --rank 0 and the other --rank 1."
    if theirs.graph_sha256 != mine.graph_sha256:
        return "the two share folders are of different models: use party0 and party1 of one export."
    if theirs.sharing != mine.sharing:
        return "the two share folders are of different exports: use party0 and party1 of one export."
    if theirs.protocol_sha256 != mine.protocol_sha256:
        return "the parties use different protocol files: give both the same --protocol."
    if theirs.network != mine.network:
        return "the parties are to emulate different links: give both the same --network."
    if theirs.fixed_seeds != mine.fixed_seeds:
        return "the parties take their seeds from elsewhere: fix all seeds or none."
    if theirs.arithmetic != mine.arithmetic:
        return "the two machines round cosines differently: install the same version of numba on both."
    return None


def _workload(mine: Hello, theirs: Hello, max_tokens: int) -> str | None:
    client = mine if mine.rank == 1 else theirs
    if not 2 <= client.tokens <= max_tokens:
        return f"the prompt has {client.tokens} tokens, the model takes 2 to {max_tokens}: change the prompt."
    if client.new_tokens < 0 or client.tokens + client.new_tokens > max_tokens + 1:
        return too_long(client.tokens, client.new_tokens, max_tokens)
    if not (1 <= client.repetitions <= MAX_REPETITIONS and 0 <= client.warmups <= MAX_REPETITIONS):
        return f"repetitions must be 1 to {MAX_REPETITIONS} and warm-ups 0 to {MAX_REPETITIONS}."
    return None


def too_long(tokens: int, new_tokens: int, max_tokens: int) -> str:
    """What to say when a prompt and what is to follow it exceed the model's positions."""
    return (
        f"the prompt has {tokens} tokens and the model has {max_tokens} positions: "
        f"ask for 1 to {max_tokens + 1 - tokens} new tokens, not {new_tokens}."
    )


def address(text: str) -> tuple[str, int]:
    """``HOST:PORT`` (or ``[v6]:PORT``) in two; raises UserError when it is neither."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise UserError(f"{text!r} is not an address: write HOST:PORT, such as 127.0.0.1:29500.")
    return host, int(port)
