"""The compatibility module, in fresh interpreters: what it does, it does on import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")\n'


def python(code: str, *folders: Path) -> str:
    """Run ``code`` in a new interpreter that looks into ``folders`` first; returns its standard output."""
    path = os.pathsep.join(str(folder) for folder in (*folders, *sys.path) if str(folder))
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def pretend(folder: Path, name: str, version: str, *requires: str) -> None:
    """Put the metadata of a distribution into ``folder``, as if it were installed there."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def broken_torchvision(folder: Path, version: str, torch: str) -> None:
    pretend(folder, "torchvision", version, f"torch (=={torch})", "gdown ; extra == 'gdown'")
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(BROKEN)


@pytest.mark.parametrize(
    ("torch", "torchvision", "wanted", "reason"),
    [
        ("2.13.0+cpu", "0.28.0", "2.13.0", "different builds"),
        ("2.13.0", "0.28.0+cpu", "2.13.0", "different builds"),
        ("2.13.0", "0.27.1", "2.12.1", "wants torch==2.12.1"),
        ("2.13.0", "0.28.0", "2.13.0", "None"),
        ("2.13.0+cpu", "0.28.0+cpu", "2.13.0", "None"),
    ],
)
def test_mismatch_is_read_from_metadata(
    tmp_path: Path, torch: str, torchvision: str, wanted: str, reason: str
) -> None:
    pretend(tmp_path, "torch", torch)
    broken_torchvision(tmp_path, torchvision, wanted)
    code = (
        "import sys, mpcbench.compat as compat\n"
        "print(compat.TORCHVISION_BLOCKED, 'torchvision' in sys.modules, 'torch' in sys.modules)"
    )
    printed = python(code, tmp_path)
    assert reason in printed
    blocked = reason != "None"
    assert printed.endswith(f"{blocked} False"), "blocked exactly on a mismatch, and torch is not imported"


def test_absent_torchvision_is_no_mismatch(tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as metadata\n"
        "real = metadata.distribution\n"
        "def without(name):\n"
        "    if name == 'torchvision': raise metadata.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "metadata.distribution = without\n"
        "import mpcbench.compat as compat; print(compat.TORCHVISION_BLOCKED)"
    )
    assert python(code, tmp_path) == "None"


def test_transformers_imports_beside_a_broken_torchvision(tmp_path: Path) -> None:
    pretend(tmp_path, "torch", "2.13.0+cpu")
    broken_torchvision(tmp_path, "0.28.0", "2.13.0")
    use = "from transformers import LlamaForCausalLM; print(LlamaForCausalLM.__name__)"
    assert python(f"import mpcbench.compat; {use}", tmp_path) == "LlamaForCausalLM"
    with pytest.raises(AssertionError):  # the same without the compatibility module: this is what it is for
        python(use, tmp_path)


def test_crypten_imports_without_a_word_and_computes() -> None:
    code = (
        "import warnings; warnings.simplefilter('error', SyntaxWarning)\n"
        "from mpcbench.compat import import_crypten\n"
        "crypten = import_crypten()\n"
        "assert import_crypten() is crypten\n"
        "crypten.init()\n"
        "print((crypten.cryptensor([1.5, -2.0]) * 2).get_plain_text().tolist())"
    )
    assert python(code) == "[3.0, -4.0]"


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("raise metadata.PackageNotFoundError(name)", "CrypTen is not installed: run `pip install"),
        ("return '0.3.0'", "CrypTen 0.3.0 is installed but mpcbench works with 0.4.1"),
    ],
)
def test_crypten_absent_or_of_another_version_is_one_sentence(version: str, sentence: str) -> None:
    code = (
        "import mpcbench.compat as compat\n"
        "from mpcbench.compat import metadata\n"
        "def answer(name):\n"
        f"    {version}\n"
        "metadata.version = answer\n"
        "try: compat.import_crypten()\n"
        "except compat.UserError as error: print(error)"
    )
    assert python(code).startswith(sentence)
