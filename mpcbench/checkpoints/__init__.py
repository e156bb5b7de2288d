"""Finding and loading Llama-family checkpoints, and Llama with polynomial layers.

Importing this room registers ``poly_llama`` with Transformers' Auto classes.
"""

from __future__ import annotations

import mpcbench.compat  # noqa: F401  (before any import of transformers in this room)
from mpcbench.checkpoints.hashing import weights_sha256
from mpcbench.checkpoints.loading import Checkpoint, load
from mpcbench.checkpoints.polyllama import (
    DEGREES,
    PolyLlamaConfig,
    PolyLlamaForCausalLM,
    PolynomialGLU,
    PolynomialMLP,
    with_polynomials,
)
from mpcbench.checkpoints.provenance import Provenance, read_provenance, write_provenance

__all__ = [
    "DEGREES",
    "Checkpoint",
    "PolyLlamaConfig",
    "PolyLlamaForCausalLM",
    "PolynomialGLU",
    "PolynomialMLP",
    "Provenance",
    "load",
    "read_provenance",
    "weights_sha256",
    "with_polynomials",
    "write_provenance",
]
