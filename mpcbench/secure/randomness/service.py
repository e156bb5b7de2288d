"""A dealer for one run after another, as long as the model owner that compares holds a line to it."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.secure.randomness.server import WHO, admit, rank_of, serve
from mpcbench.secure.transport import Link

HELLO_SECONDS = 10.0
"""How long a visitor may take to say who it is; others wait meanwhile."""
POLL_SECONDS = 0.5


def attend(link: Link) -> None:
    """At the model owner: ask a dealer to stay until :func:`dismiss`. Raises PeerError."""
    link.tell({"attend": True, "version": mpcbench.__version__})
    if link.hear() != {"attending": True}:
        raise PeerError(f"{link.peer} does not stay for several runs: start `mpcbench serve dealer` there.")


def dismiss(link: Link) -> None:
    """At the model owner: nothing more will be asked for."""
    link.tell({"done": True})


class Service:
    """Deals to whoever comes to the listening ``server``, two parties at a time.

    ``accept`` makes a link of the next connection, and may raise PeerError for one that is none of ours.
    ``say`` gets a line for every run.
    """

    def __init__(self, server: socket.socket, accept: Callable[[], Link], say: Callable[[str], None]):
        self.server, self.accept, self.say = server, accept, say
        self.owner: Link | None = None
        self.visitors: dict[int, tuple[Link, dict]] = {}
        self.silent: list[Link] = []
        """Have come and not yet said who they are, as a party that waits for the other one."""
        self.runs = 0

    def run(self, wait: float) -> int:
        """Until the model owner says that it is done; returns the number of runs.

        Raises PeerError when no model owner comes within ``wait`` seconds, or goes without a word.
        """
        waited = 0.0
        while True:
            watched = [self.server, *([self.owner.connection] if self.owner else [])]
            watched += [link.connection for link in self.silent]
            ready, _, _ = select.select(watched, [], [], POLL_SECONDS)
            self._hear_out([link for link in self.silent if link.connection in ready])
            if self.owner is not None and self.owner.connection in ready:
                if self.owner.pending() and self.owner.hear().get("done"):
                    return self.runs
            elif self.server in ready:
                self._visit()
            elif self.owner is None:
                waited += POLL_SECONDS
                if waited >= wait:
                    raise PeerError(f"no model owner came within {wait:g} s: start `mpcbench compare` there.")

    def _visit(self) -> None:
        """Let somebody in; a connection that says nothing sensible is dropped, such as a port scan."""
        with suppress(PeerError):
            self.silent.append(self.accept())

    def _hear_out(self, links: list[Link]) -> None:
        """Hear who they are, of those that say it now."""
        for link in links:
            try:
                said = link.pending()
            except PeerError:
                self.silent.remove(link)
                link.close()
                continue
            if said:
                self.silent.remove(link)
                self._take(link)

    def _take(self, link: Link) -> None:
        patience, link.patience = link.patience, HELLO_SECONDS
        try:
            hello = link.hear()
        except PeerError:
            link.close()
            return
        link.patience = patience
        if hello.get("attend"):
            self._attend(link, hello)
            return
        rank = rank_of(hello)
        if rank is None:
            link.fail(WHO)
            link.close()
            return
        if rank in self.visitors:
            self.visitors.pop(rank)[0].close()  # of a run that has failed
        self.visitors[rank] = (link, hello)
        if len(self.visitors) == 2:
            self._deal()

    def _attend(self, link: Link, hello: dict) -> None:
        if hello.get("version") != mpcbench.__version__:
            link.fail(f"the dealer runs mpcbench {mpcbench.__version__}: install the same everywhere.")
        elif self.owner is not None or link.role not in (None, "party0"):
            link.fail("this dealer serves another model owner: wait until that is done.")
        else:
            self.owner, link.peer = link, "the model owner"
            link.tell({"attending": True})
            return
        link.close()

    def _deal(self) -> None:
        """One run. What goes wrong in it ends it alone."""
        visitors, self.visitors = list(self.visitors.values()), {}
        try:
            sent = serve(*admit(visitors))
            self.runs += 1
            self.say(f"run {self.runs}: dealt {sent / 1e6:.3f} MB of corrections to party 1.")
        except PeerError as error:
            self.say(f"a run failed: {error}")
        finally:
            for link, _ in visitors:
                link.close()
