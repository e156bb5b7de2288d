from __future__ import annotations

import pytest
import torch

from mpcbench.checkpoints import load, read_provenance
from mpcbench.distill.distill import distill
from mpcbench.distill.result import trained_checkpoint
from mpcbench.errors import UserError
from tests.distill.runs import checkpoint, plan
from tests.distill.test_student import IDS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("base", ["float32", "nf4"])
def test_an_adapter_becomes_the_checkpoint_that_training_wrote(tmp_path, base):
    original = checkpoint()
    (adapter,) = distill(plan(tmp_path / "run", original, student={"precision": base}))
    folder = trained_checkpoint(original, adapter)
    ours, theirs = (load(str(path)).model for path in (folder, tmp_path / "run" / "checkpoint"))
    with torch.no_grad():
        torch.testing.assert_close(ours(IDS).logits, theirs(IDS).logits)
    provenance = read_provenance(folder)
    assert provenance.training.startswith("recipe test: ")
    assert f"on a {base} base, teacher tiny, float32" in provenance.training
    written = folder.stat().st_mtime_ns
    assert trained_checkpoint(original, adapter) == folder and folder.stat().st_mtime_ns == written


def test_an_adapter_fits_its_own_original_only(tmp_path):
    (adapter,) = distill(plan(tmp_path / "run"))
    with pytest.raises(UserError, match="whose weights are not those of tiny"):
        trained_checkpoint(checkpoint(seed=1), adapter)
