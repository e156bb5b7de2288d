"""CrypTen set up for one process: our communicator and provider behind its interfaces.

CrypTen keeps its communicator, provider, generators and configuration in module globals and finds them
through ``crypten.communicator.get`` and ``crypten.mpc.get_default_provider``; those two functions are
the seams used here. One process is one party, for its whole life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mpcbench.compat import import_crypten
from mpcbench.secure import trig
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.randomness.prg import entropy

crypten = import_crypten()

SEED_WORDS = 4
"""How many random words each party sends the other when CrypTen is set up."""


def install(link: LinkCommunicator, source: object, fraction_bits: int, settings: Mapping) -> None:
    """Make CrypTen use these. ``settings`` are dotted keys of CrypTen's configuration.

    Exchanges the seeds of the shared generators (one round, 32 bytes a party), entered under the scope
    that is open. Inference needs no gradients, so CrypTen's tape is off.
    """
    crypten.communicator.get = lambda: link
    crypten.communicator.is_initialized = lambda: True
    crypten.mpc.get_default_provider = lambda: source
    for key, value in {"encoder.precision_bits": fraction_bits, **settings}.items():
        crypten.cfg[key] = value
    crypten.CrypTensor.set_grad_enabled(False)
    trig.prepare()
    _never_validate()
    _seed_generators(link)


def _never_validate() -> None:
    """Take off what asks, at every attribute of a tensor, whether to open the result and compare it.

    CrypTen's validation mode opens values in the middle, which nothing may here; and the question, a look
    into the configuration, is an eighth of the time of an online phase.
    """
    asking = crypten.CrypTensor.__getattribute__
    crypten.CrypTensor.__getattribute__ = getattr(asking, "__wrapped__", asking)


def _seed_generators(link: LinkCommunicator) -> None:
    """Seeds as in ``crypten.__init__._setup_prng``: each pair of neighbours shares one, all share one.

    Those generators are torch's Mersenne twisters, which are not cryptographic; no mask comes from them
    here. The communicator gets a seed of 128 bits that both hold, for what both must draw alike.
    """
    mine = _random_words(SEED_WORDS)
    theirs = link.swap(mine)
    seeds = {
        "prev": theirs[0],
        "next": mine[0],
        "local": _random_words(1)[0],
        "global": mine[1] ^ theirs[1] if link.get_world_size() > 1 else mine[1],
    }
    both = mine[2:] ^ theirs[2:] if link.get_world_size() > 1 else mine[2:]
    link.common_seed = both.numpy().tobytes()
    for name, seed in seeds.items():
        generator = torch.Generator(device="cpu")
        generator.manual_seed(int(seed))
        crypten.generators[name][torch.device("cpu")] = generator


def provider() -> Any:
    """The provider of correlated randomness in use."""
    return crypten.mpc.get_default_provider()


def communicator() -> LinkCommunicator:
    """The communicator in use."""
    return crypten.communicator.get()


def _random_words(count: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(entropy(8 * count)), dtype=torch.int64)
