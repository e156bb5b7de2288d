"""What a run trains on beside the given text: the model's own, and wrong answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpcbench.accuracy.questions import Question, QuestionSet
from mpcbench.distill.adapter import load_adapter
from mpcbench.distill.data import training_split
from mpcbench.distill.distill import distill
from mpcbench.distill.log import read_log
from mpcbench.distill.own_text import Alike, self_texts
from mpcbench.distill.texts import Texts
from mpcbench.errors import UserError
from tests.distill.runs import TEXTS, kls, plan, same

pytestmark = pytest.mark.usefixtures("cache")


def test_own_text_is_trained_on_and_not_held_out(tmp_path):
    plain, more = plan(tmp_path / "plain"), plan(tmp_path / "more", own_text={"passages": 32, "examples": 2})
    infos = [load_adapter(distill(one)[-1])[1] for one in (plain, more)]
    assert infos[1].data_tokens > infos[0].data_tokens + 32
    assert infos[1].data == f"{infos[0].data} and 32 passages that tiny wrote"
    assert infos[1].held_out.tokens == infos[0].held_out.tokens
    assert kls(plain.folder)[0] == kls(more.folder)[0]  # the start is fitted on the given text alone
    assert kls(plain.folder)[-1] != kls(more.folder)[-1]


def test_wrong_answers_are_trained_on_where_the_recipe_says_so(tmp_path):
    wrong = {text: [f"{text} w{place}"] for place, text in enumerate(TEXTS.texts, 3)}
    asked = replace(TEXTS, wrong=wrong)
    plans = [
        replace(plan(tmp_path / name, wrong_answers=wanted), texts=texts)
        for name, wanted, texts in (("right", False, asked), ("none", True, TEXTS), ("all", True, asked))
    ]
    infos = [load_adapter(distill(one)[-1])[1] for one in plans]
    counts = [info.data_tokens for info in infos]
    trained = len(TEXTS.texts) - len(TEXTS.texts) // 8
    assert counts[0] == counts[1] and counts[2] == 2 * counts[0] + trained
    starts, ends = zip(*[(kls(one.folder)[0], kls(one.folder)[-1]) for one in plans], strict=True)
    assert starts[0] == starts[1] == starts[2] and ends[0] == ends[1] != ends[2]
    other = replace(plans[2], texts=replace(TEXTS, wrong={TEXTS.texts[0]: ["w3 w4"]}))
    with pytest.raises(UserError, match="another data"):
        distill(other)


def test_own_text_may_be_fitted_on_as_well(tmp_path):
    own = {"passages": 32, "fit_weight": 0.5}
    plain, more = plan(tmp_path / "plain"), plan(tmp_path / "more", own_text=own)
    infos = [load_adapter(distill(one)[-1])[1] for one in (plain, more)]
    assert infos[1].data == f"{infos[0].data} and 32 passages that tiny wrote"
    assert kls(plain.folder)[0] != kls(more.folder)[0]


def test_own_text_may_come_more_often_than_given_text(tmp_path):
    own = {"passages": 32, "examples": 2}
    once, twice = (
        plan(tmp_path / str(times), own_text=own | {"times": times}, optimiser={"steps": 9, "tokens": 400})
        for times in (1, 2)
    )
    tokens = [load_adapter(distill(one)[-1])[1].data_tokens for one in (once, twice)]
    assert tokens[0] == tokens[1] and kls(once.folder)[0] == kls(twice.folder)[0]
    seen = [
        sum(line["tokens"] for line in read_log(one.folder / "log.jsonl") if line["event"] == "step")
        for one in (once, twice)
    ]
    assert seen[0] != seen[1] and kls(once.folder)[-1] != kls(twice.folder)[-1]


def test_own_text_of_the_last_stage_alone(tmp_path):
    """The stages before it are those of a run without."""
    staged = {"polynomials": {"layers": [1, 2]}, "optimiser": {"steps": 3, "tokens": 100}}
    wanted = {"passages": 32, "examples": 2, "last_stage": True}
    first, second = (
        distill(plan(tmp_path / name, **staged, own_text=own))
        for name, own in (("plain", {}), ("more", wanted))
    )
    assert same(first[0], second[0]) and not same(first[1], second[1])
    infos = [load_adapter(path)[1] for path in second]
    assert ["passages that tiny wrote" in info.data for info in infos] == [False, True]


def test_what_the_model_is_scored_on_is_not_among_its_own_text(tmp_path):
    first = plan(tmp_path / "first", own_text={"passages": 32, "examples": 2})
    alike = Alike(training_split(first.texts, first.original.tokenizer).fit, 2)
    written = self_texts(first.original, count=32, alike=alike).texts
    asked = QuestionSet("asked", "asked", [Question(written[3], ["a", "b"], 0)])
    info = load_adapter(distill(replace(first, questions=asked))[-1])[1]
    assert info.data.endswith(" and 31 passages that tiny wrote")


def test_data_without_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="too little text"):
        distill(replace(plan(tmp_path / "run"), texts=Texts(["", "w3"], "empty passages", "0" * 64)))
    assert not (tmp_path / "run").exists()
