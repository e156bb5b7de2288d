from __future__ import annotations

import io

import pytest
from rich.console import Console

from mpcbench.records.schema import GeneratedToken, Generation, Openings, Record
from mpcbench.report.generation import generation_table
from mpcbench.report.terminal import WIDTH
from tests.records.factory import entry, make_record, phase


def _token(record: Record, text: str, cached: int, size: int) -> GeneratedToken:
    return GeneratedToken(
        token_id=5, text=text, cached=cached, online=phase([entry(None, "layers", "linear", size, 400)]),
        offline=phase([]), openings=Openings(masked=9, unmasked=["token"]), latency=record.latency,
    )  # fmt: skip


def _shown(equal: bool) -> str:
    record = make_record(8)
    made = Generation(
        max_new_tokens=2, private_logits=True, stopped="length", cache="opened once", text=" Paris.",
        plaintext_text=" Paris." if equal else " Rome.", equals_plaintext=equal,
        tokens=[_token(record, " Paris", 0, 9_000_000), _token(record, ".", 17, 1_500_000)],
    )  # fmt: skip
    console = Console(width=WIDTH, file=io.StringIO())
    console.print(generation_table(record.model_copy(update={"generation": made})))
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
