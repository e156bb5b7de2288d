"""What each party receives in a run of a whole model is what the protocol allows, and nothing more.

With a dealer, under stock CrypTen and both protocols that reuse masks of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tests.parties.conftest import Exported
from tests.parties.recorded import Message, recorded_run
from tests.secure.randomness.received import THRESHOLD, coin, from_each_other, from_uniform

PROMPTS = ([5, 9, 33, 60, 3, 17, 17, 40], [3, 3, 3, 3, 3, 3, 3, 3])
"""Two prompts of one length, as different as they can be."""
ENOUGH = 256 * 8
"""Words from which on the statistics are meant."""


@dataclass(frozen=True)
class Runs:
    """What both parties received with the first prompt, and with the second."""

    protocol: str
    received: tuple[dict[str, list[Message]], dict[str, list[Message]]]


@pytest.fixture(scope="module", params=["crypten", "crypten-reuse", "frontier"])
def runs(
    request: pytest.FixtureRequest, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    folder = tmp_path_factory.mktemp("received")
    first, second = (
        recorded_run(folder / str(index), exported.client, request.param, prompt)
        for index, prompt in enumerate(PROMPTS)
    )
    return Runs(request.param, (first, second))


parties = pytest.mark.parametrize("role", ["party0", "party1"])


def _is_bits(message: Message) -> bool:
    """CrypTen opens single bits in whole words: those are coins, the rest of the word is zero."""
    words = message.words
    return len(words) > 0 and bool(((words == 0) | (words == 1)).all())


def _planned(messages: list[Message]) -> list[Message]:
    """Without openings that had to be repeated, which depends on masks alone and differs from run to run."""
    return [message for message in messages if message.scope.operator != "repetition"]


def _words(messages: list[Message], sender: str) -> np.ndarray:
    """All full words from one sender but the output's."""
    full = [m for m in messages if m.sender == sender and m.scope.module != "output" and not _is_bits(m)]
    chosen = [message.words for message in full]
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)


@parties
def test_masked_values_look_uniform(runs: Runs, role: str) -> None:
    words = np.concatenate([_words(received[role], "peer") for received in runs.received])
    assert len(words) > ENOUGH
    assert from_uniform(words) < THRESHOLD


@parties
def test_opened_bits_are_fair_coins(runs: Runs, role: str) -> None:
    bits = [
        m.words for received in runs.received for m in received[role] if m.sender == "peer" and _is_bits(m)
    ]
    if runs.protocol == "frontier":
        assert not bits
    else:
        assert coin(np.concatenate(bits)) < 7


@parties
def test_what_the_dealer_sends_looks_uniform_and_goes_to_party_1_alone(runs: Runs, role: str) -> None:
    words = np.concatenate([_words(received[role], "dealer") for received in runs.received])
    if role == "party0":
        assert len(words) == 0
    else:
        assert len(words) > ENOUGH
        assert from_uniform(words) < THRESHOLD


@parties
def test_two_prompts_look_alike(runs: Runs, role: str) -> None:
    first, second = (_words(received[role], "peer") for received in runs.received)
    assert from_each_other(first, second) < THRESHOLD
    assert not np.array_equal(first, second)


@parties
def test_messages_depend_on_public_shapes_alone(runs: Runs, role: str) -> None:
    first, second = (
        [(m.sender, m.scope, len(m.body)) for m in _planned(received[role])] for received in runs.received
    )
    assert first == second


def test_only_the_client_gets_the_output_and_one_message_of_it(runs: Runs) -> None:
    for received in runs.received:
        outputs = {role: [m for m in received[role] if m.scope.module == "output"] for role in received}
        assert not outputs["party0"]
        (message,) = outputs["party1"]
        assert len(message.words) == 64  # a share of the logits over the vocabulary


def test_statistics_notice_what_is_not_masked() -> None:
    """Fixed-point values of a model, in the clear or under a mask that is too narrow."""
    generator = np.random.default_rng(0)
    values = (generator.normal(size=5 * ENOUGH) * 2**16).astype(np.int64)
    wide = generator.integers(-(2**63), 2**63, size=5 * ENOUGH, dtype=np.int64)
    assert from_uniform(values) > 100 * THRESHOLD
    assert from_uniform(values + (wide >> 24)) > 100 * THRESHOLD
    assert from_uniform(values + wide) < THRESHOLD
    assert from_each_other(values, 2 * values) > THRESHOLD
    assert from_each_other(wide[: 2 * ENOUGH], wide[2 * ENOUGH :]) < THRESHOLD
    assert coin(np.ones(100)) > 7
