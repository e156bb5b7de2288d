"""Records that hold a generated text, made up for the tests of what is drawn from them."""

from __future__ import annotations

from mpcbench.records.schema import GeneratedToken, Generation, Openings, Record
from tests.records.factory import entry, phase


def with_text(record: Record, equal: bool = True, tokens: int = 2) -> Record:
    """The record with a text of up to two tokens, which is the one in plaintext or not."""
    made = Generation(
        max_new_tokens=2, private_logits=True, stopped="length", cache="opened once", text=" Paris.",
        plaintext_text=" Paris." if equal else " Rome.", equals_plaintext=equal,
        tokens=[_token(record, " Paris", 0, 9_000_000), _token(record, ".", 17, 1_500_000)][:tokens],
    )  # fmt: skip
    return record.model_copy(update={"generation": made})


def _token(record: Record, text: str, cached: int, size: int) -> GeneratedToken:
    return GeneratedToken(
        token_id=5, text=text, cached=cached, online=phase([entry(None, "layers", "linear", size, 400)]),
        offline=phase([]), openings=Openings(masked=9, unmasked=["token"]), latency=record.latency,
    )  # fmt: skip
