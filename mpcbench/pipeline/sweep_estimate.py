"""What the cells of a sweep will cost, before any of them runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpcbench.checkpoints.configuration import Architecture, read_architecture
from mpcbench.errors import UserError
from mpcbench.parties.network import load_link
from mpcbench.pipeline.estimate import PLACEMENTS, Setting, estimate, variants
from mpcbench.pipeline.sweep import Cell, Sweep
from mpcbench.records.schema import Record
from mpcbench.secure.protocol import load_protocol


def architectures(plan: Sweep) -> tuple[dict[str, Architecture], list[str]]:
    """The configuration of every model that has one at hand, and why the others have none."""
    found, missing = {}, []
    for model in _values(plan.cells, "model"):
        try:
            found[model] = read_architecture(model)
        except UserError as error:
            missing.append(str(error))
    return found, missing


def estimates(plan: Sweep, known: Mapping[str, Architecture]) -> list[Record]:
    """Estimated records of all cells of these models.

    Seeds do not change a cost: cells that differ in nothing else have one estimate. Raises UserError for
    numbers of layers or tokens that a model does not have.
    """
    options, cells = plan.options, plan.cells
    placement = options.placement if options.placement in PLACEMENTS else "last"  # costs are the same
    setting = Setting(
        [load_protocol(name, options.provider) for name in _values(cells, "protocol")],
        list(_values(cells, "tokens")),
        [load_link(name) for name in _values(cells, "link")],
    )
    records = []
    for architecture in known.values():
        counts = list(_values(cells, "layers"))
        records += estimate(
            variants(architecture, counts, options.degree, placement, options.embedding), setting
        )
    return records


def _values(cells: Iterable[Cell], axis: str) -> dict:
    return dict.fromkeys(getattr(cell, axis) for cell in cells)
