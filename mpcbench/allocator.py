"""Memory that was freed stays with the process.

glibc gives an array of more than 32 MB back to the kernel when it is freed and asks for it again at the next
one, and the kernel fills in its pages one fault at a time: half of a dealer's time, a tenth of a party's.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> bool:
    """From now on take large arrays from the heap and never shrink it; False where there is no glibc.

    Peak memory is what it was; less than the peak is not given back before the process ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
