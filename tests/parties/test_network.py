"""Link profiles: the packaged ones, a user's own, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.errors import UserError
from mpcbench.parties.namespaces import namespaces
from mpcbench.parties.network import LinkProfile, available, load_link


@pytest.mark.parametrize(
    ("name", "bandwidth", "round_trip", "words"),
    [
        ("loopback", None, 0.0, "unlimited, 0 ms round trip"),
        ("lan", 1e9, 0.5e-3, "1 Gbit/s, 0.5 ms round trip"),
        ("wan", 100e6, 40e-3, "100 Mbit/s, 40 ms round trip"),
        ("geo", 400e6, 4e-3, "400 Mbit/s, 4 ms round trip"),
    ],
)
def test_packaged_links(name: str, bandwidth: float | None, round_trip: float, words: str) -> None:
    link = load_link(name)
    assert (link.name, link.bandwidth) == (name, bandwidth)
    assert link.round_trip == pytest.approx(round_trip)
    assert link.describe() == words
    assert link.emulated == (name != "loopback")


def test_the_quickest_comes_first() -> None:
    assert list(available()) == ["loopback", "lan", "geo", "wan"]


def test_what_a_link_adds() -> None:
    """One one-way delay a round, and the bytes of one party: both directions are used at once."""
    assert load_link("wan").seconds(100, 12_500_000) == pytest.approx(100 * 0.020 + 1.0)
    assert load_link("loopback").seconds(100, 12_500_000) == 0.0
    assert LinkProfile("far", None, 0.1).seconds(10, 1e9) == pytest.approx(0.5)


def test_a_users_file_is_named_as_the_file(tmp_path: Path) -> None:
    file = tmp_path / "satellite.yaml"
    file.write_text("bandwidth: 20Mbit/s\nround_trip: 0.6 s\nsource: a test\n")
    assert load_link(str(file)) == LinkProfile("satellite", 20e6, 0.6, "", "a test")


WRONG = {
    "no unit": ("bandwidth: 100\nround_trip: 40 ms", "bandwidth '100' has no unit: write a number"),
    "bytes": ("bandwidth: 100 MB/s\nround_trip: 40 ms", "bandwidth '100 MB/s' has no unit it could be read"),
    "time in bits": ("bandwidth: 100 Mbit/s\nround_trip: 40 Mbit/s", "round_trip '40 Mbit/s' has no unit it"),
    "missing": ("bandwidth: 100 Mbit/s", "has no round_trip: write a number and a unit"),
    "nothing": ("bandwidth: 0 Mbit/s\nround_trip: 40 ms", "bandwidth '0 Mbit/s' lets nothing through"),
    "negative": ("bandwidth: 1 Mbit/s\nround_trip: -4 ms", "round_trip '-4 ms' is no quantity"),
    "misspelt": ("bandwith: 100 Mbit/s\nround_trip: 40 ms", "'bandwith' is unknown: allowed are bandwidth"),
    "a list": ("- 1", "describes no link"),
    "no YAML": ("bandwidth: [", "is not valid YAML, line 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    text, expected = WRONG[case]
    file = tmp_path / "link.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_link(str(file))
    assert expected in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_links_are_told_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"^There is no link moon: choose loopback, lan, geo, wan, or name"):
        load_link("moon")


def test_user_without_namespaces_is_told_what_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpcbench.parties.namespaces.usable", lambda: None)
    with (
        pytest.raises(UserError, match=r"choose --link-backend transport\.$"),
        namespaces(load_link("wan")),
    ):
        pass
