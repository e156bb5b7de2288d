from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.pipeline.export import export
from mpcbench.pipeline.generation import check_length, ends, plaintext_tokens
from mpcbench.pipeline.measure import Prefix
from mpcbench.pipeline.single import run_single
from mpcbench.progress import silent
from mpcbench.records.store import read, write
from tests.pipeline.conftest import TOKENS, changed


def test_a_text_is_recorded_token_by_token(original, plan, tmp_path):
    export(original, tmp_path / "out", "client", 16, plan.texts)
    settings = changed(plan, new_tokens=3, check_ranges=True).settings
    record = run_single(tmp_path / "out", original, settings, None, silent)

    made = record.generation
    assert made.equals_plaintext and made.text == made.plaintext_text
    assert made.stopped == "length" and not made.private_logits
    assert [token.token_id for token in made.tokens] == plaintext_tokens(original, TOKENS, 3)
    assert [token.cached for token in made.tokens] == [0, 7, 8]
    assert "all of them again" in made.cache  # stock CrypTen
    assert record.agreement.argmax_equal
    # The first token is the record's own ledger, its layers added up.
    assert made.tokens[0].online.bytes == record.ledger.online.bytes
    assert made.tokens[0].online.rounds == record.ledger.online.rounds
    assert len(made.tokens[0].online.entries) < len(record.ledger.online.entries)
    assert any("calibrated" in note for note in record.notes)
    assert read(write(record, tmp_path / "results")) == record


def test_a_text_behind_a_prefix_is_that_of_the_whole(original, plan, tmp_path):
    front = Prefix("w3 w4", TOKENS[:, :2])
    export(original, tmp_path / "out", "client", 16, plan.texts, prefix=front.tokens)
    settings = replace(
        changed(plan, new_tokens=3, check_ranges=True).settings, tokens=TOKENS[:, 2:], prefix=front
    )
    record = run_single(tmp_path / "out", original, settings, None, silent)
    made = record.generation
    assert made.equals_plaintext
    assert [token.token_id for token in made.tokens] == plaintext_tokens(original, TOKENS, 3)
    assert [token.cached for token in made.tokens] == [2, 7, 8]
    workload = record.workload
    assert (workload.tokens, workload.cached, workload.prefix) == (5, 2, "w3 w4")
    assert record.agreement.argmax_equal
    assert any("calibrated" in note for note in record.notes)
    assert settings.key("0", []) != replace(settings, prefix=None).key("0", [])


def test_what_is_asked_for_is_part_of_the_key(plan):
    keys = {
        changed(plan, **changes).settings.key("0", [])
        for changes in ({}, {"new_tokens": 3}, {"new_tokens": 4}, {"new_tokens": 3, "private_logits": True})
    }
    assert len(keys) == 4


def test_plaintext_is_greedy_and_ends_with_the_text(original):
    ids = TOKENS
    for _ in range(5):
        with torch.no_grad():
            ids = torch.cat([ids, original.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = ids[0, TOKENS.shape[1] :].tolist()
    assert plaintext_tokens(original, TOKENS, 5) == expected
    original.model.generation_config.eos_token_id = [expected[0], 60]
    assert ends(original) == tuple(sorted({expected[0], 60, original.tokenizer.eos_token_id}))
    assert plaintext_tokens(original, TOKENS, 5) == expected[:1]


@pytest.mark.parametrize(("tokens", "new"), [(7, 123), (128, 2)])
def test_a_text_longer_than_the_models_positions_is_refused(tokens, new):
    with pytest.raises(UserError, match=rf"The prompt has {tokens} tokens and the model has 128 positions"):
        check_length(tokens, new, 128)
    check_length(tokens, 129 - tokens, 128)
