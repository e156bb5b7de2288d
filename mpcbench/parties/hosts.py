"""Where the processes of a run are: the addresses of both parties and of the dealer, from a short YAML.

::

    parties:
      - {rank: 0, host: 10.0.0.1, port: 29500}
      - {rank: 1, host: 10.0.0.2}
    dealer: {host: 10.0.0.3, port: 29501}

Party 0 and the dealer listen at their address, party 1 only connects and needs no port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError

Port = Annotated[int, Field(ge=1, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dealer(_Part):
    """Where ``mpcbench dealer`` listens."""

    host: str
    port: Port


class PartyHost(_Part):
    """Where a party runs, and at which port it listens."""

    rank: Literal[0, 1]
    host: str
    port: Port | None = None


class Hosts(_Part):
    """The whole file. ``dealer`` is None for a protocol whose provider is another."""

    parties: tuple[PartyHost, PartyHost]
    dealer: Dealer | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> Hosts:
        if {party.rank for party in self.parties} != {0, 1}:
            raise ValueError("one party has rank 0 and the other rank 1")
        if self.party(0).port is None:
            raise ValueError("party 0 listens and needs a port")
        return self

    def party(self, rank: int) -> PartyHost:
        """The party of this rank."""
        return next(party for party in self.parties if party.rank == rank)

    @property
    def rendezvous(self) -> tuple[str, int]:
        """Host and port where the parties meet."""
        owner = self.party(0)
        return owner.host, owner.port

    def names(self) -> list[str]:
        """All hosts, in words as they were given."""
        return [party.host for party in self.parties] + ([self.dealer.host] if self.dealer else [])


def read_hosts(path: Path) -> Hosts:
    """Read and check the file; raises UserError naming the field that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise UserError(f"Cannot read the hosts in {path} ({reason}): name a YAML file.") from None
    try:
        return Hosts.model_validate(parse_yaml(text, str(path)))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {fault['msg']}: see docs/hosts.md for an example.") from None


def remote(hosts: Iterable[str]) -> list[str]:
    """Those of ``hosts`` that are not this machine's loopback, so that others can be on the line.

    A name counts as remote unless it is ``localhost``: where it leads is not ours to guess.
    """
    return [host for host in hosts if not _is_loopback(host)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
