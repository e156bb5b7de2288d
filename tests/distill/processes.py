"""One of several training processes: ``python -m tests.distill.processes MODE FOLDER``, see :func:`main`.

Accelerate offers FSDP on accelerators only. To try it on CPUs over gloo, it is told here that the processes
it has found are FSDP's; all else is its own code and PyTorch's.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from mpcbench.distill import sharding, student
from mpcbench.distill.distill import distill
from mpcbench.distill.texts import Texts
from tests.distill.runs import plan
from tests.tiny import tiny_texts

ROWS, WORDS = 28, 12
EQUAL = Texts(tiny_texts(count=32, words=WORDS), "random words", "0" * 64)
"""28 passages are trained on. All are one step's: in one process, or half of them in each of two."""
SETTINGS = {
    "polynomials": {"layers": [1, 2], "placement": "first", "start": "series"},
    "optimiser": {"steps": 5, "tokens": ROWS * WORDS, "rate": 1e-2},
    "keep": "last",
}


def pretend_fsdp() -> None:
    """Make Accelerate believe that its CPU processes are FSDP's, and say when a spread tensor is gathered."""
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
    )
    Accelerator(fsdp_plugin=plugin)
    for state in (PartialState(), AcceleratorState()):
        state.distributed_type = DistributedType.FSDP
    AcceleratorState().fsdp_plugin = plugin

    def whole(tensor: torch.Tensor) -> torch.Tensor:
        if hasattr(tensor, "full_tensor"):
            print("gathered")
        return sharding.whole(tensor)

    student.whole = whole


def main() -> None:
    """Mode ``data-parallel`` or ``fsdp2``."""
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "fsdp2":
        pretend_fsdp()
    distill(replace(plan(folder, **SETTINGS), texts=EQUAL), say=print)
    sharding.leave_processes()


if __name__ == "__main__":
    main()
