"""Every dependency is pinned to a version within its bounds, so that what is tested can be installed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11 on")
ROOT = Path(__file__).parents[1]
INSTALLERS = {"pip", "setuptools"}
"""Come with the environment, not from the pins."""


def _pins() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in wanted}


def _declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(line) for group in groups for line in group]


declared = pytest.mark.parametrize("wanted", _declared(), ids=lambda wanted: wanted.name)


def test_pins_are_exact() -> None:
    assert all([spec.operator for spec in pin.specifier] == ["=="] for pin in _pins().values())


@declared
def test_every_dependency_has_a_pin_within_its_bounds(wanted: Requirement) -> None:
    pin = _pins()[canonicalize_name(wanted.name)]
    (version,) = [spec.version for spec in pin.specifier]
    assert wanted.specifier.contains(version, prereleases=True), f"{pin} is not in {wanted}"


@declared
def test_what_a_pinned_package_needs_is_pinned_too(wanted: Requirement) -> None:
    """One step deep: a dependency of a dependency without a pin could change under us."""
    try:
        needs = [Requirement(line) for line in metadata.requires(wanted.name) or []]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{wanted.name} is not installed here")
    applies = [each for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    pinned = INSTALLERS | _pins().keys()
    assert [each.name for each in applies if canonicalize_name(each.name) not in pinned] == []
