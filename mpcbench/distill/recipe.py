"""Recipes: everything that decides how a student is trained, as data.

A recipe is a YAML file; the packaged ones are in ``mpcbench/distill/recipes``. A field that a file leaves
out has the default given here, and a field that does not exist is refused.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mpcbench.distill.fit import GUARD_REACH
from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError

Precision = Literal["float32", "bfloat16", "nf4"]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

FIT_TOKENS = 10_000
"""Of the training text, which polynomials start from unless a recipe says otherwise."""

_NEWER = {
    "polynomials": ("fit_tokens", "guard_reach", "basis"),
    "objective": ("likelihood",),
    "own_text": ("fit_weight", "times"),
}

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Polynomials(_Strict):
    """What replaces SiLU, where, and what it starts from.

    ``layers``: numbers of replaced layers; several are stages, each starting from the last one's result.
    ``shared``: one polynomial for all channels of a layer, as in the study; else one a channel.
    ``start``: ``calibrated`` is the closed-form fit of :mod:`mpcbench.distill.fit`, ``series`` SiLU's
    Taylor series at 0, ``random`` standard normal coefficients. ``fit_tokens``: of the training text, which
    the closed form sees. ``guard_reach``: up to how many times the largest gate of that text cubics and
    quartics are held near SiLU; the more text there is, the less lies beyond it. ``refit``: a stage starts
    the layers of earlier stages anew as well, on what the layers before them put out by then. ``basis``: what
    one step of training changes, the coefficient of one power or of one polynomial of those that are
    ``orthogonal`` over the fitted gates, see :class:`mpcbench.distill.student.TrainedGLU`.
    """

    layers: list[Annotated[int, Field(ge=0)] | Literal["all"]] = Field([8], min_length=1)
    degree: Literal[2, 3, 4] = 2
    shared: bool = False
    placement: str = "least-sensitive"
    start: Literal["calibrated", "series", "random"] = "calibrated"
    fit_tokens: Count = FIT_TOKENS
    guard_reach: Annotated[float, Field(ge=1)] = GUARD_REACH
    refit: bool = False
    basis: Literal["powers", "orthogonal"] = "powers"


class Teacher(_Strict):
    """The model that is imitated: the original at this precision."""

    precision: Precision = "float32"


class Student(_Strict):
    """The frozen base and what is trained on top of it.

    ``lora_on``: projections that get a low-rank update (Hu et al., ICLR 2022), scaled by alpha / rank.
    ``lora_start``: ``nothing``, or ``error``: what quantisation has taken away, see
    :mod:`mpcbench.distill.compensation`. ``lora_layers``: ``all`` decoder layers, or the ``polynomial`` ones
    alone.
    ``double_quantisation``: of NF4's block scales (Dettmers et al., NeurIPS 2023, section 3).
    """

    precision: Precision = "float32"
    double_quantisation: bool = False
    lora_rank: Annotated[int, Field(ge=0)] = 8
    lora_alpha: Positive = 8.0
    lora_on: list[Literal[PROJECTIONS]] = list(PROJECTIONS)
    lora_start: Literal["nothing", "error"] = "nothing"
    lora_layers: Literal["all", "polynomial"] = "all"
    train_norms: bool = True
    train_coefficients: bool = True


class Objective(_Strict):
    """Weights of the parts of the loss; see :mod:`mpcbench.distill.objective` for each part.

    ``layer_mse_first``: whether ``layer_mse`` counts first tokens, where attention sinks sit: outputs a
    hundred times larger than all others, and gradients to match.
    """

    kl: Weight = 1.0
    temperature: Positive = 1.0
    layer_mse: Weight = 0.0
    layer_mse_relative: bool = False
    layer_mse_first: bool = False
    cross_entropy: Weight = 0.0
    gate_range: Weight = 0.0
    likelihood: Weight = 0.0

    @property
    def of_outputs(self) -> bool:
        """Whether any part looks at what the model says, and so reaches all its layers."""
        return bool(self.kl or self.cross_entropy or self.likelihood)


class Optimiser(_Strict):
    """AdamW (Loshchilov and Hutter, ICLR 2019) with linear warm-up and a cosine to ``final_rate``.

    ``steps`` are of each stage, or a list with a number for every stage; ``stage_rates`` what each stage
    multiplies all rates by (Adam's steps do not shrink with the loss: few layers want gentler ones);
    ``tokens`` of one step over all processes. Rates of the coefficients are in units of each channel's own
    gate, see :class:`mpcbench.distill.student.TrainedGLU`. ``clip``: largest norm of the gradient, null for
    none.
    """

    steps: Count | list[Count] = 300
    stage_rates: list[Positive] | None = None
    tokens: Count = 900
    rate: Positive = 2e-4
    coefficient_rate: Positive = 1e-3
    norm_rate: Positive = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Weight = 0.0
    warm_up: Annotated[int, Field(ge=0)] = 20
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    clip: Positive | None = 1.0

    def rates_of(self, stage: int) -> float:
        """What the rates are multiplied by in a stage, 0-based."""
        return self.stage_rates[stage] if self.stage_rates else 1.0

    def steps_of(self, stage: int) -> int:
        """Steps of a stage, 0-based."""
        return self.steps[stage] if isinstance(self.steps, list) else self.steps


class OwnText(_Strict):
    """Text that the original writes itself, which is trained on beside the given text, never held out.

    ``passages``: how many; ``examples``: behind how many passages of the training text each is written, so
    that it is like them. Behind none it starts from a random token. ``last_stage``: only there, where there
    is more to learn than the given text can teach. ``fit_weight``: what its tokens count where polynomials
    are fitted, those of the given text counting 1. A small weight leaves the fit to the given text, and keeps
    polynomials of degree three and four from running away on any other. ``times``: how often training comes
    to each passage while it comes to each given one once.
    """

    passages: Annotated[int, Field(ge=0)] = 0
    examples: Annotated[int, Field(ge=0)] = 0
    last_stage: bool = False
    fit_weight: Weight = 0.0
    times: Count = 1


class Recipe(_Strict):
    """One way to train.

    ``compute``: precision of the student's matrix products; everything else is float32. ``keep``: the result
    of a stage is its best step by held-out KL, the start included, or whatever the last step left.
    ``eight_bits``: adapters keep their low-rank updates in eight bits, a quarter of the size.
    ``wrong_answers``: questions are trained on with each of their wrong answers too, where the data has any:
    multiple choice is scored by the likelihoods of all answers.
    """

    description: str = ""
    polynomials: Polynomials = Polynomials()
    teacher: Teacher = Teacher()
    student: Student = Student()
    objective: Objective = Objective()
    optimiser: Optimiser = Optimiser()
    own_text: OwnText = OwnText()
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    keep: Literal["best", "last"] = "best"
    eight_bits: bool = False
    wrong_answers: bool = False
    evaluate_every: Count = 25
    save_every: Count = 25
    seed: int = 0

    @model_validator(mode="after")
    def _one_number_a_stage(self) -> Recipe:
        for name in ("steps", "stage_rates"):
            listed = getattr(self.optimiser, name)
            if isinstance(listed, list) and len(listed) != self.stages:
                raise ValueError(f"optimiser.{name} lists {len(listed)} numbers for {self.stages} stages")
        return self

    @model_validator(mode="after")
    def _something_to_learn(self) -> Recipe:
        goal = self.objective
        if not (goal.of_outputs or goal.layer_mse or goal.gate_range):
            raise ValueError("all weights of the objective are 0: set kl, for one")
        if 0 in self.polynomials.layers and not goal.of_outputs:
            raise ValueError("a stage of 0 polynomial layers learns from kl or cross_entropy alone: set one")
        return self

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return len(self.polynomials.layers)

    @property
    def newer(self) -> dict[str, Any]:
        """Fields that were added later and are not set, as pydantic's ``exclude``: they change no name."""
        unset: dict[str, Any] = {} if self.wrong_answers else {"wrong_answers": True}
        for part, fields in _NEWER.items():
            content = getattr(self, part)
            unset[part] = {f for f in fields if getattr(content, f) == type(content).model_fields[f].default}
        return unset

    @property
    def sha256(self) -> str:
        """Of everything but the words; a field that older recipes do not know counts where it is set."""
        left_out = {"description": True, **self.newer}
        if self.own_text == OwnText():
            left_out["own_text"] = True
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with mpcbench."""
    folder = resources.files("mpcbench.distill").joinpath("recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.suffix == ".yaml")


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """The packaged recipe or YAML file of this name, with fields changed by dotted name.

    changes: such as ``{"student.precision": "nf4", "optimiser.steps": 50}``. Raises UserError when there
    is no such recipe, the YAML is malformed, or a field is unknown or has an impossible value. Where the
    stages change, each takes over what the recipe lists for its own stage of as many layers or the next more.
    """
    if name in packaged_recipes():
        file = resources.files("mpcbench.distill").joinpath("recipes", f"{name}.yaml")
        text = file.read_text(encoding="utf-8")
    else:
        text = _read(name)
    content = parse_yaml(text, f"The recipe {name}")
    if not isinstance(content, dict):
        raise UserError(f"The recipe {name} is not a YAML mapping: see the packaged recipes for examples.")
    own = copy.deepcopy(content)
    for field, value in (changes or {}).items():
        _change(content, field, value)
    _match_stages(content, own)
    return parse_recipe(content, name)


def parse_recipe(content: Mapping[str, Any], name: str) -> Recipe:
    """The recipe that a mapping describes; UserError names the field at fault."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        # Pydantic also names the kinds of value that a field takes, such as constrained-int.
        field = ".".join(
            str(part) for part in first["loc"] if str(part).isalnum() or str(part).isidentifier()
        )
        if first["type"] == "extra_forbidden":
            raise UserError(
                f"The recipe {name} has an unknown key {field}: {_known(first['loc'])}."
            ) from None
        if not field:
            raise UserError(
                f"The recipe {name} is wrong: {first['msg'].removeprefix('Value error, ')}."
            ) from None
        reason = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"The recipe {name} is wrong at {field}: {reason}, got {first['input']!r}.") from None


