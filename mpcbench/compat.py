"""What keeps old CrypTen, current PyTorch and Transformers importable together; the only such place.

Two things stand in the way of these three libraries, and each has its function here.

*torchvision.* CrypTen's metadata asks for torchvision, which mpcbench never uses. A wheel of it that
was built for another PyTorch (another version, or CUDA kernels beside a CPU-only PyTorch) fails on
import with ``operator torchvision::nms does not exist``, and Transformers imports torchvision wherever
it finds it. :func:`block_mismatched_torchvision` runs when this module is imported: it compares the
metadata of both packages, imports neither, and on a mismatch puts ``None`` into ``sys.modules``, which
makes Python (and Transformers) treat torchvision as not installed.

*CrypTen.* Version 0.4.1, the last one, patches ``torch.onnx.symbolic_registry`` on import. PyTorch
removed that module, and CrypTen's fallback for its absence no longer works either.
:func:`import_crypten` supplies an empty registry, which CrypTen then has nothing to patch in; only its
ONNX converter, which mpcbench replaces by ``torch.export``, would need more.

Import this module before Transformers, and get CrypTen from :func:`import_crypten` alone.
"""

from __future__ import annotations

import sys
import types
import warnings
from importlib import import_module, metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from mpcbench.errors import UserError

CRYPTEN_VERSION = "0.4.1"
_REGISTRY = "torch.onnx.symbolic_registry"


def torchvision_mismatch() -> str | None:
    """Why the installed torchvision does not fit the installed PyTorch, or None if it fits or is absent.

    Decided from package metadata only, so that it costs milliseconds: the ``torch==X`` that torchvision
    requires, and the local version labels (``+cpu``, ``+cu128``), which name the build and differ exactly
    when one wheel carries CUDA kernels and the other does not.
    """
    try:
        torch_version = Version(metadata.version("torch"))
        vision = metadata.distribution("torchvision")
        vision_version = Version(vision.version)
    except (metadata.PackageNotFoundError, InvalidVersion):
        return None
    for line in vision.requires or ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.name != "torch" or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        if not wanted.specifier.contains(torch_version, prereleases=True):
            return f"torchvision {vision_version} wants torch{wanted.specifier}, installed is {torch_version}"
    if torch_version.local != vision_version.local:
        return f"torchvision {vision_version} and torch {torch_version} are different builds"
    return None


def block_mismatched_torchvision() -> str | None:
    """Keep a torchvision that does not fit from being imported; returns the reason, None if it fits.

    One that this process has imported already is working and stays.
    """
    if sys.modules.get("torchvision") is not None:
        return None
    reason = torchvision_mismatch()
    if reason is not None:
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # Python's own mark for "not importable"
    return reason


def _empty_symbolic_registry() -> types.ModuleType:
    """A stand-in for the module that PyTorch removed: a registry with no operator in it."""
    module = types.ModuleType(_REGISTRY, "Empty stand-in, see mpcbench.compat.")
    module._registry = {}  # type: ignore[attr-defined]
    return module


def import_crypten() -> Any:
    """Import CrypTen on current PyTorch and return the module ``crypten``; later calls are free.

    Raises:
        UserError: CrypTen is not installed, is another version, or fails on import with this PyTorch.
    """
    if "crypten" in sys.modules:
        return import_module("crypten")
    try:
        found = metadata.version("crypten")
    except metadata.PackageNotFoundError:
        raise UserError(
            f"CrypTen is not installed: run `pip install crypten=={CRYPTEN_VERSION}`, or `make setup`."
        ) from None
    if found != CRYPTEN_VERSION:
        raise UserError(
            f"CrypTen {found} is installed but mpcbench works with {CRYPTEN_VERSION}: "
            f"run `pip install crypten=={CRYPTEN_VERSION}`."
        )
    try:
        import_module(_REGISTRY)  # a PyTorch old enough to have the real one keeps it
    except ImportError:
        sys.modules[_REGISTRY] = _empty_symbolic_registry()
    with warnings.catch_warnings():
        # Deprecations inside CrypTen's own files; nobody can mend those, and other modules keep theirs.
        warnings.filterwarnings("ignore", module=r"crypten(\.|$)")
        warnings.filterwarnings("ignore", category=SyntaxWarning, module=r".*crypten")
        try:
            return import_module("crypten")
        except ImportError as error:
            raise UserError(
                f"CrypTen {found} does not import here ({error}): run `mpcbench doctor`, or `make setup` "
                "for an environment that is known to work."
            ) from error


TORCHVISION_BLOCKED = block_mismatched_torchvision()
"""Why torchvision was kept out of this process, or None."""
