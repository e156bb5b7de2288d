"""The benchmarks as a table: ``python -m tests.benchmarks.table results/benchmarks.json``, in Markdown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mpcbench.records.environment import environment

HEAD = ("work", "protocol", "online MB", "less", "rounds", "online ms", "faster", "with dealer ms",
        "faster", "dealt MB", "dealer ms", "error")  # fmt: skip


def table(path: Path) -> str:
    """A row for every layer and protocol; ratios are to ``crypten`` in the same file."""
    rows, stock = _rows(path), by_work(path, "crypten")
    lines = [f"{machine()}\n", f"| {' | '.join(HEAD)} |", "|:---|:---|" + "---:|" * (len(HEAD) - 2)]
    lines += [f"| {' | '.join(_cells(row, stock.get(row['work'])))} |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """What is measured on, and which versions, in a sentence."""
    here = environment()
    software = ", ".join(f"{name} {here.versions[name]}" for name in ("torch", "crypten", "mpcbench"))
    commit = f", commit {here.git_commit[:7]}" if here.git_commit else ""
    changed = " with changes" if here.git_dirty else ""
    return f"{here.cores} cores of {here.cpu}; Python {here.python}, {software}{commit}{changed}."


def by_work(path: Path, protocol: str) -> dict[str, dict]:
    """What was measured of every layer under one protocol."""
    return {row["work"]: row for row in _rows(path) if row["protocol"] == protocol}


def _rows(path: Path) -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["benchmarks"]
    return [item["extra_info"] for item in found if "work" in item.get("extra_info", {})]


def _cells(row: dict, stock: dict | None) -> list[str]:
    whole = row["online_seconds"] + row["offline_seconds"]
    less = faster = in_all = "–"
    if stock is not None:
        less = f"{stock['online_bytes_both_parties'] / row['online_bytes_both_parties']:.1f}×"
        faster = f"{stock['online_seconds'] / row['online_seconds']:.1f}×"
        in_all = f"{(stock['online_seconds'] + stock['offline_seconds']) / whole:.1f}×"
    return [
        row["work"], row["protocol"], f"{row['online_bytes_both_parties'] / 1e6:.3f}", less,
        str(row["rounds"]), f"{1e3 * row['online_seconds']:.1f}", faster, f"{1e3 * whole:.1f}", in_all,
        f"{row['dealt_bytes'] / 1e6:.2f}", f"{1e3 * row['dealer_seconds']:.1f}", f"{row['error']:.1e}",
    ]  # fmt: skip


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
