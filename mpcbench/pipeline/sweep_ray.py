"""Cells of a sweep on the machines of a Ray cluster, one cell at a time on each that has the memory.

Ray's own wire format is pickle: a cluster is as trustworthy as whoever may submit to it. Records come back
as JSON and are checked like any other.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpcbench.errors import UserError
from mpcbench.pipeline.compare import Stage
from mpcbench.pipeline.memory import check_memory, needed
from mpcbench.pipeline.sweep import Cell, Sweep, run
from mpcbench.progress import silent
from mpcbench.records.schema import Record
from mpcbench.records.store import read, readable, to_json, write

LOCAL = "local"
"""The address that stands for a cluster of this machine, which Ray starts."""
KNOCK_SECONDS = 5.0
CORES = 2
"""What a cell takes of a machine that has as many: a core a party."""


def run_on_ray(
    plan: Sweep, address: str, parameters: Mapping[str, int], stage: Stage, done: Callable[[Record], None]
) -> list[str]:
    """As :func:`mpcbench.pipeline.sweep.run`, with every cell a task of the cluster at ``address``.

    :data:`LOCAL` starts a cluster of this machine. ``parameters``: of every model whose size is known.
    Records that lie in the sweep's folder go along, so that no cell is measured twice. Raises UserError
    without Ray, without a cluster, and for a model that fits none of its machines.
    """
    ray = _connected(address)
    try:
        check_memory(parameters, _most(ray, "memory"), "on any machine of the cluster")
        cores = min(CORES, _most(ray, "CPU"))
        known = ray.put(_existing(plan.results, stage))
        task = ray.remote(_cell)
        waiting = {}
        for cell in plan.cells:
            room = needed(parameters[cell.model]) if cell.model in parameters else 0
            one = replace(plan, cells=(cell,))
            waiting[task.options(num_cpus=cores, memory=room).remote(one, known)] = cell
        return _collect(ray, waiting, plan.results, stage, done)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("Ray is not installed: run `pip install '.[ray]'`.") from None
    try:
        _start(ray, address)
    except Exception as error:  # a node that starts too slowly raises no exception of a class of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if address == LOCAL:
            raise UserError(f"Ray does not start here ({reason}): leave --ray out.") from None
        raise UserError(
            f"There is no Ray cluster at {address} ({reason}): start one, or use {LOCAL}."
        ) from None
    return ray


def _start(ray: Any, address: str) -> None:
    """Join the cluster at ``address``; one of this machine gets a second chance."""
    quietly = {"log_to_driver": False}
    if address != LOCAL:
        _knock(address)
        ray.init(address=address, **quietly)
        return
    try:
        ray.init(address=LOCAL, include_dashboard=False, **quietly)
    except Exception:  # on a busy machine, Ray's half a minute is not enough for its first start
        ray.shutdown()
        ray.init(address=LOCAL, include_dashboard=False, **quietly)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, which Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _most(ray: Any, resource: str) -> float:
    """How much of a resource the machine has that has most of it."""
    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _existing(results: Path, stage: Stage) -> list[str]:
    records, damaged = readable(results)
    for sentence in damaged:
        stage(f"passed over: {sentence}")
    return [to_json(record) for record in records]


def _cell(plan: Sweep, known: list[str]) -> tuple[str | None, list[str]]:
    """On a machine of the cluster: the record of the plan's only cell as JSON, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="mpcbench-cell-") as scratch:
        folder = Path(scratch)
        for text in known:
            write(Record.model_validate_json(text), folder)
        found: list[Record] = []
        failures = run(replace(plan, results=folder), silent, lambda text: None, found.append)
        return (to_json(found[0]) if found else None), failures


def _collect(
    ray: Any, waiting: dict[Any, Cell], results: Path, stage: Stage, done: Callable[[Record], None]
) -> list[str]:
    failures: list[str] = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        cell = waiting.pop(ready)
        try:
            text, sentences = ray.get(ready)
        except ray.exceptions.RayError as error:
            text, sentences = None, [f"{cell}: {str(error).strip().splitlines()[-1]}"]
        failures += sentences
        for sentence in sentences:
            stage(f"failed: {sentence}")
        if text is not None:
            done(_kept(text, results))
    return failures


def _kept(text: str, results: Path) -> Record:
    """The record that came back, written down and read again, which checks it."""
    return read(write(Record.model_validate_json(text), results))
