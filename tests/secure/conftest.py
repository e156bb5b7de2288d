"""One run of two party processes for all files here that need one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.secure.pair import run_pair
from tests.secure.two import measure


@pytest.fixture(scope="session")
def both() -> tuple[dict[str, Any], dict[str, Any]]:
    """Party 0's and party 1's answers, see :mod:`tests.secure.two`."""
    return run_pair(measure)
