"""Exports of tiny models, made once for all files here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mpcbench.checkpoints import Checkpoint, load
from mpcbench.distill import Texts
from mpcbench.pipeline.export import export
from tests.tiny import tiny_folder, tiny_texts

PROMPT = "w5 w9 w33 w60 w3 w17 w17"
TOKENS = torch.tensor([[5, 9, 33, 60, 3, 17, 17]])


@dataclass(frozen=True)
class Exported:
    """A checkpoint and folders with ``party0`` and ``party1``, by the way the embedding is looked up."""

    checkpoint: Checkpoint
    client: Path
    private: Path
    again: Path
    """The same model and embedding as ``client``, cut into shares once more."""

    def logits(self) -> torch.Tensor:
        """Plaintext logits after :data:`TOKENS`."""
        with torch.no_grad():
            return self.checkpoint.model(TOKENS).logits[0, -1]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny Llama, exported three times."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = load(str(tiny_folder(folder / "model")))
    texts = Texts(tiny_texts(), "test", "0")
    for name, embedding in (("client", "client"), ("private", "private"), ("again", "client")):
        export(checkpoint, folder / name, embedding, 16, texts)
    return Exported(checkpoint, folder / "client", folder / "private", folder / "again")
