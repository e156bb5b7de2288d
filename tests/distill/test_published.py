from __future__ import annotations

from dataclasses import replace

import pytest

from mpcbench.checkpoints import load, read_provenance
from mpcbench.distill.adapter import adapter_info
from mpcbench.distill.distill import distill
from mpcbench.distill.published import adapters, find_adapter, published
from mpcbench.distill.recipe import load_recipe
from mpcbench.distill.result import trained_checkpoint
from mpcbench.errors import UserError
from tests.distill.runs import checkpoint, plan

KNOWN = adapters(published())


@pytest.mark.parametrize(("path", "info"), KNOWN, ids=[path.stem for path, _ in KNOWN])
def test_a_published_adapter_says_what_it_is(path, info):
    assert path.stem == f"{info.original}-d{info.degree}-l{len(info.polynomial_layers):02d}"
    assert load_recipe(info.recipe, {"seed": info.seed}).sha256 == info.recipe_sha256
    assert info.held_out.kl < 0.1 and path.stat().st_size < 4e6


def test_the_adapter_of_other_weights_degrees_and_placements_is_not_taken():
    for _, info in KNOWN:
        count = len(info.polynomial_layers)
        found = find_adapter(published(), info.original_sha256, count, info.degree, "least-sensitive")
        assert adapter_info(found).polynomial_layers == info.polynomial_layers
        assert find_adapter(published(), "0" * 64, count, info.degree, "least-sensitive") is None
        assert find_adapter(published(), info.original_sha256, count, info.degree, "first") is None
        assert find_adapter(published(), info.original_sha256, count, 3, "least-sensitive") is None


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


def test_a_run_folder_holds_its_stages_and_nothing_else_that_counts(tmp_path):
    run = plan(tmp_path / "run", polynomials={"layers": [1, 2], "placement": "first"})
    made = distill(run)
    assert [path for path, _ in adapters(tmp_path / "run")] == made
    sha = run.original.sha256
    assert find_adapter(tmp_path / "run", sha, 2, 2, "first") == made[1]
    assert find_adapter(tmp_path / "run", sha, 2, 2, "last") is None
    with pytest.raises(UserError, match="There is no folder"):
        adapters(tmp_path / "nowhere")
