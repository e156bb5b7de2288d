"""A model's configuration alone: all that is needed to say what it costs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

from mpcbench.checkpoints.family import SUPPORTED, check_family, plain_config
from mpcbench.checkpoints.loading import quiet
from mpcbench.checkpoints.polyllama import PolyLlamaForCausalLM
from mpcbench.errors import UserError

REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_COEFFICIENTS = re.compile(r"^model\.layers\.(\d+)\.mlp\.activation\.coefficients$")


@dataclass(frozen=True)
class Architecture:
    """A configuration, where it comes from, and the polynomials of its layers where they are at hand.

    ``coefficients``: layer -> (degree + 1, channels).
    """

    name: str
    source: str
    config: LlamaConfig
    coefficients: dict[int, torch.Tensor]

    @property
    def polynomial_layers(self) -> tuple[int, ...]:
        """The polynomial layers that the configuration itself names."""
        return tuple(getattr(self.config, "polynomial_layers", ()))

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model has, tied ones once."""
        with torch.device("meta"):
            model = (
                PolyLlamaForCausalLM(self.config) if self.polynomial_layers else LlamaForCausalLM(self.config)
            )
        return sum(parameter.numel() for parameter in model.parameters())


def packaged_configurations() -> dict[str, Any]:
    """Configurations that come with mpcbench, by name."""
    folder = resources.files("mpcbench.checkpoints").joinpath("configurations")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    return {file.name.removesuffix(".json"): file for file in files}


def read_architecture(name: str) -> Architecture:
    """The architecture of a packaged name, a ``config.json``, a checkpoint folder or a Hub id; no weights.

    Raises UserError when there is none, when it is not of the Llama family, or when it lacks a size.
    """
    packaged, path = packaged_configurations(), Path(name).expanduser()
    if name in packaged:
        text = packaged[name].read_text(encoding="utf-8")
        return Architecture(name, "packaged configuration", _parsed(text, name), {})
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return _from_file(path, name)
    if path.suffix or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"There is no configuration {name}: give {', '.join(packaged)}, a config.json, a checkpoint "
            "folder, or a Hub id (owner/name)."
        )
    return _from_hub(name)


def _from_file(path: Path, name: str) -> Architecture:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({error}): give a config.json or a checkpoint folder.") from None
    config = _parsed(text, str(path))
    return Architecture(name, f"configuration {path.name}", config, _coefficients(path.parent, config))


def _parsed(text: str, origin: str) -> LlamaConfig:
    try:
        body = json.loads(text)
    except ValueError:
        raise UserError(f"{origin} is not JSON: give the config.json of a Transformers checkpoint.") from None
    if not isinstance(body, dict) or not isinstance(body.get("model_type"), str):
        raise UserError(f"{origin} has no model_type: give the config.json of a Transformers checkpoint.")
    for key in REQUIRED:
        if type(body.get(key)) is not int or body[key] < 1:
            found = "lacks" if key not in body else f"has {body[key]!r} for"
            raise UserError(f"{origin} {found} {key}: a whole number is needed there to count anything.")
    kind = body.pop("model_type")
    if kind not in SUPPORTED:
        raise UserError(f"{origin} is a {kind} model: give one of the Llama family ({', '.join(SUPPORTED)}).")
    return _checked(_config(kind, body, origin), origin)


def _config(kind: str, body: dict, origin: str) -> Any:
    try:
        with quiet():
            return AutoConfig.for_model(kind, **body)
    except UserError:
        raise
    except Exception as error:  # Transformers raises whatever a wrong value makes it trip over
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"{origin} is no configuration that Transformers can read ({reason}).") from error


def _checked(config: Any, origin: str) -> LlamaConfig:
    check_family(config, origin)
    heads, keys = config.num_attention_heads, config.num_key_value_heads
    if heads % keys or (getattr(config, "head_dim", None) is None and config.hidden_size % heads):
        raise UserError(
            f"{origin} has {heads} heads and {keys} key/value heads for a width of {config.hidden_size}: "
            "these must divide each other."
        )
    return config if config.model_type == "poly_llama" else plain_config(config)


def _coefficients(folder: Path, config: LlamaConfig) -> dict[int, torch.Tensor]:
    """What the folder's safetensors hold of polynomials; nothing where there are none."""
    if config.model_type != "poly_llama":
        return {}
    found: dict[int, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    if match := _COEFFICIENTS.match(key):
                        found[int(match[1])] = file.get_tensor(key).float()
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is damaged ({error}): fetch or write the checkpoint again.") from None
    return found


def _from_hub(name: str) -> Architecture:
    from mpcbench.hub import reachable

    online = reachable()
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, local_files_only=not online)
    except (OSError, ValueError) as error:
        reason = "the Hub has no such model" if online else "the Hub cannot be reached from here"
        raise UserError(f"Cannot read the configuration of {name}: {reason}; give a config.json.") from error
    return Architecture(name, f"{name} (Hugging Face Hub)", _checked(config, name), {})
