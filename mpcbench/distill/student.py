"""The student: a frozen base, low-rank updates of its projections, and polynomials that can be trained."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import LlamaForCausalLM

import mpcbench.distill.recipe as recipes
from mpcbench.checkpoints.polyllama import MIN_LEADING
from mpcbench.distill.adapter import Adapter, LowRank
from mpcbench.distill.precision import bitsandbytes, with_precision
from mpcbench.distill.sharding import spread, whole
from mpcbench.errors import UserError


@dataclass
class Watch:
    """What the polynomials see of a batch; shared by all of them.

    ``counted`` [rows, length]: real tokens but the first of each row, where attention sinks sit; ``first``:
    those first ones. ``largest`` and ``largest_first``: layer -> largest |gate| there. ``excess``: layer ->
    mean squared relative excess of the gates over the fitted range, differentiable; only if ``penalise``.
    """

    penalise: bool = False
    counted: torch.Tensor | None = None
    first: torch.Tensor | None = None
    largest: dict[int, torch.Tensor] = field(default_factory=dict)
    largest_first: dict[int, torch.Tensor] = field(default_factory=dict)
    excess: dict[int, torch.Tensor] = field(default_factory=dict)

    def see(self, real: torch.Tensor) -> None:
        """Forget the last batch and expect one with these real tokens, [rows, length]."""
        self.first = real & (real.cumsum(1) == 1)
        self.counted = real & ~self.first
        self.largest, self.largest_first, self.excess = {}, {}, {}


@dataclass(frozen=True)
class Start:
    """Where the polynomials of one layer start, ``coefficients`` [degree + 1, channels], and where they go.

    ``basis`` [degree + 1, degree + 1, channels or 1]: in its columns the polynomials, in ascending powers,
    along which training changes them. ``bound`` [channels]: the largest magnitude of each gate in the text
    that they were fitted on, without first tokens.
    """

    coefficients: torch.Tensor
    basis: torch.Tensor
    bound: torch.Tensor


def power_basis(scale: torch.Tensor, degree: int) -> torch.Tensor:
    """s (g / s)^k for k <= degree as :attr:`Start.basis`; s [channels]: the gates' root mean square."""
    powers = torch.arange(degree + 1, device=scale.device)
    return torch.diag_embed(scale[:, None] ** (1 - powers)).permute(1, 2, 0)


class TrainedGLU(nn.Module):
    """``p_j(gate_j) * up_j`` with p_j = start_j + delta_j, delta_j measured along the start's basis.

    A step of the same size is to move the activation by as much whatever the power and whatever the channel's
    range, so that one learning rate fits all of them: see :func:`power_basis` and
    :meth:`mpcbench.distill.fit.Moments.basis`. With ``shared`` one delta serves all channels.
    """

    def __init__(self, layer: int, start: Start, shared: bool, watch: Watch):
        super().__init__()
        self.layer = layer
        self.watch = watch
        self.register_buffer("start", start.coefficients.float())
        self.register_buffer("basis", start.basis.float().contiguous())
        self.register_buffer("bound", start.bound.float())
        degrees, channels = start.coefficients.shape
        self.delta = nn.Parameter(torch.zeros(degrees, 1 if shared else channels, device=start.bound.device))

    @property
    def coefficients(self) -> torch.Tensor:
        """[degree + 1, channels] in ascending powers.

        A quadratic keeps |a| >= ``MIN_LEADING``, as :meth:`mpcbench.distill.fit.Moments.solve` has it, so
        that export can complete the square. Gradients pass as if it did not: a channel can leave the floor.
        """
        free = self.start + (self.basis * whole(self.delta)).sum(1)
        if len(free) != 3:
            return free
        leading = free.detach()[-1]
        floor = torch.full_like(leading, MIN_LEADING).copysign(leading)
        lift = torch.where(leading.abs() < MIN_LEADING, floor - leading, torch.zeros_like(leading))
        return torch.cat([free[:-1], (free[-1] + lift)[None]])

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """gate, up: [..., channels] -> [..., channels]."""
        if self.watch.counted is not None and self.watch.counted.shape == gate.shape[:-1]:
            self._observe(gate)
        coefficients = self.coefficients
        value = coefficients[-1]
        for row in reversed(coefficients[:-1]):
            value = value * gate + row
        return value * up

    def _observe(self, gate: torch.Tensor) -> None:
        watch = self.watch
        size = gate.detach().abs().amax(-1)
        watch.largest[self.layer] = (size * watch.counted).amax()
        watch.largest_first[self.layer] = (size * watch.first).amax()
        if not watch.penalise:
            return
        beyond = (gate.abs() / self.bound.clamp_min(1e-3) - 1).clamp_min(0).square().mean(-1)
        watch.excess[self.layer] = beyond[watch.counted].float().mean()


