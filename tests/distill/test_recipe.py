from __future__ import annotations

import pytest

from mpcbench.distill.recipe import OwnText, Recipe, load_recipe, packaged_recipes, parse_recipe
from mpcbench.errors import UserError


def test_every_packaged_recipe_is_read():
    assert "mpcbench" in packaged_recipes()
    for name in packaged_recipes():
        assert load_recipe(name).description


def test_a_file_overrides_defaults_and_changes_override_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optimiser: {steps: 5, clip: null}\npolynomials: {layers: [2, all]}\n")
    recipe = load_recipe(str(file), {"student.precision": "nf4", "optimiser.steps": 7, "seed": 3})
    assert (recipe.optimiser.steps, recipe.optimiser.clip, recipe.seed) == (7, None, 3)
    assert recipe.polynomials.layers == [2, "all"]
    assert recipe.student.precision == "nf4"
    assert recipe.optimiser.rate == Recipe().optimiser.rate


def test_the_digest_is_of_all_but_the_words():
    plain = Recipe().sha256
    assert parse_recipe({"description": "other words"}, "x").sha256 == plain
    assert parse_recipe({"seed": 1}, "x").sha256 != plain
    assert parse_recipe({"student": {"lora_rank": 9}}, "x").sha256 != plain


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("speed: 3", "unknown key speed: its keys are description, polynomials"),
        ("optimiser: {speed: 3}", "unknown key optimiser.speed: its keys are steps"),
        ("student: {precision: int3}", "wrong at student.precision: .*got 'int3'"),
        ("optimiser: {rate: -1}", r"wrong at optimiser.rate: .*got -1"),
        ("optimiser: {rate: .inf}", "wrong at optimiser.rate"),
        ("polynomials: {layers: []}", "wrong at polynomials.layers"),
        ("polynomials: {layers: [some]}", "wrong at polynomials.layers"),
        ("polynomials: {layers: 8}", "wrong at polynomials.layers: .*got 8"),
        ("polynomials: 3", "wrong at polynomials: .*got 3"),
        ("optimiser:", "wrong at optimiser: .*got None"),
        ("optimiser: {steps: -5}", "wrong at optimiser.steps: .*got -5"),
        ("objective: {kl: 0}", "all weights of the objective are 0"),
        ("polynomials: {layers: [0]}\nobjective: {kl: 0, layer_mse: 1}", "a stage of 0 polynomial layers"),
        ("- 1", "not a YAML mapping"),
        ("a: [1", "is not valid YAML, line [12]"),
    ],
)
def test_a_recipe_that_is_wrong_is_one_sentence(tmp_path, content, sentence):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [8, None, "some"])
def test_a_changed_field_that_is_wrong_is_one_sentence(value):
    for field in ("polynomials.layers", "polynomials", "optimiser"):
        with pytest.raises(UserError, match=f"wrong at {field}"):
            load_recipe(
                "mpcbench", {"polynomials.layers": [2], field: value} if "." not in field else {field: value}
            )


def test_steps_are_for_every_stage_or_one_number_each():
    stages = {"layers": [1, 2]}
    listed = parse_recipe({"polynomials": stages, "optimiser": {"steps": [3, 4]}}, "x")
    assert [listed.optimiser.steps_of(stage) for stage in (0, 1)] == [3, 4]
    one = parse_recipe({"polynomials": stages, "optimiser": {"steps": 5}}, "x")
    assert [one.optimiser.steps_of(stage) for stage in (0, 1)] == [5, 5]
    with pytest.raises(UserError, match="lists 3 numbers for 2 stages"):
        parse_recipe({"polynomials": stages, "optimiser": {"steps": [3, 4, 5]}}, "x")


def test_a_recipe_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match=r"There is no recipe nonesuch: give .*mpcbench"):
        load_recipe("nonesuch")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(str(tmp_path))


def test_a_change_inside_a_value_is_refused():
    with pytest.raises(UserError, match="description holds a value"):
        load_recipe("mpcbench", {"description.more": 1})


def test_changed_stages_take_over_what_the_recipe_lists_for_stages_like_them():
    listed = load_recipe("mpcbench").optimiser
    one, three = (
        load_recipe("mpcbench", {"polynomials.layers": layers}) for layers in ([12], [4, 20, "all"])
    )
    assert one.optimiser.steps == [listed.steps[1]] and one.optimiser.stage_rates == [listed.stage_rates[1]]
    assert three.optimiser.stage_rates == [listed.stage_rates[place] for place in (0, 2, 2)]
    chosen = load_recipe("mpcbench", {"polynomials.layers": [12], "optimiser.steps": 7})
    assert chosen.optimiser.steps == 7


def test_a_list_of_another_length_than_the_stages_is_refused():
    with pytest.raises(UserError, match=r"is wrong: optimiser\.steps lists 2 numbers for 3 stages\.$"):
        load_recipe("mpcbench", {"optimiser.steps": [1, 2]})


def test_a_field_that_is_not_set_leaves_the_name_of_older_recipes():
    """Runs and results carry the hash of their recipe: a new field must not make strangers of them."""
    recipe = load_recipe("naive")
    assert recipe.sha256 == "b6a39f738345dc87bf7ee19aee94f08d3d2447f5a9d8acfa01e38301f68303c8"
    assert recipe.model_copy(update={"own_text": OwnText(passages=1)}).sha256 != recipe.sha256
    own = load_recipe("mpcbench", {"own_text": {"passages": 9}})
    assert own.sha256 == load_recipe("mpcbench", {"own_text": {"passages": 9, "fit_weight": 0.0}}).sha256
    assert own.sha256 != load_recipe("mpcbench", {"own_text": {"passages": 9, "fit_weight": 0.1}}).sha256
    assert load_recipe("naive", {"polynomials.fit_tokens": 20_000}).sha256 != recipe.sha256
    assert load_recipe("naive", {"polynomials.fit_tokens": 10_000}).sha256 == recipe.sha256
    assert load_recipe("naive", {"polynomials.guard_reach": 1.2}).sha256 != recipe.sha256
    assert load_recipe("naive", {"polynomials.guard_reach": 1.5}).sha256 == recipe.sha256
    assert load_recipe("naive", {"polynomials.basis": "orthogonal"}).sha256 != recipe.sha256
    assert load_recipe("naive", {"polynomials.basis": "powers"}).sha256 == recipe.sha256
    assert own.sha256 == load_recipe("mpcbench", {"own_text": {"passages": 9, "times": 1}}).sha256
    assert own.sha256 != load_recipe("mpcbench", {"own_text": {"passages": 9, "times": 2}}).sha256
    assert load_recipe("naive", {"objective.likelihood": 0.5}).sha256 != recipe.sha256
    assert load_recipe("naive", {"objective.likelihood": 0.0}).sha256 == recipe.sha256
    assert load_recipe("naive", {"wrong_answers": True}).sha256 != recipe.sha256
    assert load_recipe("naive", {"wrong_answers": False}).sha256 == recipe.sha256
