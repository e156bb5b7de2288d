from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from mpcbench.distill.distill import distill
from mpcbench.distill.log import read_log
from mpcbench.distill.recipe import Recipe
from mpcbench.distill.sharding import accelerator, spread, whole
from mpcbench.errors import UserError
from tests.distill.processes import EQUAL, SETTINGS
from tests.distill.runs import plan, tensors

ROOT = Path(__file__).parents[2]


def launch(mode, folder, cache):
    """Two processes on this machine's CPU, over gloo."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "-m", "tests.distill.processes", mode, str(folder)]
    settings = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "MPCBENCH_CACHE": str(cache)}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the same training in one process."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPCBENCH_CACHE", str(folder / "cache"))
        distill(replace(plan(folder / "run", **SETTINGS), texts=EQUAL))
    return folder / "run"


@pytest.mark.parametrize("mode", ["data-parallel", "fsdp2"])
def test_two_processes_train_what_one_does(tmp_path, alone, mode):
    result = launch(mode, tmp_path / "run", tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("step 5 of 5") == 2  # two stages, told once each
    assert ("gathered" in result.stdout) is (mode == "fsdp2")
    for name in ("adapter-1.safetensors", "adapter-2.safetensors"):
        ours, theirs = tensors(tmp_path / "run" / name), tensors(alone / name)
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            torch.testing.assert_close(value, theirs[key], atol=2e-3, rtol=2e-3)
    logs = [
        [line for line in read_log(run / "log.jsonl") if line["event"] == "step"]
        for run in (tmp_path / "run", alone)
    ]
    for ours, theirs in zip(*logs, strict=True):
        for name in ("loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-2)
    assert (tmp_path / "run" / "checkpoint").is_dir()
    assert logs[1][-1]["loss"] < logs[1][0]["loss"]


def test_fsdp_1_is_refused(monkeypatch):
    found = SimpleNamespace(distributed_type=DistributedType.FSDP, is_fsdp2=False)
    monkeypatch.setattr("accelerate.Accelerator", lambda **settings: found)
    with pytest.raises(UserError, match="launch with --fsdp_version 2"):
        accelerator(Recipe())
    found.is_fsdp2 = True
    assert accelerator(Recipe()) is found


def test_plain_tensors_pass_through():
    tensor = torch.ones(3)
    assert whole(tensor) is tensor
    assert spread(tensor, torch.zeros(3)) is tensor
