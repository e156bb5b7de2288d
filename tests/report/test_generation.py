from __future__ import annotations

import io

import pytest
from rich.console import Console

from mpcbench.report.generation import generation_table
from mpcbench.report.terminal import WIDTH
from tests.records.factory import make_record
from tests.report.texts import with_text


def _shown(equal: bool) -> str:
    console = Console(width=WIDTH, file=io.StringIO())
    console.print(generation_table(with_text(make_record(8), equal)))
    return console.file.getvalue()


def test_a_row_for_every_token_and_the_whole_text():
    text = _shown(equal=True)
    assert '" Paris"' in text and '"."' in text
    assert "18.000" in text and "3.000" in text  # MB of both parties
    assert 'Text: "The capital of France is Paris."' in text
    assert "A token after the first takes 3.00 MB and up to 400 rounds" in text
    assert "Cached keys and values: opened once." in text


@pytest.mark.parametrize("equal", [True, False])
def test_a_text_that_differs_from_plaintext_is_said(equal):
    text = _shown(equal)
    assert ("gives the same tokens" in text) == equal
    assert ('DIFFERS: " Rome."' in text) == (not equal)
