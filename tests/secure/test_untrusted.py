"""Nothing that comes from a peer or from a file is ever executed: the package has no way to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mpcbench

PACKAGE = Path(mpcbench.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NAMES = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"send_obj", "recv_obj", "broadcast_obj", "read_pickle", "unsafe_load", "UnsafeLoader"}
CALLS = {"torch.load", "yaml.load", "numpy.load", "np.load", "crypten.load", "crypten.load_from_party"}


def _dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            found = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from sorted(found & CALLS)
            if (node.module or "").split(".")[0] in MODULES:
                yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
            yield node.func.id
        elif isinstance(node, ast.Attribute):
            if node.attr in ATTRIBUTES:
                yield node.attr
            if ast.unparse(node) in CALLS:
                yield ast.unparse(node)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import torch\nx = torch.load(path)",
        "communicator.recv_obj(0)",
        "import yaml\nyaml.load(text, Loader=yaml.UnsafeLoader)",
        "eval(text)",
    ],
)
def test_search_finds_dangers(source: str) -> None:
    assert list(_dangers(ast.parse(source)))


@pytest.mark.parametrize("source", ["model.eval()", "json.loads(text)", "yaml.safe_load(text)"])
def test_search_finds_no_harmless_ones(source: str) -> None:
    assert not list(_dangers(ast.parse(source)))


def test_package_unpickles_and_evaluates_nothing() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 40
    found = {
        str(file.relative_to(PACKAGE)): dangers
        for file in files
        if (dangers := list(_dangers(ast.parse(file.read_text(encoding="utf-8")))))
    }
    assert not found
