"""The estimate's targets: the published MLP budget, and a Llama-2-7B that fits into a laptop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mpcbench.checkpoints.configuration import read_architecture
from mpcbench.parties.network import load_link
from mpcbench.pipeline.estimate import Setting, estimate, variants
from mpcbench.records.schema import Record
from mpcbench.secure.protocol import load_protocol

MLP = {  # both parties, 32 tokens: MB online and rounds, by protocol, polynomial or not, and model
    ("crypten", False): (83.951616, 2461.532160, 28),
    ("crypten", True): (46.202880, 2190.999552, 5),
    ("crypten-reuse", False): (41.189376, 295.174144, 27),
    ("crypten-reuse", True): (3.440640, 24.641536, 4),
    ("frontier", False): (1.990656, 14.254080, 3),
    ("frontier", True): (1.990656, 14.254080, 3),
}


def _mlp(record: Record) -> tuple[float, int]:
    entries = [e for e in record.ledger.online.entries if e.module.startswith("layers.0.mlp")]
    return sum(sum(e.bytes_sent) for e in entries) / 1e6, sum(e.rounds for e in entries)


@pytest.mark.parametrize(("place", "model"), list(enumerate(["smollm2-135m", "llama-2-7b"])))
def test_mlp_budget_of_the_literature(place: int, model: str) -> None:
    architecture = read_architecture(model)
    found = variants(architecture, [0, architecture.config.num_hidden_layers])
    names = dict.fromkeys(name for name, _ in MLP)
    records = estimate(found, Setting([load_protocol(n) for n in names], [32], [load_link("lan")]))
    for record in records:
        *megabytes, rounds = MLP[record.protocol.name, bool(record.model.polynomial_layers)]
        assert _mlp(record) == (pytest.approx(megabytes[place], abs=1e-6), rounds)


def test_seven_billion_parameters_take_little_memory() -> None:
    program = (
        "from mpcbench.pipeline.estimate import *; from mpcbench.parties.network import load_link\n"
        "from mpcbench.secure.protocol import load_protocol\n"
        "from mpcbench.records.environment import peak_memory_bytes\n"
        "found = variants(read_architecture('llama-2-7b'), [0, 32])\n"
        "estimate(found, Setting([load_protocol('frontier')], [4096], [load_link('lan')]))\n"
        "print(peak_memory_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1e9
