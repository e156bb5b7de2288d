"""Links under TLS: all that a plain link does, and nobody comes in without the right certificate."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from mpcbench.errors import PeerError, UserError
from mpcbench.parties import certificates
from mpcbench.parties.certificates import make_certificates
from mpcbench.secure.meeting import connect
from mpcbench.secure.tls import read_credentials
from mpcbench.secure.transport import HEADER_BYTES, Link
from tests.secure.certified import OWNER, credentials, met, raw, tls_links
from tests.secure.links import CONTROL, frame, outcomes, swap, together


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls") / "certs"
    make_certificates(folder, 1)
    return folder


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority."""
    folder = tmp_path_factory.mktemp("tls") / "strangers"
    make_certificates(folder, 1)
    return folder


# A link like any other.


@pytest.mark.parametrize("size", [0, 1, 33 << 10, 20 << 20])
def test_payload_crosses_both_ways_and_is_counted_without_tls(certs: Path, size: int) -> None:
    mine, theirs = os.urandom(size), os.urandom(size)
    first, second = tls_links(certs)
    assert together(lambda: swap(first, mine), lambda: swap(second, theirs)) == (theirs, mine)
    for link in (first, second):
        assert (link.wire.payload_sent, link.wire.other_sent) == (size, HEADER_BYTES)
        link.close()


def test_ends_know_who_is_at_the_other(certs: Path) -> None:
    first, second = tls_links(certs)
    assert (first.role, second.role) == ("party1", "party0")
    assert first.connection.version() == second.connection.version() == "TLSv1.3"
    first.close()
    second.close()


def test_many_small_exchanges_and_a_late_reader(certs: Path) -> None:
    """Bytes that OpenSSL holds decrypted are not forgotten, though the socket has no more to read."""
    first, second = tls_links(certs)
    for link in (first, second):
        link.tell({"x": 1})
        link.tell({"x": 2})
    for link in (first, second):
        assert [link.hear(), link.hear()] == [{"x": 1}, {"x": 2}]
    got = together(
        lambda: [swap(first, bytes([i % 256] * 9)) for i in range(500)],
        lambda: [swap(second, bytes([i % 251] * 9)) for i in range(500)],
    )
    assert got[0] == [bytes([i % 251] * 9) for i in range(500)]
    first.close()
    second.close()


def test_one_thread_may_send_while_another_receives(certs: Path) -> None:
    """As an emulated line does; OpenSSL alone would break its own state."""
    first, second = tls_links(certs)
    sent = os.urandom(8 << 20)

    def trickle(link: Link) -> None:
        left = memoryview(sent)
        while left:
            with contextlib.suppress(BlockingIOError):
                left = left[link.connection.send(left) :]

    def collect(link: Link) -> bytes:
        into = memoryview(bytearray(len(sent)))
        done = 0
        while done < len(sent):
            with contextlib.suppress(BlockingIOError):
                done += link.connection.recv_into(into[done:])
        return bytes(into)

    senders = [threading.Thread(target=trickle, args=(link,)) for link in (first, second)]
    for sender in senders:
        sender.start()
    assert together(lambda: collect(first), lambda: collect(second)) == (sent, sent)
    for sender in senders:
        sender.join()
    first.close()
    second.close()


def test_what_is_on_the_line_cannot_be_read(certs: Path) -> None:
    """Between the ends goes no byte of the payload."""
    secret = b"the capital of France is Paris" * 100
    seen = bytearray()

    def relay(host: str, port: int) -> Link:
        middle = socket.create_server(("127.0.0.1", 0))
        out = socket.create_connection((host, port))

        def pump(source: socket.socket, sink: socket.socket) -> None:
            while data := source.recv(1 << 16):
                seen.extend(data)
                sink.sendall(data)

        def run() -> None:
            inner, _ = middle.accept()
            threading.Thread(target=pump, args=(out, inner), daemon=True).start()
            pump(inner, out)

        threading.Thread(target=run, daemon=True).start()
        return connect(*middle.getsockname(), OWNER, 5, 5, credentials(certs, "party1"))

    first, second = met(credentials(certs, "party0"), relay)
    assert together(lambda: swap(first, secret), lambda: swap(second, secret)) == (secret, secret)
    assert len(seen) > 2 * len(secret)
    assert secret[:8] not in seen
    first.close()
    second.close()


def test_peer_that_dies_is_noticed(certs: Path) -> None:
    first, second = tls_links(certs)
    second.connection.close()
    with pytest.raises(PeerError, match="has closed the connection"):
        swap(first, bytes(20 << 20))
    first.close()


# Who is refused, and what both ends say.


def _both(certs: Path, theirs: Path, role: str = "party1", wants: str = "party0") -> tuple[str, str]:
    mine = credentials(certs, "party0")
    visitor = credentials(theirs, role)
    caught = met(mine, lambda host, port: connect(host, port, OWNER, 5, 5, visitor, wants))
    for error in caught:
        assert isinstance(error, PeerError), caught
        assert "\n" not in str(error)
    return str(caught[0]), str(caught[1])


