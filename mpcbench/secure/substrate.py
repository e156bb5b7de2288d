"""CrypTen set up for one process: our communicator and provider behind its interfaces.

CrypTen keeps its communicator, provider, generators and configuration in module globals and finds them
through ``crypten.communicator.get`` and ``crypten.mpc.get_default_provider``; those two functions are
the seams used here. One process is one party, for its whole life.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from mpcbench.compat import import_crypten
from mpcbench.secure.communicator import LinkCommunicator

crypten = import_crypten()


def install(communicator: LinkCommunicator, provider: object, fraction_bits: int, settings: Mapping) -> None:
    """Make CrypTen use these. ``settings`` are dotted keys of CrypTen's configuration.

    Exchanges the seeds of the shared generators (one round, 16 bytes a party), entered under the scope
    that is open. Inference needs no gradients, so CrypTen's tape is off.
    """
    crypten.communicator.get = lambda: communicator
    crypten.communicator.is_initialized = lambda: True
    crypten.mpc.get_default_provider = lambda: provider
    for key, value in {"encoder.precision_bits": fraction_bits, **settings}.items():
        crypten.cfg[key] = value
    crypten.CrypTensor.set_grad_enabled(False)
    _seed_generators(communicator)


def _seed_generators(communicator: LinkCommunicator) -> None:
    """Seeds as in ``crypten.__init__._setup_prng``: each pair of neighbours shares one, all share one.

    Generators are CrypTen's: torch's Mersenne twister, which is not cryptographic.
    """
    mine = _random_words(2)
    theirs = communicator.swap(mine)
    seeds = {
        "prev": theirs[0],
        "next": mine[0],
        "local": _random_words(1)[0],
        "global": mine[1] ^ theirs[1] if communicator.get_world_size() > 1 else mine[1],
    }
    for name, seed in seeds.items():
        generator = torch.Generator(device="cpu")
        generator.manual_seed(int(seed))
        crypten.generators[name][torch.device("cpu")] = generator


def _random_words(count: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64)
