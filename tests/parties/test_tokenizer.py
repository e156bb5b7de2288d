"""The client's tokenizer is in its own share folder, and in no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpcbench.errors import UserError
from mpcbench.parties.tokenizer import TOKENIZER, read_tokenizer
from tests.parties.conftest import PROMPT, TOKENS, Exported
from tests.parties.processes import ROOT


def test_client_reads_the_checkpoints_tokenizer(exported: Exported) -> None:
    tokenizer = read_tokenizer(exported.client / "party1")
    assert tokenizer(PROMPT).input_ids == TOKENS[0].tolist()
    assert tokenizer.decode([9]) == "w9"


def test_model_owner_has_none(exported: Exported) -> None:
    with pytest.raises(UserError, match="holds no tokenizer: name the client's folder, party1"):
        read_tokenizer(exported.client / "party0")


def test_damaged_tokenizer(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.client / "party1" / TOKENIZER, tmp_path / TOKENIZER)
    for file in folder.iterdir():
        file.write_text("{")
    with pytest.raises(UserError, match="is not a tokenizer"):
        read_tokenizer(tmp_path)


def test_party_program_imports_no_transformers() -> None:
    """A party whose prompt comes as token ids starts without them, seconds earlier."""
    look = "import sys, mpcbench.parties.party; print({'transformers', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
