"""TLS between parties: certificates of one private authority on both sides, and nothing older than TLS 1.3.

A certificate names a role (``party0``, ``party1``, ``dealer``), not a host, so that it moves with its
folder. Each end checks that the other one holds the role which it expects there.
"""

from __future__ import annotations

import errno
import socket
import ssl
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from mpcbench.errors import PeerError, UserError

ROLES = ("party0", "party1", "dealer")
AUTHORITY, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
"""The files of a folder that ``mpcbench certs`` makes for one role."""
_WELCOME, _WRONG_ROLE = b"+", b"-"
_MAKE = "take all folders from one `mpcbench certs`"


class TlsSocket(ssl.SSLSocket):
    """A TLS connection that behaves like a plain non-blocking socket, also when one thread sends and
    another receives, which OpenSSL does not allow by itself.

    One thing differs: after BlockingIOError the same bytes must be sent next, because OpenSSL has
    encrypted them already.
    """

    CHUNK = 1 << 16
    lock: threading.Lock

    def send(self, data: memoryview, flags: int = 0) -> int:
        with self.lock:
            try:
                return super().send(data[: self.CHUNK], flags)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                raise BlockingIOError(errno.EAGAIN, "the connection takes no more now") from None

    def recv_into(self, buffer: memoryview, nbytes: int | None = None, flags: int = 0) -> int:
        with self.lock:
            try:
                return super().recv_into(buffer, nbytes, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError(errno.EAGAIN, "nothing has arrived") from None


@dataclass(frozen=True)
class Credentials:
    """What a process proves its role with, and checks others by."""

    role: str
    server: ssl.SSLContext
    client: ssl.SSLContext


def read_credentials(folder: Path, role: str) -> Credentials:
    """The certificate in one of the folders that ``mpcbench certs`` wrote.

    Raises UserError when it is missing, damaged, expired, of another role, or open to other users.
    """
    from cryptography import x509

    try:
        mode = (folder / KEY).stat().st_mode
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
        contexts = [_context(kind, folder) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder} holds no certificate ({reason}): make one with `mpcbench certs`."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{folder / KEY} is open to other users: run `chmod 600 {folder / KEY}`.")
    if found != [role]:
        raise UserError(f"{folder} holds the certificate of {', '.join(found)}: give --certs that of {role}.")
    if certificate.not_valid_after_utc < datetime.now(timezone.utc):
        raise UserError(f"The certificate in {folder} has expired: make new ones with `mpcbench certs`.")
    return Credentials(role, *contexts)


def _context(kind: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / AUTHORITY)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    context.sslsocket_class = TlsSocket
    if kind == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # no session is ever resumed
    return context


def secured(
    connection: socket.socket, credentials: Credentials, peer: str, expected: Sequence[str],
    server_side: bool, wait: float,
) -> tuple[TlsSocket, str]:  # fmt: skip
    """``connection`` under TLS, and the role of the other end, which is one of ``expected``.

    Raises PeerError with one sentence that says what is wrong with whose certificate. In TLS 1.3 a client
    believes itself connected before the server has looked at its certificate: the server's first byte
    tells it the outcome.
    """
    connection.settimeout(wait)
    context = credentials.server if server_side else credentials.client
    tls = context.wrap_socket(
        connection, server_side=server_side, server_hostname=None if server_side else expected[0],
        do_handshake_on_connect=False,
    )  # fmt: skip
    try:
        tls.lock = threading.Lock()
        tls.do_handshake()
        role = _role(tls)
        answer = _WELCOME
        if server_side:
            tls.sendall(_WELCOME if role in expected else _WRONG_ROLE)
        else:
            answer = tls.recv(1)
        if role not in expected:
            raise PeerError(f"{peer} shows the certificate of {role}: give each its own folder.")
        if answer != _WELCOME:
            raise PeerError(f"{peer} does not expect {credentials.role} there: look at the addresses.")
    except TimeoutError:
        tls.close()
        raise PeerError(f"{peer} did not answer in TLS within {wait:g} s: give both ends --certs.") from None
    except OSError as error:
        tls.close()
        raise PeerError(_sentence(peer, error)) from None
    except PeerError:
        tls.close()
        raise
    return tls, role


def _role(tls: ssl.SSLSocket) -> str:
    names = [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "DNS"]
    return names[0] if len(names) == 1 else "nobody"


_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "shows no certificate: give it --certs, and " + _MAKE,
    "WRONG_VERSION_NUMBER": "does not speak TLS: give both ends --certs",
    "HTTP_REQUEST": "does not speak TLS: is another program on that port",
    "UNSUPPORTED_PROTOCOL": "speaks an older TLS than 1.3: update its OpenSSL",
    "TLSV1_ALERT_PROTOCOL_VERSION": "speaks an older TLS than 1.3: update its OpenSSL",
    "TLSV1_ALERT_UNKNOWN_CA": "refuses this certificate, which another authority has signed: " + _MAKE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "refuses this certificate, which has expired there: make new ones",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "asks for a certificate: give this end --certs, and " + _MAKE,
    "SSLV3_ALERT_BAD_CERTIFICATE": "refuses this certificate: " + _MAKE,
}
_X509_EXPIRED, _X509_NOT_YET_VALID, _X509_OTHER_NAME = 10, 9, 62


def _sentence(peer: str, error: Exception) -> str:
    """What the other end's certificate, or its opinion of ours, lacks."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (_X509_EXPIRED, _X509_NOT_YET_VALID):
            return f"{peer} shows a certificate that is not valid today: look at its clock, or make new ones."
        if error.verify_code == _X509_OTHER_NAME:
            return f"{peer} shows the certificate of another role: give each its own folder."
        return f"{peer} shows a certificate that another authority has signed: {_MAKE}."
    reason = getattr(error, "reason", None)
    if reason in _REASONS:
        return f"{peer} {_REASONS[reason]}."
    words = reason or getattr(error, "strerror", None) or "the connection was closed"
    return f"{peer} did not complete the TLS handshake ({words}): look at its own output."
