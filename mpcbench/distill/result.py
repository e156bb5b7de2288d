"""What training leaves behind: PolyLlama checkpoints that export takes, made from adapters."""

from __future__ import annotations

from pathlib import Path

import torch

from mpcbench import __version__
from mpcbench.checkpoints import Checkpoint, PolyLlamaForCausalLM, Provenance, write_provenance
from mpcbench.checkpoints.loading import quiet
from mpcbench.distill.adapter import AdapterInfo, load_adapter, merged
from mpcbench.distill.precision import is_projection
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir, file_sha256, whole_folder


def write_checkpoint(
    model: PolyLlamaForCausalLM, original: Checkpoint, info: AdapterInfo, folder: Path
) -> None:
    """A merged model as a checkpoint folder, projections of a quantised base in bfloat16."""
    if info.base != "float32":
        for name, module in model.named_modules():
            if is_projection(name):
                module.weight = torch.nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)
    with whole_folder(folder) as part, quiet():
        model.save_pretrained(part)
        original.tokenizer.save_pretrained(part)
        write_provenance(provenance(info), part)


def trained_checkpoint(original: Checkpoint, path: Path) -> Path:
    """The checkpoint folder of an adapter file, in the cache; merged there unless it is.

    Raises UserError if the adapter is damaged or was trained from other weights than ``original``'s.
    """
    adapter, info = load_adapter(path)
    if info.original_sha256 != original.sha256:
        raise UserError(
            f"{path.name} was trained from {info.original}, whose weights are not those of {original.name}: "
            "name the model that it belongs to."
        )
    folder = cache_dir() / "checkpoints" / f"trained-{file_sha256(path)[:24]}"
    if not folder.is_dir():
        write_checkpoint(merged(original.model, adapter, info), original, info, folder)
    return folder


def provenance(info: AdapterInfo) -> Provenance:
    """What ``mpcbench.json`` says of a trained checkpoint."""
    base = info.base + (" with double quantisation" if info.double_quantisation else "")
    return Provenance(
        original=info.original,
        original_source=info.original_source,
        original_sha256=info.original_sha256,
        polynomial_layers=info.polynomial_layers,
        degree=info.degree,
        placement=info.placement,
        per_channel=not info.shared,
        training=f"recipe {info.recipe}: {info.steps} steps on a {base} base, teacher {info.teacher}",
        calibration=info.data,
        calibration_sha256=info.data_sha256,
        calibration_tokens=info.data_tokens,
        ranking=info.ranking,
        held_out=info.held_out,
        mpcbench_version=__version__,
    )
