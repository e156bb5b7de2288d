from __future__ import annotations

from dataclasses import replace

import pytest

from mpcbench.checkpoints import load, read_provenance
from mpcbench.distill import published
from mpcbench.distill.adapter import adapter_info
from mpcbench.distill.distill import distill
from mpcbench.distill.published import published_adapter
from mpcbench.distill.result import trained_checkpoint
from mpcbench.errors import UserError
from tests.distill.runs import checkpoint, plan

KNOWN = published._published()


@pytest.mark.parametrize(("path", "info"), KNOWN, ids=[path.stem for path, _ in KNOWN])
def test_a_published_adapter_says_what_it_is(path, info):
    assert info.original == "smollm2-135m" and info.recipe == "mpcbench"
    assert f"-l{len(info.polynomial_layers):02d}" in path.stem
    assert info.held_out.kl < 0.1 and path.stat().st_size < 4e6


def test_the_adapter_of_other_weights_degrees_and_placements_is_not_taken():
    for _, info in KNOWN:
        count = len(info.polynomial_layers)
        found = published_adapter(info.original_sha256, count, info.degree, "least-sensitive")
        assert adapter_info(found).polynomial_layers == info.polynomial_layers
        assert published_adapter("0" * 64, count, info.degree, "least-sensitive") is None
        assert published_adapter(info.original_sha256, count, info.degree, "first") is None
        assert published_adapter(info.original_sha256, count, 3, "least-sensitive") is None


def test_an_adapter_becomes_a_checkpoint_of_its_model_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    original = checkpoint()
    (adapter,) = distill(plan(tmp_path / "run", original))
    folder = trained_checkpoint(original, adapter)
    assert load(str(folder)).model.config.polynomial_layers == [0, 1]
    assert read_provenance(folder).training.startswith("recipe test: ")
    assert trained_checkpoint(original, adapter) == folder
    with pytest.raises(UserError, match="whose weights are not those of tiny"):
        trained_checkpoint(replace(original, sha256="1" * 64), adapter)
