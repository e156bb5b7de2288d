"""compute + rounds × half a round trip + bytes a party sends / bandwidth, entry by entry and in total."""

from __future__ import annotations

import pytest

from mpcbench.cost.latency import measured_compute, projected
from mpcbench.errors import UserError
from mpcbench.parties.network import LinkProfile
from tests.records.factory import make_record

WAN = LinkProfile("wan", 100e6, 0.04)


def test_link_alone() -> None:
    record = make_record(8)
    ledger, latency = projected(record.ledger, WAN)
    online = record.ledger.online
    sent = sum(max(entry.bytes_sent) for entry in online.entries)
    assert latency.median_seconds == pytest.approx(online.rounds * 0.02 + 8 * sent / 100e6)
    assert latency.waiting_seconds == [pytest.approx(latency.median_seconds)]
    assert sum(e.seconds for e in ledger.online.entries) == pytest.approx(latency.median_seconds)
    assert [e.bytes_sent for e in ledger.online.entries] == [e.bytes_sent for e in online.entries]


def test_time_to_compute_is_what_was_measured_less_waiting() -> None:
    record = make_record(8)
    compute = measured_compute([record], "smollm2-135m", "crypten", 16)
    _, with_it = projected(record.ledger, WAN, compute)
    _, without = projected(record.ledger, WAN)
    whole = sum(record.latency.online_seconds) / len(record.latency.online_seconds)
    waited = sum(entry.wait_seconds for entry in record.ledger.online.entries)
    assert with_it.median_seconds - without.median_seconds == pytest.approx(whole - waited)


def test_layers_that_were_not_measured_are_named() -> None:
    compute = measured_compute([make_record(0)], "smollm2-135m", "crypten", 16)
    with pytest.raises(UserError, match="hold no polynomial_glu"):
        projected(make_record(8).ledger, WAN, compute)


def test_records_of_something_else_are_refused() -> None:
    with pytest.raises(UserError, match="no measured record of llama-2-7b with 16 tokens under crypten"):
        measured_compute([make_record(0)], "llama-2-7b", "crypten", 16)
