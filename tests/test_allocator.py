from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from mpcbench.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from mpcbench.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for count in range(40):
    if count == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_used_again() -> None:
    assert faults("give") > 4 * max(faults("keep"), 1)


def test_other_c_libraries_go_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed_memory() is False