def _read(name: str) -> str:
    path = Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(packaged_recipes())
        raise UserError(f"There is no recipe {name}: give {known}, or a YAML file.") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"The recipe {name} cannot be read: give a YAML file in UTF-8.") from None


def _change(content: dict[str, Any], field: str, value: Any) -> None:
    *path, last = field.split(".")
    for part in path:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise UserError(f"{field} is not a field of a recipe: {part} holds a value, not fields.")
    content[last] = value


def _match_stages(content: dict[str, Any], own: dict[str, Any]) -> None:
    """Give changed stages the numbers that the recipe itself lists for stages like them."""
    listed = (_section(part, "polynomials").get("layers") for part in (content, own))
    sizes, before = (
        [math.inf if count == "all" else count for count in layers] if isinstance(layers, list) else []
        for layers in listed
    )
    if sizes == before or not all(isinstance(size, int | float) for size in sizes + before):
        return
    for name in ("steps", "stage_rates"):
        numbers, optimiser = _section(own, "optimiser").get(name), _section(content, "optimiser")
        if isinstance(numbers, list) and len(numbers) == len(before) and optimiser.get(name) == numbers:
            places = [next((i for i, size in enumerate(before) if size >= wanted), -1) for wanted in sizes]
            optimiser[name] = [numbers[place] for place in places]


def _section(content: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of what may yet turn out to be no recipe."""
    part = content.get(name)
    return part if isinstance(part, dict) else {}


def _known(location: tuple[int | str, ...]) -> str:
    """The fields that exist where an unknown one was found."""
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        model = model.model_fields[str(part)].annotation
    return f"its keys are {', '.join(model.model_fields)}"
