"""From a name to a Llama in memory: packaged model, Hub id, folder or GGUF file.

Weights are read from safetensors or GGUF only, in float32: neither format can carry code.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

from mpcbench.checkpoints.family import as_llama, check_family
from mpcbench.checkpoints.hashing import weights_sha256
from mpcbench.checkpoints.packaged import DEFAULT, PACKAGED, fetch_gguf
from mpcbench.checkpoints.polyllama import PolyLlamaForCausalLM
from mpcbench.checkpoints.provenance import read_provenance
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir, file_sha256, whole_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CONVERTED = "converted.json"


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to run: float32, in evaluation mode, on the CPU.

    ``sha256`` is :func:`weights_sha256` of the model; ``folder`` is where it lies as safetensors, None
    for a model that lies in the Hub's own cache.
    """

    model: LlamaForCausalLM | PolyLlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    sha256: str
    folder: Path | None


def load(name: str = DEFAULT) -> Checkpoint:
    """Load ``smollm2-135m``, a checkpoint folder, a ``.gguf`` file, or a Hub id, tried in this order.

    Raises UserError when there is no such model, it cannot be reached, it is damaged, or it is not of the
    Llama family.
    """
    path = Path(name).expanduser()
    if name in PACKAGED:
        return _load_packaged(name)
    if path.suffix.lower() == ".gguf":
        return _load_gguf_file(path)
    if path.is_dir():
        return _load_folder(path, str(path))
    if path.is_file():
        raise UserError(f"{name} is a file but not a .gguf file: give a checkpoint folder or a GGUF file.")
    if not _HUB_ID.fullmatch(name):
        raise UserError(
            f"There is no model {name}: give {', '.join(PACKAGED)}, a checkpoint folder, a .gguf file, "
            "or a Hub id (owner/name)."
        )
    return _load_hub(name)


def _load_packaged(name: str) -> Checkpoint:
    packaged = PACKAGED[name]
    folder = cache_dir() / "models" / name
    return _load_converted(folder, name, packaged.source, lambda: fetch_gguf(packaged))


def _load_gguf_file(path: Path) -> Checkpoint:
    if not path.is_file():
        raise UserError(f"There is no file {path}: give a GGUF file that exists.")
    digest = file_sha256(path)[:16]
    folder = cache_dir() / "models" / f"gguf-{digest}"
    return _load_converted(folder, str(path), f"{path.name} (GGUF file, SHA-256 {digest})", lambda: path)


def _load_converted(folder: Path, name: str, source: str, gguf: Callable[[], Path]) -> Checkpoint:
    """Load a GGUF from its conversion in the cache; convert it when that is missing or damaged."""
    if folder.is_dir():
        try:
            checkpoint = _load_folder(folder, name, source)
            kept = json.loads((folder / _CONVERTED).read_text(encoding="utf-8"))["weights_sha256"]
            if checkpoint.sha256 == kept:
                return checkpoint
        except (UserError, FileNotFoundError, ValueError, KeyError):
            pass
        shutil.rmtree(folder)
    _convert_gguf(gguf(), folder)
    return _load_folder(folder, name, source)


def _convert_gguf(path: Path, folder: Path) -> None:
    """Dequantise a GGUF to float32 and keep it as an ordinary checkpoint folder, which loads in a second.

    Four-bit blocks times float16 scales are not float16 numbers, so float32 it has to be.
    """
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    print(f"Converting {path.name}, once (about half a minute for 135 M parameters).", file=sys.stderr)
    with quiet(), redirect_stderr(StringIO()):  # these readers' bars obey no setting
        try:
            check_family(AutoConfig.from_pretrained(**where), path.name)
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(**where)
        except UserError:
            raise
        except Exception as error:  # the readers raise whatever a damaged file makes them trip over
            reason = _first_line(error)
            raise UserError(f"{path} is not a GGUF model that Transformers can read ({reason}).") from error
        llama = as_llama(model, path.name)
        with whole_folder(folder) as part:
            llama.save_pretrained(part)
            tokenizer.save_pretrained(part)
            kept = {"file": path.name, "weights_sha256": weights_sha256(llama)}
            (part / _CONVERTED).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _load_folder(folder: Path, name: str, source: str | None = None) -> Checkpoint:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json: give the folder of a Transformers checkpoint.")
    if source is None:
        provenance = read_provenance(folder)
        source = f"folder {folder.name}"
        if provenance is not None:
            source += f", from {provenance.original_source}"
    return _from_pretrained(str(folder), name, source, folder)


def _load_hub(name: str) -> Checkpoint:
    from mpcbench.hub import reachable

    online = reachable()
    try:
        return _from_pretrained(name, name, f"{name} (Hugging Face Hub)", None, local_files_only=not online)
    except OSError as error:
        if online:
            reason = "the Hub has no such model, or does not let you read it"
        else:
            reason = "the Hub cannot be reached from here and the model is not in its cache"
        raise UserError(
            f"Cannot load {name}: {reason}; give {DEFAULT}, a folder, or a .gguf file instead."
        ) from error


def _from_pretrained(where: str, name: str, source: str, folder: Path | None, **options: Any) -> Checkpoint:
    with quiet():
        try:
            check_family(AutoConfig.from_pretrained(where, **options), name)
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            model, report = AutoModelForCausalLM.from_pretrained(
                where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:
            if folder is None and isinstance(error, OSError):
                raise
            reason = _first_line(error)
            raise UserError(f"{name} is not a checkpoint that Transformers can read ({reason}).") from error
        wrong = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
        if wrong:
            raise UserError(f"{name} lacks {len(wrong)} weights ({wrong[0]} first): fetch or write it again.")
        llama = as_llama(model, name)
    return Checkpoint(llama.eval(), tokenizer, name, source, weights_sha256(llama), folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' own bars and notices off the terminal; errors still raise."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
