"""Tensors that pretend to be on another device, to find code that mixes devices on a machine with one.

A :class:`Far` holds a CPU tensor and says that it is on ``lazy:0``, a device type that PyTorch knows, trains
on and has no kernels for. Whatever is done to it is done to what it holds; an operation on far and near
tensors together raises, as it does on a GPU.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FAR = torch.device("lazy", 0)
CROSSING = {"aten::copy_", "aten::index", "aten::index_put", "aten::index_put_"}
"""What takes tensors of two devices on a GPU as well."""


class Far(torch.Tensor):
    """A tensor ``held`` on the CPU that says it is far."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Far:
        far = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=FAR,
        )  # fmt: skip
        far.held = held
        return far

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class FarAway(TorchDispatchMode):
    """For the block, ``device=FAR`` gives far tensors."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: tuple, kwargs: dict) -> Any:
    given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    far = [tensor for tensor in given if isinstance(tensor, Far)]
    near = [tensor for tensor in given if not isinstance(tensor, Far) and tensor.ndim]  # scalars may cross
    name, wanted = function._schema.name, kwargs.get("device")
    if far and near and name not in CROSSING:
        raise RuntimeError(f"{name} of tensors on two devices: {[tuple(tensor.shape) for tensor in given]}")
    if wanted is not None:
        kwargs = kwargs | {"device": "cpu"}
    result = function(*tree_map(_held, args), **tree_map(_held, kwargs))
    if name == "aten::_local_scalar_dense" or not (far if wanted is None else torch.device(wanted) == FAR):
        return result
    same = {id(tensor.held): tensor for tensor in far}  # what was changed in place
    return tree_map(lambda value: _far(same.get(id(value), value)), result)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Far) else value


def _far(value: Any) -> Any:
    return Far(value) if isinstance(value, torch.Tensor) and not isinstance(value, Far) else value


@contextlib.contextmanager
def far_away(patch: pytest.MonkeyPatch) -> Any:
    """The mode, and what tensors of a subclass and PyTorch's own ``lazy`` do not do: lists, autocast."""
    make, as_list = torch.tensor, torch.Tensor.tolist

    def tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
        made = make(_held(data), dtype=dtype)
        return made if device is None else made.to(device)

    patch.setattr(torch, "tensor", tensor)
    patch.setattr(torch.Tensor, "tolist", lambda self: as_list(_held(self)))
    patch.setattr(
        torch.Tensor, "new_tensor", lambda self, data: tensor(data, dtype=self.dtype, device=self.device)
    )
    patch.setattr(torch, "autocast", lambda *args, **settings: contextlib.nullcontext())
    patch.setattr(torch, "is_autocast_enabled", lambda device=None: False)
    with FarAway():
        yield
