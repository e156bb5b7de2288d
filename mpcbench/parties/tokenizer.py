"""The client's tokenizer, which lies in its share folder.

Apart from the rest, so that a party imports no more than it needs before it can start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer"


def read_tokenizer(shares: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in the client's share folder; UserError when it is not there."""
    folder = shares / TOKENIZER
    if not folder.is_dir():
        raise UserError(f"{shares} holds no tokenizer: name the client's folder, party1, of an export.")
    import mpcbench.compat  # noqa: F401  (before transformers)

    # isort: split
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a tokenizer ({error}): export the model again.") from None
