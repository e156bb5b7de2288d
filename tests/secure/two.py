"""What two party processes do once for the tests of communicator, provider and substrate.

Everything comes back as plain numbers and numpy arrays, by name; the tests look at both parties' answers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.guard import Guard
from mpcbench.secure.ledger import Ledger

ROWS = 4096
"""Elements of the tuples whose uniformity is tested."""

REQUESTS: dict[str, tuple[str, tuple]] = {
    "mul": ("generate_additive_triple", ((3, 4), (3, 4), "mul")),
    "broadcast": ("generate_additive_triple", ((3, 4), (4,), "mul")),
    "matmul": ("generate_additive_triple", ((2, 3), (3, 5), "matmul")),
    "batched": ("generate_additive_triple", ((1, 2, 2, 3), (1, 2, 3, 5), "matmul")),
    "square": ("square", ((5, 2),)),
    "binary": ("generate_binary_triple", ((7,), (7,))),
    "bit": ("B2A_rng", ((ROWS,),)),
    "many": ("generate_additive_triple", ((ROWS,), (ROWS,), "mul")),
    "many squares": ("square", ((ROWS,),)),
    "many words": ("generate_binary_triple", ((ROWS,), (ROWS,))),
}
"""Requests to the provider: method and arguments."""


def measure(communicator: LinkCommunicator) -> dict[str, Any]:
    """In a party's process."""
    sent_before = communicator.link.wire.payload_sent
    seeds = communicator.ledger.as_json()
    return {
        "seeds": {"ledger": seeds, "wire": sent_before, **_seeds()},
        "tuples": {name: _request(communicator, *request) for name, request in REQUESTS.items()},
        "moves": {name: _move(communicator, move) for name, move in MOVES.items()},
        "objects": [_object(communicator, *call) for call in OBJECTS],
        "about": (communicator.get_rank(), communicator.get_world_size(), communicator.get_name()),
    }


def _seeds() -> dict[str, Any]:
    from mpcbench.secure.substrate import crypten

    device = torch.device("cpu")
    zeros = crypten.mpc.primitives.ArithmeticSharedTensor.PRZS(torch.Size([1000]))
    return {
        "generators": {name: made[device].initial_seed() for name, made in crypten.generators.items()},
        "zeros": zeros.share.numpy(),
    }


@contextmanager
def _fresh(communicator: LinkCommunicator) -> Any:
    """A ledger and a guard of its own, and the wire's count of payload inside."""
    communicator.ledger, communicator.guard = Ledger(), Guard()
    answer: dict[str, Any] = {}
    before = communicator.link.wire.payload_sent
    with communicator.ledger.scope("online", None, "test", "test"):
        yield answer
    online, offline = communicator.ledger.total("online"), communicator.ledger.total("offline")
    answer.update(
        wire=communicator.link.wire.payload_sent - before,
        bytes=online.bytes_sent,
        rounds=online.rounds,
        offline={"bytes": offline.bytes_sent, "rounds": offline.rounds, "tuples": dict(offline.tuples)},
        online_tuples=dict(online.tuples),
    )


def _request(communicator: LinkCommunicator, method: str, arguments: tuple) -> dict[str, Any]:
    from mpcbench.secure.substrate import crypten

    with _fresh(communicator) as answer:
        shares = getattr(crypten.mpc.get_default_provider(), method)(*arguments)
        answer["shares"] = [share.share.numpy() for share in shares]
    return answer


def _move(communicator: LinkCommunicator, move: Callable[[LinkCommunicator], Any]) -> dict[str, Any]:
    with _fresh(communicator) as answer:
        values = move(communicator)
        values = values if isinstance(values, list) else [values]
        answer["values"] = [None if value is None else value.numpy() for value in values]
        answer["masked"] = communicator.guard.masked
    return answer


OBJECTS = (("send_obj", {"a": 1}, 0), ("recv_obj", 0), ("broadcast_obj", {"a": 1}, 0))


def _object(communicator: LinkCommunicator, name: str, *arguments: Any) -> str:
    try:
        getattr(communicator, name)(*arguments)
    except NotImplementedError:
        return "not available"
    return "available"


def mine(rank: int, *shape: int) -> torch.Tensor:
    """Party ``rank``'s share in the moves below."""
    generator = torch.Generator().manual_seed(10 + rank)
    return torch.randint(-(2**62), 2**62, shape, generator=generator)


def _all_reduce(communicator: LinkCommunicator) -> torch.Tensor:
    communicator.guard.issue_shapes([(3, 4)])
    return communicator.all_reduce(mine(communicator.rank, 3, 4))


def _transposed(communicator: LinkCommunicator) -> torch.Tensor:
    communicator.guard.issue_shapes([(4, 3)])
    return communicator.all_reduce(mine(communicator.rank, 3, 4).t())


def _xor(communicator: LinkCommunicator) -> torch.Tensor:
    communicator.guard.issue_shapes([(3, 4)])
    return communicator.all_reduce(mine(communicator.rank, 3, 4), op=torch.distributed.ReduceOp.BXOR)


def _batch(communicator: LinkCommunicator) -> list[torch.Tensor]:
    communicator.guard.issue_shapes([(2,), (5,)])
    return communicator.all_reduce([mine(communicator.rank, 2), mine(communicator.rank, 5)], batched=True)


def _reduce(communicator: LinkCommunicator) -> torch.Tensor | None:
    communicator.guard.issue_shapes([(3, 4)])
    return communicator.reduce(mine(communicator.rank, 3, 4), dst=1)


def _high(communicator: LinkCommunicator) -> list[torch.Tensor]:
    values = [mine(communicator.rank, 12), mine(communicator.rank, 2, 3)]
    masks = [torch.zeros_like(value) for value in values]
    communicator.guard.issue(masks, 64)
    return communicator.open_high(values, masks, [3, 8])


def _nothing(communicator: LinkCommunicator) -> torch.Tensor:
    communicator.guard.issue_shapes([(0, 4)])
    return communicator.all_reduce(mine(communicator.rank, 0, 4))


def _swap(communicator: LinkCommunicator) -> torch.Tensor:
    return communicator.swap(mine(communicator.rank, 6))


def _barrier(communicator: LinkCommunicator) -> None:
    communicator.barrier()


def _product(communicator: LinkCommunicator) -> torch.Tensor | None:
    """(6, 8) x (8, 5), shared, multiplied by CrypTen and opened to party 0."""
    from mpcbench.secure.substrate import crypten

    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 8, generator=generator), torch.randn(8, 5, generator=generator)
    product = crypten.cryptensor(x, src=0).matmul(crypten.cryptensor(y, src=1))
    with communicator.guard.output("product"):
        opened = product.reveal(dst=0)
    return opened


MOVES: dict[str, Callable[[LinkCommunicator], Any]] = {
    "all_reduce": _all_reduce,
    "transposed": _transposed,
    "xor": _xor,
    "batch": _batch,
    "reduce": _reduce,
    "high": _high,
    "nothing": _nothing,
    "swap": _swap,
    "barrier": _barrier,
    "product": _product,
}
"""What the parties send each other, each under a ledger and a guard of its own."""
