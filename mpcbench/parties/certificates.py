"""Certificates for one run on several hosts: a private authority, and one certificate a role.

The authority's key is forgotten as soon as it has signed them: nobody can add a certificate later, and
there is no key to look after. Whoever needs another one makes all of them again.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpcbench.errors import UserError
from mpcbench.secure.tls import AUTHORITY, CERTIFICATE, KEY, ROLES

CLOCK_SKEW = timedelta(hours=1)
"""How far a host's clock may be behind that of the host which makes the certificates."""


def make_certificates(out: Path, days: int) -> list[Path]:
    """Write ``out/party0``, ``out/party1`` and ``out/dealer``; returns the folders.

    Each holds its own key, its certificate, and the authority's certificate. Only their owner can read
    them. They appear whole or not at all. Raises UserError when ``out`` has one of them already, or cannot
    be written.
    """
    folders = [out / role for role in ROLES]
    taken = [folder for folder in folders if folder.exists()]
    if taken:
        raise UserError(f"{taken[0]} exists already: choose another --out or remove it.")
    authority_key = generate_private_key(SECP256R1())
    authority = _authority(authority_key, days)
    parts = [folder.with_name(f".{folder.name}.part") for folder in folders]
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        for role, part in zip(ROLES, parts, strict=True):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            key = generate_private_key(SECP256R1())
            secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(part / KEY, secret, 0o600)
            _write(part / CERTIFICATE, _certificate(role, key, authority, authority_key), 0o644)
            _write(part / AUTHORITY, authority.public_bytes(Encoding.PEM), 0o644)
        for part, folder in zip(parts, folders, strict=True):
            part.rename(folder)
    except OSError as error:
        raise UserError(f"Cannot write to {out} ({error.strerror}): choose another --out.") from None
    finally:
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
    return folders


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _authority(key: EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder(_name("mpcbench"), _name("mpcbench"), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def _certificate(
    role: str, key: EllipticCurvePrivateKey, authority: x509.Certificate, signer: EllipticCurvePrivateKey
) -> bytes:
    """The certificate of ``role``, valid as long as the authority's, in PEM."""
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        x509.CertificateBuilder(authority.subject, _name(role), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(authority.not_valid_before_utc)
        .not_valid_after(authority.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(role)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=False,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