def test_another_authority_is_named_at_both(certs: Path, strangers: Path) -> None:
    """The client looks first; that it turns away is what the model owner hears."""
    mine, theirs = _both(certs, strangers)
    assert theirs == (
        f"{OWNER} shows a certificate that another authority has signed: "
        "take all folders from one `mpcbench certs`."
    )
    assert mine.startswith("party 1 (client) refuses this certificate, which another authority has signed")


def test_client_of_another_authority_that_trusts_ours(certs: Path, strangers: Path, tmp_path: Path) -> None:
    mixed = shutil.copytree(strangers, tmp_path / "mixed")
    shutil.copy(certs / "party1" / "ca.pem", mixed / "party1" / "ca.pem")
    mine, theirs = _both(certs, mixed)
    assert mine.startswith("party 1 (client) shows a certificate that another authority has signed")
    assert theirs.startswith(f"{OWNER} refuses this certificate, which another authority has signed")


def test_wrong_role_is_named_at_both(certs: Path) -> None:
    mine, theirs = _both(certs, certs, role="dealer")
    assert mine == "party 1 (client) shows the certificate of dealer: give each its own folder."
    assert theirs == f"{OWNER} does not expect dealer there: look at the addresses."


def test_who_meets_another_role_than_expected_says_so(certs: Path) -> None:
    _, theirs = _both(certs, certs, wants="dealer")
    assert theirs == f"{OWNER} shows the certificate of another role: give each its own folder."


def test_expired_certificate(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Earlier(datetime):
        @classmethod
        def now(cls, tz: timezone | None = None) -> datetime:
            return datetime.now(tz) - timedelta(days=3)

    monkeypatch.setattr(certificates, "datetime", Earlier)
    make_certificates(tmp_path / "old", 1)
    with pytest.raises(UserError, match=r"has expired: make new ones"):
        credentials(tmp_path / "old", "party1")


def test_client_without_a_certificate(certs: Path) -> None:
    def visit(host: str, port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certs / "party1" / "ca.pem")
        with socket.create_connection((host, port)) as connection:
            return context.wrap_socket(connection, server_hostname="party0").recv(1)

    caught, alert = met(credentials(certs, "party0"), visit)
    assert str(caught).startswith("party 1 (client) shows no certificate: give it --certs")
    assert isinstance(alert, ssl.SSLError)


def test_older_tls_is_refused(certs: Path) -> None:
    def visit(host: str, port: int) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certs / "party1" / "ca.pem")
        context.load_cert_chain(certs / "party1" / "cert.pem", certs / "party1" / "key.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection((host, port)) as connection:
            return context.wrap_socket(connection, server_hostname="party0").recv(1)

    caught, _ = met(credentials(certs, "party0"), visit)
    assert str(caught) == "party 1 (client) speaks an older TLS than 1.3: update its OpenSSL."


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (frame(CONTROL, b"{}"), "does not speak TLS: give both"),
        (b"GET / HTTP/1.1\r\n\r\n", "another program"),
    ],
    ids=["plaintext party", "another program"],
)
def test_plaintext_at_a_door_with_tls(certs: Path, sent: bytes, words: str) -> None:
    caught, _ = met(credentials(certs, "party0"), raw(sent))
    assert str(caught).startswith("party 1 (client) does not speak TLS")
    assert words in str(caught)


def test_tls_and_plaintext_parties_understand_what_is_wrong(certs: Path) -> None:
    """Party 0 was started without TLS: it says so, and the client understands."""

    def owner() -> object:
        link = plain
        try:
            return link.hear()
        except PeerError as error:
            link.fail(str(error))
            link.close()
            return error

    from mpcbench.secure.meeting import accept, listen

    with listen("127.0.0.1", 0) as server:
        address = server.getsockname()
        visitor = credentials(certs, "party1")

        def serve() -> object:
            nonlocal plain
            plain = accept(server, "party 1 (client)", 5, 5)
            return owner()

        plain: Link
        mine, theirs = outcomes(serve, lambda: connect(*address, OWNER, 5, 5, visitor))
    assert str(mine) == "party 1 (client) speaks TLS and this end does not: give both ends --certs."
    assert str(theirs) == f"{OWNER} does not speak TLS: give both ends --certs."


def test_silent_visitor_is_given_up(certs: Path) -> None:
    caught, _ = met(
        credentials(certs, "party0"), lambda host, port: socket.create_connection((host, port)).recv(1)
    )
    assert str(caught).startswith("party 1 (client) did not answer in TLS within 5 s")


# What is wrong with this side's own folder.


def test_folder_without_certificates(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no certificate \(No such file or directory\): make one"):
        read_credentials(tmp_path, "party0")


def test_folder_of_another_role(certs: Path) -> None:
    with pytest.raises(UserError, match=r"holds the certificate of party1: give --certs that of party0\."):
        read_credentials(certs / "party1", "party0")


@pytest.mark.parametrize("file", ["ca.pem", "cert.pem", "key.pem"])
def test_damaged_file(certs: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(certs / "party0", tmp_path / "party0")
    (folder / file).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(UserError, match="holds no certificate"):
        read_credentials(folder, "party0")


def test_key_that_others_can_read(certs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(certs / "party0", tmp_path / "party0")
    (folder / "key.pem").chmod(0o640)
    with pytest.raises(UserError, match=r"key\.pem is open to other users: run `chmod 600 .*key\.pem`"):
        read_credentials(folder, "party0")
