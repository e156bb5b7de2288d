"""`mpcbench certs` by the program's own name."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from mpcbench.cli import main


def test_certs_are_made_once(tmp_path: Path) -> None:
    words = ["certs", "--out", str(tmp_path / "certs")]
    first, second = (CliRunner().invoke(main, words) for _ in range(2))
    assert first.exit_code == 0 and (tmp_path / "certs" / "dealer" / "key.pem").is_file()
    assert second.exit_code == 1 and "exists already: choose another --out" in second.output
