"""The dealer: a process of its own that makes correlated randomness for two parties and sees no data.

Each party gets a seed from it when the session starts. From then on party 1 asks, by public shapes alone,
and gets the corrections; party 0 expands everything from its seed and never needs to be sent anything.
The dealer must collude with neither party: it knows all masks, and sees nothing that is masked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import NoReturn

import torch

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.secure import trig
from mpcbench.secure.randomness.dealing import correction, from_request
from mpcbench.secure.randomness.prg import SEED_BYTES, fixed_seeds, fresh_seed
from mpcbench.secure.randomness.recipe import Kept
from mpcbench.secure.transport import Link

MAX_DELAY_SECONDS = 60.0
"""The longest one-way delay that a dealer emulates because a party asks for it."""
MAX_BANDWIDTH = 1e15
"""The largest bandwidth, in bytes a second, likewise."""
PARTIES = ("party 0 (model owner)", "party 1 (client)")
WHO = "one party 0 and one party 1 must come to a dealer: give each its own --rank."
_UNANSWERABLE = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
"""What comes of a request that no dealer can follow, whoever sent it."""
_LAST_WORDS_SECONDS = 2.0
_SETTING_UP, _DEALING, _IDLE = " during set-up", " in the offline phase", " in the online phase"


def welcome(links: list[Link]) -> tuple[Link, tuple[bytes, bytes]]:
    """Give each of the two parties that have connected its seed and the session's name.

    Returns party 1's link and both seeds. Raises PeerError when they are not one party 0 and one party 1
    of this version. A link that a party's end emulates is emulated at this end too.
    """
    for link in links:
        link.phase = lambda: _SETTING_UP
    return admit([(link, _hello(link, links)) for link in links])


def admit(visitors: Sequence[tuple[Link, dict]]) -> tuple[Link, tuple[bytes, bytes]]:
    """:func:`welcome` for two that have said who they are."""
    session = secrets.token_hex(16)
    seeds = (fresh_seed(), fresh_seed())
    ranks: dict[int, Link] = {}
    hellos: dict[int, dict] = {}
    links = [link for link, _ in visitors]
    for link, hello in visitors:
        rank, version = rank_of(hello), hello.get("version")
        if version != mpcbench.__version__:
            _refuse(links, f"the dealer runs mpcbench {mpcbench.__version__}: install the same everywhere.")
        if hello.get("fixed_seeds", 0) != fixed_seeds():
            _refuse(links, "a party and the dealer take their seeds from elsewhere: fix all seeds or none.")
        if rank is None or rank in ranks:
            _refuse(links, WHO)
        if link.role not in (None, f"party{rank}"):
            _refuse(links, f"party {rank} shows the certificate of {link.role}: give each its own folder.")
        link.peer = PARTIES[rank]
        ranks[rank], hellos[rank] = link, hello
    for rank, link in ranks.items():
        _emulate(link, hellos[rank].get("emulated"))
        link.tell({"session": session})
        link.exchange([memoryview(seeds[rank])], [])
    return ranks[1], seeds


def rank_of(hello: dict) -> int | None:
    """The rank that a visitor says it has; None for what is none."""
    rank = hello.get("rank")
    return rank if type(rank) is int and rank in (0, 1) else None


def _hello(link: Link, links: list[Link]) -> dict:
    """What a party says first. When one goes before it has said who it is, the other one knows that."""
    try:
        return link.hear()
    except PeerError as error:
        others = [other for other in links if other is not link]
        raise next(filter(None, map(_reason, others)), error) from None


def _reason(link: Link) -> PeerError | None:
    """The words with which a party gave up, if it did within the next seconds."""
    link.patience = min(link.patience, _LAST_WORDS_SECONDS)
    try:
        link.hear()
    except PeerError as error:
        return error if " gave up: " in str(error) else None
    return None


def _emulate(link: Link, emulated: object) -> None:
    """Slow down what this end sends as the party slows down what it sends: ``[bandwidth, delay]`` or None."""
    match emulated:
        case [None | float() | int() as bandwidth, float() | int() as delay]:
            # Comparisons with what is no number are false, and a whole number may be larger than any float.
            if bandwidth is not None:
                bandwidth = min(bandwidth if bandwidth >= 1.0 else 1.0, MAX_BANDWIDTH)
            link.emulate(bandwidth, min(delay if delay > 0.0 else 0.0, MAX_DELAY_SECONDS))


def _refuse(links: list[Link], sentence: str) -> NoReturn:
    for link in links:
        link.fail(sentence)
    raise PeerError(sentence) from None


def serve(link: Link, seeds: tuple[bytes, bytes]) -> int:
    """Answer party 1's requests until it says that it is done; returns the bytes of corrections sent.

    Raises PeerError when the party goes away before, or asks for what no dealer can make.
    """
    trig.prepare()
    kept, sent = Kept(), 0
    phase = _SETTING_UP
    link.phase = lambda: phase
    while True:
        message = link.hear()
        if message.get("done"):
            return sent
        phase = _DEALING
        started = time.process_time()
        requests = message.get("requests")
        if not isinstance(requests, list):
            _refuse([link], "the dealer cannot follow a message that holds no requests.")
        for item in requests:
            try:
                number, recipe = from_request(item)
                made = correction(seeds, number, recipe, kept)
            except _UNANSWERABLE as error:
                _refuse([link], f"the dealer cannot follow a request ({error}).")
            view = memoryview(made.numpy()).cast("B") if made.numel() else memoryview(b"")
            link.exchange([view], [])
            sent += view.nbytes
        link.tell({"seconds": time.process_time() - started})
        phase = _IDLE


def enrol(link: Link, rank: int) -> tuple[str, bytes]:
    """A party's side of :func:`welcome`: the session's name and this party's seed."""
    me = {"rank": rank, "version": mpcbench.__version__, "fixed_seeds": fixed_seeds()}
    link.tell({**me, "emulated": link.emulated})
    session = link.hear().get("session")
    if not isinstance(session, str) or len(session) != 32:
        raise PeerError(f"{link.peer} is no dealer of this version: start `mpcbench dealer` there.")
    seed = bytearray(SEED_BYTES)
    link.exchange([], [memoryview(seed)])
    return session, bytes(seed)


def ask(link: Link, requests: list, sizes: list[int]) -> tuple[list[torch.Tensor], float, float]:
    """Send requests and collect their corrections, of ``sizes`` words.

    Returns them with the seconds spent waiting and the processor seconds that the dealer needed.
    """
    link.tell({"requests": requests})
    received, waited = [], 0.0
    for size in sizes:
        words = torch.empty(size, dtype=torch.int64)
        view = memoryview(words.numpy()).cast("B") if size else memoryview(b"")
        waited += link.exchange([], [view])
        received.append(words)
    seconds = link.hear().get("seconds")
    return received, waited, float(seconds) if isinstance(seconds, (int, float)) else 0.0
