"""The file that says where everybody is, and what follows from it for the connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.cli.connection import places
from mpcbench.errors import UserError
from mpcbench.parties.certificates import make_certificates
from mpcbench.parties.hosts import read_hosts, remote

GOOD = """
parties:
  - {rank: 1, host: 10.0.0.2}
  - {rank: 0, host: 10.0.0.1, port: 29500}
dealer: {host: 10.0.0.3, port: 29501}
"""
HERE = "parties: [{rank: 0, host: 127.0.0.1, port: 5}, {rank: 1, host: localhost}]"


def _file(folder: Path, text: str) -> Path:
    path = folder / "hosts.yaml"
    path.write_text(text)
    return path


def test_a_file_names_where_parties_meet_and_where_the_dealer_listens(tmp_path: Path) -> None:
    hosts = read_hosts(_file(tmp_path, GOOD))
    assert hosts.rendezvous == ("10.0.0.1", 29500)
    assert (hosts.dealer.host, hosts.dealer.port) == ("10.0.0.3", 29501)
    assert hosts.names() == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]


WRONG: dict[str, tuple[str, str]] = {
    "not YAML": ("parties: [", r"is not valid YAML, line \d"),
    "nothing": ("", "the file: Input should be"),
    "one party": ("parties: [{rank: 0, host: a, port: 1}]", "parties.1: Field required"),
    "two of a rank": (
        "parties: [{rank: 0, host: a, port: 1}, {rank: 0, host: b}]",
        "has rank 0 and the other",
    ),
    "no port": ("parties: [{rank: 0, host: a}, {rank: 1, host: b}]", "party 0 listens and needs a port"),
    "a port too high": (
        "parties: [{rank: 0, host: a, port: 99999}, {rank: 1, host: b}]",
        r"parties\.0\.port",
    ),
    "a third rank": ("parties: [{rank: 2, host: a}, {rank: 1, host: b}]", r"parties\.0\.rank"),
    "a typo": (HERE + "\ndealar: {host: a, port: 1}", "dealar: Extra inputs"),
    "code": ("parties: !!python/object/apply:os.system [exit]", "is not valid YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    with pytest.raises(UserError, match=words) as caught:
        read_hosts(_file(tmp_path, text))
    assert str(tmp_path / "hosts.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read the hosts in .* \(No such file"):
        read_hosts(tmp_path / "hosts.yaml")


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [("127.0.0.1", False), ("127.8.9.1", False), ("::1", False), ("localhost", False), ("10.0.0.1", True),
     ("0.0.0.0", True), ("::", True), ("a.host.example", True), ("localhost.example", True)],
)  # fmt: skip
def test_what_counts_as_another_host(host: str, elsewhere: bool) -> None:
    assert bool(remote([host])) == elsewhere


def test_loopback_needs_no_certificates(tmp_path: Path) -> None:
    here = places("party0", None, None, _file(tmp_path, HERE), None, False)
    assert (here.parties, here.dealer, here.credentials, here.remote) == (("127.0.0.1", 5), None, None, False)
    assert places("party0", None, None, None, None, False).parties == ("127.0.0.1", 29500)


@pytest.mark.parametrize("options", [("10.0.0.1:5", None), ("127.0.0.1:5", "dealer.example:5")])
def test_other_hosts_need_tls_or_an_explicit_no(options: tuple) -> None:
    with pytest.raises(UserError, match="is not this machine's loopback, so connections need TLS"):
        places("party0", *options, None, None, False)
    plain = places("party0", *options, None, None, True)
    assert plain.remote and plain.credentials is None


def test_certificates_of_the_role_make_it_tls(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", 1)
    path = _file(tmp_path, GOOD)
    assert (
        places("dealer", None, None, path, tmp_path / "certs" / "dealer", False).credentials.role == "dealer"
    )
    with pytest.raises(UserError, match="holds the certificate of dealer: give --certs that of party0"):
        places("party0", None, None, path, tmp_path / "certs" / "dealer", False)
    with pytest.raises(UserError, match="contradict each other"):
        places("dealer", None, None, path, tmp_path / "certs" / "dealer", True)


def test_addresses_are_given_once(tmp_path: Path) -> None:
    for options in (("127.0.0.1:1", None), (None, "127.0.0.1:1")):
        with pytest.raises(UserError, match="--hosts names all addresses"):
            places("party0", *options, _file(tmp_path, HERE), None, False)
