"""Several processes: how they are told of, and parameters that FSDP has spread over them.

Every process has to call these: they talk to each other. Plain tensors pass through unchanged.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Any

import torch

from mpcbench.distill.recipe import Recipe
from mpcbench.errors import UserError

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: the first alone writes text of the model's own, maybe for hours."""


def accelerator(recipe: Recipe) -> Any:
    """Accelerate's view of the processes that its launcher started, or of this one alone.

    Raises UserError for FSDP 1: it flattens the few trained parameters together with frozen ones.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    everywhere = recipe.objective.of_outputs  # else later layers get no gradient
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=not everywhere)
    found = Accelerator(kwargs_handlers=[parallel, InitProcessGroupKwargs(timeout=PATIENCE)])
    if found.distributed_type == "FSDP" and not found.is_fsdp2:
        raise UserError("FSDP 1 cannot train a student: launch with --fsdp_version 2.")
    return found


def leave_processes() -> None:
    """End this process well, if it is one of several; alone, do nothing.

    Process groups that FSDP's tensors still refer to outlive ``destroy_process_group``. The interpreter then
    ends before their threads, now and then, and aborts. So it is left out: to be called last.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    torch.distributed.barrier()  # nobody's connection closes while another still talks
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this process may hold a part."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def spread(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``value``, the same on every process, split and placed as ``like`` is."""
    value = value.to(like.device)
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)
