from __future__ import annotations

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """mpcbench's cache is a folder of the test's own."""
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
