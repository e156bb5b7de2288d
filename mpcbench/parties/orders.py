"""What the model owner's ``compare`` asks of the client's server, as data: checked, and never evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.parties.handshake import MAX_REPETITIONS
from mpcbench.secure.transport import Link

Repeats = Annotated[int, Field(ge=0, le=MAX_REPETITIONS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]


class Order(BaseModel):
    """One run. ``protocol`` is a protocol file's content, ``dealer`` an address where the run has one,
    ``network`` the name of a packaged link that ``backend`` emulates.
    """

    model_config = ConfigDict(extra="forbid")

    sharing: str
    protocol: dict[str, Any]
    tokens: Annotated[list[Token], Field(min_length=2, max_length=1 << 20)]
    repetitions: Repeats
    warmups: Repeats
    threads: Annotated[int, Field(ge=1, le=4096)]
    rendezvous: str
    dealer: str | None
    network: str
    backend: Literal["transport", "netem"]


class Report(BaseModel):
    """How a run ended at the client: well (``exit_code`` 0, with logits to follow), or with a sentence."""

    model_config = ConfigDict(extra="forbid")

    event: Literal["ended"] = "ended"
    exit_code: int
    kind: Literal["none", "user", "peer", "defect"] = "none"
    sentence: str = ""
    logits: Annotated[int, Field(ge=0, le=1 << 24)] = 0


def greet_server(link: Link) -> None:
    """Make sure that both ends speak the same version; raises PeerError at both when they do not."""
    theirs = link.swap_control({"version": mpcbench.__version__}).get("version")
    if theirs != mpcbench.__version__:
        sentence = f"{link.peer} runs mpcbench {theirs}, this end {mpcbench.__version__}: install the same."
        link.fail(sentence)
        raise PeerError(sentence)


def read_order(message: dict[str, Any], peer: str) -> Order:
    """Raises PeerError for what is no order."""
    try:
        return Order.model_validate(message.get("run"))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the whole"
        raise PeerError(f"{peer} sent an order that is none ({where}): look at its own output.") from None
