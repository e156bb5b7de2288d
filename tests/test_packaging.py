"""What is declared about the package is true of its sources."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mpcbench import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def required() -> dict[str, Requirement]:
    """The installed package's requirements, extras included, by canonical name."""
    try:
        lines = metadata.requires("mpcbench") or []
    except metadata.PackageNotFoundError:
        pytest.skip("mpcbench runs from bare sources here, without metadata")
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def imported_packages() -> set[str]:
    """Top-level names of all absolute imports in the package, at module level and inside functions."""
    names: set[str] = set()
    for file in (ROOT / "mpcbench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"mpcbench"}


def test_every_import_is_a_declared_requirement(required: dict[str, Requirement]) -> None:
    owners = metadata.packages_distributions()
    undeclared = {
        name: owners.get(name)
        for name in imported_packages()
        if not {canonicalize_name(owner) for owner in owners.get(name, [name])} & set(required)
    }
    assert undeclared == {}


def test_constraints_lie_in_the_declared_ranges_and_pin_all_of_them(required: dict[str, Requirement]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    assert all("+" not in version for version in versions.values()), "a local build is of one machine only"
    assert set(required) <= set(versions)
    outside = [name for name, each in required.items() if not each.specifier.contains(versions[name])]
    assert outside == []


def test_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
