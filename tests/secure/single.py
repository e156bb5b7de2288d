"""CrypTen in this process with one party: our communicator without a link, our provider, and all put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.provider import FirstPartyProvider
from mpcbench.secure.substrate import crypten, install


@contextmanager
def one_party(fraction_bits: int = 16) -> Iterator[LinkCommunicator]:
    """A communicator under an open scope of its ledger; CrypTen's globals are restored afterwards."""
    kept: list[tuple[Any, str, Any]] = [
        (crypten.communicator, "get", crypten.communicator.get),
        (crypten.communicator, "is_initialized", crypten.communicator.is_initialized),
        (crypten.mpc, "get_default_provider", crypten.mpc.get_default_provider),
        (crypten.CrypTensor, "__getattribute__", crypten.CrypTensor.__getattribute__),
    ]
    generators = {name: dict(devices) for name, devices in crypten.generators.items()}
    communicator = LinkCommunicator()
    with crypten.cfg.temp_override({}):
        try:
            with communicator.ledger.scope("online", None, "test", "test"):
                install(communicator, FirstPartyProvider(communicator), fraction_bits, {})
                yield communicator
        finally:
            for owner, name, value in kept:
                setattr(owner, name, value)
            crypten.generators.update(generators)
            crypten.CrypTensor.set_grad_enabled(True)
