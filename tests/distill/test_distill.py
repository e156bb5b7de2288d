from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpcbench.accuracy.questions import Question, QuestionSet
from mpcbench.checkpoints import load, read_provenance
from mpcbench.distill.adapter import load_adapter
from mpcbench.distill.distill import distill, with_folder
from mpcbench.distill.log import read_log
from mpcbench.distill.texts import Texts
from mpcbench.errors import UserError
from tests.distill.runs import TEXTS, checkpoint, kls, plan, same, tensors
from tests.distill.test_train import spoil
from tests.tiny import tiny_tokenizer

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("cache")


def stop_at(label, step):
    def progress(what, done, total):
        if what == label and done == step:
            raise KeyboardInterrupt

    return progress


def test_stages_grow_and_each_starts_from_the_last(tmp_path):
    settings = {"layers": [1, 3, "all"], "placement": "least-sensitive"}
    paths = distill(plan(tmp_path / "run", checkpoint(layers=4), polynomials=settings))
    infos = [load_adapter(path)[1] for path in paths]
    assert [path.name for path in paths] == [f"adapter-{count}.safetensors" for count in (1, 3, 4)]
    sets = [set(info.polynomial_layers) for info in infos]
    assert sets[0] < sets[1] < sets[2] == {0, 1, 2, 3}
    assert infos[0].polynomial_layers == sorted(infos[0].ranking[:1])
    assert infos[0].steps <= 6 and infos[1].steps >= 6
    steps = [(line["stage"], line["step"]) for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert steps == sorted(steps) and steps[-1] == (2, 6)


@pytest.mark.parametrize("refit", [True, False])
def test_a_stage_can_start_earlier_layers_anew(tmp_path, refit):
    """Layer 3 is replaced before those that feed it: fitted again, it is as if all had come at once."""
    still = {
        "student": {"lora_rank": 0, "train_norms": False},
        "optimiser": {"steps": 1, "coefficient_rate": 1e-12},
    }
    stages = {"layers": [1, "all"], "placement": "last", "refit": refit}
    together = {"layers": ["all"], "placement": "last"}
    original = checkpoint(layers=4)
    _, ours = distill(plan(tmp_path / "stages", original, polynomials=stages, **still))
    (at_once,) = distill(plan(tmp_path / "together", original, polynomials=together, **still))
    found, expected = tensors(ours)["layer 3"], tensors(at_once)["layer 3"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6) is refit


def test_the_checkpoint_is_what_its_provenance_says(tmp_path):
    original = checkpoint()
    before = {name: tensor.clone() for name, tensor in original.model.state_dict().items()}
    (path,) = distill(plan(tmp_path / "run", original))
    info = load_adapter(path)[1]
    loaded = load(str(tmp_path / "run" / "checkpoint"))
    provenance = read_provenance(tmp_path / "run" / "checkpoint")
    assert loaded.model.config.polynomial_layers == provenance.polynomial_layers == [0, 1]
    assert provenance.held_out == info.held_out and provenance.original_sha256 == original.sha256
    assert info.held_out.kl == pytest.approx(min(kls(tmp_path / "run")), rel=1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in original.model.state_dict().items())


def test_the_result_is_never_worse_than_the_start(tmp_path):
    absurd = {"rate": 1.0, "norm_rate": 1.0, "coefficient_rate": 1.0, "clip": None}
    (path,) = distill(plan(tmp_path / "run", optimiser=absurd))
    info = load_adapter(path)[1]
    assert max(kls(tmp_path / "run")[1:]) > 10 * kls(tmp_path / "run")[0]
    assert info.held_out.kl == pytest.approx(kls(tmp_path / "run")[0], rel=1e-3)
    assert info.steps == 0


def test_keep_last_keeps_what_the_last_step_left(tmp_path):
    absurd = {"rate": 1.0, "norm_rate": 1.0, "coefficient_rate": 1.0, "clip": None}
    (path,) = distill(plan(tmp_path / "run", optimiser=absurd, keep="last"))
    info = load_adapter(path)[1]
    assert info.held_out.kl == pytest.approx(kls(tmp_path / "run")[-1], rel=1e-2)
    assert info.steps == 6


@pytest.mark.parametrize("base", ["bfloat16", "nf4"])
def test_a_quantised_student_is_trained_and_merged(tmp_path, base):
    (path,) = distill(plan(tmp_path / "run", checkpoint(hidden=64), student={"precision": base}))
    info = load_adapter(path)[1]
    assert info.base == base
    assert info.held_out.kl == pytest.approx(min(kls(tmp_path / "run")), rel=0.3)


STAGES = {"polynomials": {"layers": [1, 2]}}


@pytest.mark.parametrize("layers, step", [(1, 3), (2, 0), (2, 5)])
def test_a_run_that_is_stopped_and_resumed_ends_the_same(tmp_path, layers, step):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    distill(plan(whole, **STAGES))
    with pytest.raises(KeyboardInterrupt):
        distill(plan(cut, **STAGES), progress=stop_at(f"training {layers} polynomial layers", step))
    assert not (cut / "adapter-2.safetensors").exists()
    distill(plan(cut, **STAGES))
    for name in ("adapter-1.safetensors", "adapter-2.safetensors"):
        assert same(whole / name, cut / name)
    drop = ("seconds",)
    logs = [[{k: v for k, v in line.items() if k not in drop} for line in read_log(run / "log.jsonl")]
            for run in (whole, cut)]  # fmt: skip
    assert logs[0] == logs[1]


def test_resuming_is_exact_after_an_epoch_of_texts_of_all_lengths(tmp_path):
    """What the teacher said in the first epoch is not there any more: it has to say the same again."""
    texts = [" ".join(text.split()[: 4 + place % 9]) for place, text in enumerate(TEXTS.texts)]
    texts = Texts(texts, "random words of all lengths", "1" * 64)
    epochs = {"optimiser": {"steps": 24, "tokens": 40, "warm_up": 2}, "keep": "last", "save_every": 1}
    whole, *cuts = (replace(plan(tmp_path / f"run{k}", **epochs), texts=texts) for k in range(4))
    distill(whole)
    for cut, step in zip(cuts, (13, 16, 19), strict=True):
        with pytest.raises(KeyboardInterrupt):
            distill(cut, progress=stop_at("training 2 polynomial layers", step))
        distill(cut)
        assert same(whole.folder / "adapter-2.safetensors", cut.folder / "adapter-2.safetensors")


def test_steps_of_a_stage_that_kept_its_start_are_not_counted(tmp_path):
    absurd = {"rate": 1.0, "norm_rate": 1.0, "coefficient_rate": 1.0, "clip": None}
    paths = distill(plan(tmp_path / "run", polynomials={"layers": [1, 2]}, optimiser=absurd))
    assert [load_adapter(path)[1].steps for path in paths] == [0, 0]


@pytest.mark.parametrize("base", ["bfloat16", "nf4"])
@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
def test_weights_that_are_packed_as_on_a_gpu_train_the_same(tmp_path, monkeypatch, base, compute):
    """Weights in two bytes or four bits, the teacher's as well, here on a CPU."""
    settings = {
        "student": {"precision": base, "lora_start": "error", "double_quantisation": True},
        "teacher": {"precision": base}, "compute": compute, "optimiser": {"steps": 2},
    }  # fmt: skip
    original = checkpoint(hidden=64, intermediate=64)
    (plain,) = distill(plan(tmp_path / "plain", original, **settings))
    monkeypatch.setattr("mpcbench.distill.precision.packs", lambda device: True)
    monkeypatch.setattr(
        "bitsandbytes.nn.modules.has_avx512bf16", lambda: False
    )  # that kernel has no gradient
    (packed,) = distill(plan(tmp_path / "packed", original, **settings))
    assert {value.dtype for value in tensors(packed).values()} == {torch.float32}
    assert set(tensors(packed)) == set(tensors(plain))
    assert kls(tmp_path / "packed") == pytest.approx(kls(tmp_path / "plain"), rel=0.3, abs=1e-4)


def test_a_teacher_in_four_bits_has_those_of_the_student(tmp_path):
    """Both rounded the same way, a student without polynomials has nothing to learn."""
    four = {"precision": "nf4", "double_quantisation": True, "lora_rank": 2, "lora_alpha": 2.0}
    settings = {"polynomials": {"layers": [0]}, "student": four, "teacher": {"precision": "nf4"}}
    distill(plan(tmp_path / "run", checkpoint(hidden=64, intermediate=64), **settings))
    assert kls(tmp_path / "run")[0] == pytest.approx(0, abs=1e-7)


def test_a_run_is_another_with_other_questions_to_avoid(tmp_path):
    own = plan(tmp_path / "run", own_text={"passages": 32, "examples": 2})
    asked = [QuestionSet("asked", "asked", [Question(text, ["a", "b"], 0)]) for text in ("one", "two")]
    folders = {with_folder(replace(own, questions=questions)).folder for questions in (None, *asked)}
    plain = {with_folder(replace(plan(tmp_path), questions=questions)).folder for questions in asked}
    assert len(folders) == 3 and len(plain) == 1


def test_a_step_left_out_does_not_spoil_exact_resuming(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with monkeypatch.context() as patch:
        spoil(patch, {2}, float("nan"))
        distill(plan(whole, keep="last"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        spoil(patch, {2}, float("nan"))
        distill(plan(cut, keep="last"), progress=stop_at("training 2 polynomial layers", 4))
    distill(plan(cut, keep="last"))
    assert same(whole / "adapter-2.safetensors", cut / "adapter-2.safetensors")


def test_a_run_killed_outright_goes_on_to_the_same_end(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = [sys.executable, "-m", "tests.distill.runs", str(cut), json.dumps({"pause": 0.1})]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ)
    try:
        deadline = time.monotonic() + 60
        while not any(line["step"] >= 3 for line in read_log(cut / "log.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (cut / "adapter-2.safetensors").exists()
    said = []
    distill(plan(cut), say=said.append)
    assert any(text.startswith("going on at step") for text in said)
    distill(plan(whole))
    assert same(whole / "adapter-2.safetensors", cut / "adapter-2.safetensors")


def test_a_complete_run_is_not_trained_again(tmp_path):
    distill(plan(tmp_path / "run"))
    said = []
    distill(plan(tmp_path / "run"), say=said.append)
    assert said == [f"{tmp_path / 'run'} is complete: nothing is left to train."]


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    distill(plan(tmp_path / "run"))
    with pytest.raises(UserError, match="holds a run with another recipe"):
        distill(plan(tmp_path / "run", seed=1))


@pytest.mark.parametrize("renamed", [False, True])
def test_a_teacher_with_another_vocabulary_is_refused(tmp_path, renamed):
    teacher = checkpoint(seed=1, vocab=64 if renamed else 65)
    if renamed:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["other"])
        teacher = replace(teacher, tokenizer=tokenizer)
    with pytest.raises(UserError, match="have different vocabularies"):
        distill(replace(plan(tmp_path / "run"), teacher=teacher))
    assert not (tmp_path / "run").exists()


def test_another_teacher_teaches(tmp_path):
    teacher = checkpoint(seed=1, layers=3, tied=False)
    steps = {"steps": 20, "rate": 1e-2}
    distill(replace(plan(tmp_path / "run", optimiser=steps), teacher=teacher))
    assert kls(tmp_path / "run")[-1] < 0.95 * kls(tmp_path / "run")[0]
    with pytest.raises(UserError, match="layer_mse compares layers of one shape"):
        distill(replace(plan(tmp_path / "other", objective={"layer_mse": 1.0}), teacher=teacher))


@pytest.mark.parametrize(
    "layers, sentence",
    [([2, 1], "do not grow"), ([3], "the model has 2 layers"), (["all", 2], "do not grow")],
)
def test_impossible_stages(tmp_path, layers, sentence):
    with pytest.raises(UserError, match=sentence):
        distill(plan(tmp_path / "run", polynomials={"layers": layers}))


def test_a_polynomial_original_is_refused(tmp_path):
    distill(plan(tmp_path / "run"))
    poly = load(str(tmp_path / "run" / "checkpoint"))
    with pytest.raises(UserError, match="has polynomial layers already"):
        distill(plan(tmp_path / "again", poly))
