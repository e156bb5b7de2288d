"""What every record says of itself: which call made it, under which protocol, and who may know what."""

from __future__ import annotations

import secrets
import shlex
import sys
from datetime import datetime, timezone

from mpcbench.records.schema import ProtocolInfo
from mpcbench.secure.protocol import PROVIDERS, Protocol

RANDOMNESS = {
    "first-party": "party 0, CrypTen's trusted first party",
    "dealer": "a dealer, a process of its own that colludes with neither party",
}
AHEAD = "a dealer, a process of its own that colludes with neither party, ahead of time into files"
SECURE_PROVIDERS = frozenset({"dealer"})
EMBEDDING_NOTE = {
    "client": "The embedding table is public to the client, which looks its own tokens up; for a model with "
    "tied embeddings this shows it the LM head's weights before the last norm's gain.",
    "private": "The embedding is looked up under MPC: a one-hot row a token times the secret table.",
}


def masks(fixed_seeds: int = 0) -> str:
    """Where masks come from: what a test had all seeds follow from, or 0."""
    seeds = f"fixed seeds, made of {fixed_seeds}" if fixed_seeds else "seeds from the operating system"
    return f"Masks come from AES-128 in counter mode, with {seeds}."


def called() -> dict[str, str]:
    """A fresh id, the time, and the command line, as fields of a record."""
    return {
        "run_id": secrets.token_hex(8),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "mpcbench " + shlex.join(sys.argv[1:]),
    }


def protocol_info(protocol: Protocol, ahead: bool = False) -> ProtocolInfo:
    """The whole protocol file, and what its provider means for trust; ``ahead``: a dealer wrote files."""
    assert protocol.provider in PROVIDERS
    return ProtocolInfo(
        name=protocol.name,
        sha256=protocol.sha256(),
        settings=protocol.settings,
        provider=protocol.provider,
        provider_is_secure=protocol.provider in SECURE_PROVIDERS,
        randomness=AHEAD if ahead else RANDOMNESS[protocol.provider],
        threat_model=protocol.threat_model,
        ring_bits=protocol.fixed_point.ring_bits,
        fraction_bits=protocol.fixed_point.fraction_bits,
    )
