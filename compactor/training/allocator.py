"""Memory that a training step frees is kept for the next step, where the C library lets us ask for it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory in the process while this lasts; glibc only, elsewhere nothing happens.

    By default glibc maps every large tensor afresh, and the kernel clears its pages again and again: a tenth of the
    time of a step on a CPU. Afterwards the memory goes back, and the thresholds to the highest that glibc adapts to.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_MAX, 65536)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)
        libc.malloc_trim(0)