class StudentMLP(nn.Module):
    """A SwiGLU MLP's projections around another activation."""

    def __init__(self, mlp: nn.Module, activation: nn.Module):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.activation = activation

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(self.activation(self.gate_proj(hidden_states), self.up_proj(hidden_states)))


class Student(nn.Module):
    """A copy of the original that is trained.

    original: a Llama without polynomial layers; it shares its frozen weights and is not changed.
    lora_layers: decoder layers whose projections get a low-rank update.
    """

    def __init__(
        self, original: LlamaForCausalLM, settings: recipes.Student, lora_layers: list[int], seed: int = 0,
        device: torch.device | str = "cpu",
    ):  # fmt: skip
        super().__init__()
        self.settings = settings
        self.watch = Watch()
        self.model = with_precision(
            original.requires_grad_(False), settings.precision, device, settings.double_quantisation
        )
        if settings.lora_rank and settings.lora_on and lora_layers:
            _add_lora(self.model, settings, lora_layers, seed)
        for name, module in self.model.named_modules():
            if settings.train_norms and name.endswith("norm"):
                module.weight = nn.Parameter(module.weight.detach().clone())

    @property
    def polynomial_layers(self) -> list[int]:
        """Layers replaced so far, in order."""
        return sorted(self.polynomials)

    @property
    def polynomials(self) -> dict[int, TrainedGLU]:
        """Layer -> its activation."""
        blocks = enumerate(self.model.model.layers)
        found = {layer: getattr(block.mlp, "activation", None) for layer, block in blocks}
        return {layer: glu for layer, glu in found.items() if isinstance(glu, TrainedGLU)}

    def replace(self, layer: int, start: Start, shared: bool) -> None:
        """Put polynomials in the place of a layer's SiLU."""
        glu = TrainedGLU(layer, start, shared, self.watch)
        glu.delta.requires_grad_(self.settings.train_coefficients)
        block = self.model.model.layers[layer]
        block.mlp = StudentMLP(block.mlp, glu)

    def groups(self, optimiser: recipes.Optimiser) -> list[dict]:
        """Trainable parameters with their rates, for AdamW. UserError if a recipe trains nothing."""
        rates = {"lora": optimiser.rate, "delta": optimiser.coefficient_rate, "norm": optimiser.norm_rate}
        groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in rates}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                kind = "lora" if "lora_" in name else "delta" if name.endswith(".delta") else "norm"
                groups[kind].append(parameter)
        if not any(groups.values()):
            raise UserError(
                "The recipe trains nothing: set lora_rank, train_coefficients or train_norms of the student."
            )
        return [{"params": groups[kind], "lr": rates[kind], "name": kind} for kind in rates if groups[kind]]

    @torch.no_grad()
    def adapter(self) -> Adapter:
        """What training has changed, apart from the base; on the CPU."""
        updates, norms = {}, {}
        for name, module in self.model.named_modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                scale = module.scaling["default"]
                down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
                updates[name] = LowRank(_copied(down), _copied(up) * scale)
            elif name.endswith("norm") and module.weight.requires_grad:
                norms[f"{name}.weight"] = _copied(module.weight)
        coefficients = {layer: _copied(glu.coefficients) for layer, glu in self.polynomials.items()}
        return Adapter(coefficients, updates, norms)

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Trainable parameters and the polynomials' starts by name: with the original, the whole student."""
        state = {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}
        for name, module in self.named_modules():
            if isinstance(module, TrainedGLU):
                state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
        return {name: _copied(value) for name, value in state.items()}

    @torch.no_grad()
    def load_trained_state(self, state: dict[str, torch.Tensor], shared: bool) -> None:
        """Undo everything since :meth:`trained_state`; layers replaced by then are replaced here too."""
        for name in [name for name in state if name.endswith("activation.start")]:
            prefix = name.removesuffix("start")
            layer = int(prefix.split(".layers.")[1].split(".")[0])
            if layer not in self.polynomials:
                device = self.model.device
                tensors = (state[prefix + key].to(device) for key in ("start", "basis", "bound"))
                self.replace(layer, Start(*tensors), shared)
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        for name, value in state.items():
            own[name].copy_(spread(value, own[name]))


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, in memory of its own on the CPU."""
    return whole(tensor.detach()).cpu().clone()


def _add_lora(model: nn.Module, settings: recipes.Student, layers: list[int], seed: int) -> None:
    bitsandbytes()  # peft imports it too, with its notices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, inject_adapter_in_model

        names = [
            name
            for name, _ in model.named_modules()
            if name.split(".")[-1] in settings.lora_on and int(name.split(".")[2]) in layers
        ]
        config = LoraConfig(
            r=settings.lora_rank, lora_alpha=settings.lora_alpha, lora_dropout=0.0, target_modules=names
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # peft gives them the precision of a base in bfloat16
            parameter.data = parameter.data.float()
