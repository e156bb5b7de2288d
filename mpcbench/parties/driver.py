"""The model owner's side of runs with a client elsewhere: hand over shares and orders, run party 0 here."""

from __future__ import annotations

import json
import math
import queue
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from pydantic import ValidationError

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.hosts import Hosts
from mpcbench.parties.launcher import LocalRun, needs_dealer, party_command, read_results
from mpcbench.parties.network import available, load_link
from mpcbench.parties.orders import Order, Report, greet_server
from mpcbench.parties.party import Outcome, party_name
from mpcbench.parties.process import DEALER, Child, Events, Started, listening, watch
from mpcbench.parties.server import failure_of
from mpcbench.parties.site import address_of, credentials_for, protection
from mpcbench.parties.transfer import send_folder
from mpcbench.progress import Progress, silent
from mpcbench.secure.meeting import connect
from mpcbench.secure.protocol import load_protocol
from mpcbench.secure.randomness.service import attend, dismiss
from mpcbench.secure.tls import ROLES
from mpcbench.secure.transport import Link

STOP_SECONDS = 10.0


class RemoteRuns:
    """Runs with the client's server and the dealer's service that ``hosts`` names; a context manager.

    Leaving it without an exception says goodbye to both, which then end. ``certs`` is the model owner's
    folder of certificates. Raises UserError when ``hosts`` leaves out what is needed, and PeerError when
    nobody is there.
    """

    def __init__(
        self, hosts: Hosts, certs: Path | None = None, insecure: bool = False, wait: float = 120.0
    ):  # fmt: skip
        self.meet, client, dealer = (address_of(hosts, role) for role in ROLES)
        self.dealer_at = "{}:{}".format(*dealer)
        credentials = credentials_for(hosts.names(), "party0", certs, insecure)
        self.encrypted = credentials is not None
        self.protection = protection(certs, insecure)
        self.client = connect(*client, party_name(1), wait, wait, credentials, "party1")
        greet_server(self.client)
        self.dealer = connect(*dealer, DEALER, wait, wait, credentials, "dealer")
        attend(self.dealer)
        self.client.patience = self.dealer.patience = math.inf  # a checkpoint may take hours to be made

    def __enter__(self) -> RemoteRuns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.client.tell({"bye": True})
            dismiss(self.dealer)
        self.client.close()
        self.dealer.close()

    def run(self, run: LocalRun, progress: Progress = silent) -> Outcome:
        """As :func:`~mpcbench.parties.launcher.run_here`, with the client and the dealer elsewhere."""
        run = replace(run, protection=self.protection)
        sharing = json.loads((run.shares / "party1" / "share.json").read_text(encoding="utf-8"))["sharing"]
        meet = "{}:{}".format(*self.meet)
        dealer = self.dealer_at if needs_dealer(run) else None
        order = _order(run, sharing, meet, dealer)
        self._deliver(run.shares / "party1", sharing)
        started: list[Started] = []
        events: Events = queue.Queue()
        with tempfile.TemporaryDirectory(prefix="mpcbench-run-") as scratch:
            try:
                command = party_command(run, 0, meet, dealer, Path(scratch))
                started.append(Child(party_name(0), command, events))
                listening(started[0], events)
                client = RemoteClient(self.client, order, events)
                started.append(client)
                watch(started, events, progress)
            finally:
                for process in started:
                    process.end()
            return Outcome(read_results(Path(scratch) / "result0.json"), client.logits)

    def _deliver(self, folder: Path, sharing: str) -> None:
        """Hand the client its share folder, unless it has it already."""
        self.client.tell({"sharing": sharing})
        if self.client.hear().get("send"):
            send_folder(self.client, folder)


def _order(run: LocalRun, sharing: str, rendezvous: str, dealer: str | None) -> Order:
    if run.network.name not in available() or run.network != load_link(run.network.name):
        raise UserError("With --hosts every party has to know the link: choose a packaged --network.")
    if run.backend == "namespaces":
        raise UserError("Namespaces are of one machine: with --hosts choose another --link-backend.")
    return Order(
        sharing=sharing, protocol=load_protocol(run.protocol, run.provider).settings,
        tokens=run.tokens[0].tolist(), repetitions=run.repetitions, warmups=run.warmups,
        threads=run.threads, rendezvous=rendezvous, dealer=dealer, network=run.network.name,
        backend=run.backend,
    )  # fmt: skip


class RemoteClient(Started):
    """Party 1 of a run, at the other end of ``link``; a thread reads what it says."""

    def __init__(self, link: Link, order: Order, events: Events):
        self.name = party_name(1)
        self.link, self.events = link, events
        self.logits: torch.Tensor | None = None
        self._ended: int | None = None
        self._failure: Exception | None = None
        link.tell({"run": order.model_dump()})
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        return self._ended

    def failure(self) -> Exception:
        return self._failure or RuntimeError(f"{self.name} ended with code {self._ended}")

    def end(self) -> None:
        """Ask the server to end the run, if it has not, and wait until it has."""
        if self._ended is None:
            with suppress(PeerError):  # it may have gone, which the thread notices as well
                self.link.tell({"stop": True})
        self._thread.join(timeout=STOP_SECONDS)

    def _read(self) -> None:
        code = PeerError.exit_code
        try:
            while (message := self.link.hear()).get("event") != "ended":
                self.events.put((self.name, message))
            code = self._finish(message)
        except PeerError as error:
            self._failure = error
        except ValidationError:
            self._failure = PeerError(f"{self.name} sent a malformed report: look at its own output.")
        finally:
            self._ended = code
            self.events.put((self.name, None))

    def _finish(self, message: dict[str, Any]) -> int:
        report = Report.model_validate(message)
        if report.exit_code != 0:
            self._failure = failure_of(message)
            return report.exit_code
        self.logits = torch.empty(report.logits)
        self.link.exchange([], [memoryview(self.logits.numpy()).cast("B")])
        return 0
