"""Training runs of tiny Llamas; ``python -m tests.distill.runs FOLDER CHANGES`` trains one in a process."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from mpcbench.checkpoints import Checkpoint, weights_sha256
from mpcbench.distill.adapter import load_adapter
from mpcbench.distill.distill import Plan, distill
from mpcbench.distill.log import read_log
from mpcbench.distill.recipe import Recipe, parse_recipe
from mpcbench.distill.texts import Texts
from tests.tiny import tiny_llama, tiny_texts, tiny_tokenizer

TEXTS = Texts(tiny_texts(count=40, words=12), "random words", "0" * 64)

QUICK = {
    "polynomials": {"layers": [2], "placement": "first"},
    "student": {"lora_rank": 2, "lora_alpha": 2.0},
    "optimiser": {"steps": 6, "tokens": 100, "warm_up": 2},
    "compute": "float32",
    "evaluate_every": 3,
    "save_every": 2,
}


def recipe(**changes) -> Recipe:
    """``QUICK`` with sections updated, such as ``optimiser={"steps": 3}``, and fields replaced."""
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in QUICK.items()}
    for key, value in changes.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    return parse_recipe(content, "test")


def checkpoint(**settings) -> Checkpoint:
    """A tiny Llama, settings as in :func:`tests.tiny.tiny_llama`, that lies nowhere."""
    model = tiny_llama(**settings)
    tokenizer = tiny_tokenizer(model.config.vocab_size)
    return Checkpoint(model, tokenizer, "tiny", "a test", weights_sha256(model), None)


def plan(folder: Path, original: Checkpoint | None = None, **changes) -> Plan:
    """A plan to train in ``folder`` by :func:`recipe`."""
    return Plan(original or checkpoint(), recipe(**changes), "test", TEXTS, folder)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """All that an adapter file holds, by name."""
    adapter, _ = load_adapter(path)
    found = {f"layer {layer}": value for layer, value in adapter.coefficients.items()} | adapter.norms
    for name, update in adapter.updates.items():
        found |= {f"{name}.down": update.down, f"{name}.up": update.up}
    return found


def same(one: Path, other: Path) -> bool:
    """Whether two adapters are the same to the bit."""
    first, second = tensors(one), tensors(other)
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def kls(folder: Path) -> list[float]:
    """The held-out KLs that a run has logged, in order."""
    return [line["kl"] for line in read_log(folder / "log.jsonl") if line["event"] == "held_out"]


def main() -> None:
    folder, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    pause = changes.pop("pause", 0.0)
    distill(plan(folder, **changes), progress=lambda what, done, total: time.sleep(pause))


if __name__ == "__main__":
    main()
