"""Parameters that FSDP has spread over processes, seen whole, and whole values put back into them.

Every process has to call these: they talk to each other. Plain tensors pass through unchanged.
"""

from __future__ import annotations

import torch


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
