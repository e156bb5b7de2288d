"""The client's server: runs party 1 of one run after another, for a model owner that compares.

It holds a link to the model owner for as long as that compares. Over it come orders and the client's shares
(never the model owner's), and progress, logits and failures go back. The parties of a run meet on a link of
their own, each a fresh process, so that a measurement here is one like any other.
"""

from __future__ import annotations

import json
import queue
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.launcher import LOGITS, LocalRun, party_command, write_tokens
from mpcbench.parties.network import LOOPBACK, available, load_link
from mpcbench.parties.orders import Order, Report, greet_server, read_order
from mpcbench.parties.party import party_name
from mpcbench.parties.process import Child, Events
from mpcbench.parties.transfer import receive_folder
from mpcbench.secure.transport import Link

POLL_SECONDS = 0.2
MAX_SENTENCE = 4000


class ClientServer:
    """Serves one model owner over ``link`` until it says goodbye; ``scratch`` takes shares and results.

    ``protection`` are a party's options for its connections, see :func:`mpcbench.parties.site.protection`.
    """

    def __init__(self, link: Link, scratch: Path, protection: tuple[str, ...] = ()):
        self.link, self.scratch, self.protection = link, scratch, protection
        self.sharing = ""

    def serve(self) -> int:
        """Returns how many runs there were. Raises PeerError when the model owner goes without a word."""
        greet_server(self.link)
        runs = 0
        while True:
            message = self.link.hear()
            if message.get("bye"):
                return runs
            if message.get("stop"):
                continue  # the run that it concerns has ended by itself
            if isinstance(message.get("sharing"), str):
                self._take_shares(message["sharing"])
            else:
                self._run(read_order(message, self.link.peer))
                runs += 1

    @property
    def _shares(self) -> Path:
        return self.scratch / "shares"

    def _take_shares(self, sharing: str) -> None:
        """Receive the client's folder of a sharing, unless it is here from the run before."""
        self.link.tell({"send": sharing != self.sharing})
        if sharing == self.sharing:
            return
        self.sharing = ""
        shutil.rmtree(self._shares, ignore_errors=True)
        (self._shares / "party1").mkdir(parents=True)
        receive_folder(self.link, self._shares / "party1")
        self.sharing = sharing

    def _run(self, order: Order) -> None:
        events: Events = queue.Queue()
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            folder = Path(name)
            child = Child(party_name(1), self._command(order, folder), events)
            try:
                report = self._follow(child, events)
                logits = load_file(folder / LOGITS)["logits"] if report.exit_code == 0 else None
            finally:
                child.end()
        self._answer(report, logits)

    def _command(self, order: Order, folder: Path) -> list[str]:
        # JSON is YAML, and a protocol file is checked wherever it is read.
        protocol = folder / "protocol.yaml"
        protocol.write_text(json.dumps(order.protocol), encoding="utf-8")
        tokens = torch.tensor([order.tokens])
        counts = (order.repetitions, order.warmups, order.threads)
        network = load_link(order.network if order.network in available() else LOOPBACK)
        run = LocalRun(
            self._shares,
            str(protocol),
            tokens,
            *counts,
            network=network,
            backend=order.backend,
            protection=self.protection,
        )
        write_tokens(run, folder)
        return party_command(run, 1, order.rendezvous, order.dealer, folder)

    def _follow(self, child: Child, events: Events) -> Report:
        """Pass progress on until the party has ended, or is told to."""
        while True:
            try:
                _, event = events.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if self._told_to_stop():
                    return Report(exit_code=PeerError.exit_code, kind="peer", sentence="stopped.")
                continue
            if event is None:
                return _report(child)
            if event.get("event") in ("progress", "stage"):
                self.link.tell(event)

    def _told_to_stop(self) -> bool:
        if not self.link.pending():
            return False
        return bool(self.link.hear().get("stop"))  # PeerError when the model owner has gone

    def _answer(self, report: Report, logits: torch.Tensor | None) -> None:
        if logits is None:
            self.link.tell(report.model_dump())
            return
        self.link.tell({**report.model_dump(), "logits": logits.numel()})
        self.link.exchange([memoryview(logits.float().contiguous().numpy()).cast("B")], [])


def _report(child: Child) -> Report:
    code = child.process.wait()
    if code == 0:
        return Report(exit_code=0)
    failure = child.failure()
    kinds = (("peer", PeerError), ("user", UserError), ("defect", Exception))
    kind = next(name for name, type_ in kinds if isinstance(failure, type_))
    return Report(exit_code=code, kind=kind, sentence=str(failure)[-MAX_SENTENCE:])


def failure_of(message: dict[str, Any]) -> Exception:
    """The exception that a report of a bad end stands for, at the model owner."""
    report = Report.model_validate(message)
    words = "".join(c for c in report.sentence if c.isprintable() or c == "\n")
    kinds = {"user": UserError, "peer": PeerError}
    return kinds.get(report.kind, RuntimeError)(words)
