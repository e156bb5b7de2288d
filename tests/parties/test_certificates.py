"""What `mpcbench certs` writes: a folder a role, for its owner's eyes alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from mpcbench.cli.certs import command
from mpcbench.errors import UserError
from mpcbench.parties.certificates import make_certificates
from mpcbench.secure.tls import ROLES


def test_each_role_gets_a_folder_that_only_its_owner_can_read(tmp_path: Path) -> None:
    out = tmp_path / "new" / "certs"
    assert make_certificates(out, 30) == [out / role for role in ROLES]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for role in ROLES:
        folder = out / role
        assert {file.name for file in folder.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600


def test_certificates_are_of_one_authority_whose_key_is_nowhere(tmp_path: Path) -> None:
    make_certificates(tmp_path, 30)
    authorities = {(tmp_path / role / "ca.pem").read_bytes() for role in ROLES}
    (authority,) = (x509.load_pem_x509_certificate(text) for text in authorities)
    for role in ROLES:
        certificate = x509.load_pem_x509_certificate((tmp_path / role / "cert.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [role]
        assert 29 <= (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days <= 30
        assert certificate.public_key() != authority.public_key()
    keys = [file for file in tmp_path.rglob("*") if file.is_file() and b"PRIVATE" in file.read_bytes()]
    assert sorted(keys) == sorted(tmp_path / role / "key.pem" for role in ROLES)


def test_existing_certificates_stay(tmp_path: Path) -> None:
    make_certificates(tmp_path, 30)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.pem")}
    with pytest.raises(UserError, match=r"party0 exists already: choose another --out or remove it\."):
        make_certificates(tmp_path, 30)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.pem")} == before


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to .*file/certs \(.+\): choose another --out\."):
        make_certificates(tmp_path / "file" / "certs", 30)


def test_command_says_whose_each_folder_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--out", str(tmp_path / "certs"), "--days", "7"])
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'certs' / 'dealer'}: for dealer alone, valid for 7 days\n" in result.output
