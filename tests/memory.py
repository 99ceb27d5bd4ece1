"""A limit of memory for code that must not fill it."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def at_most(size_bytes: int) -> Iterator[None]:
    """Python raises `MemoryError` inside, if this process takes that much more than it has now; so do programs it starts."""
    if sys.platform != "linux":  # macOS has the limit and does not hold it
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = has + size_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if before[1] < 0 else min(wanted, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def most_bytes() -> int:
    """The most memory that this process has used. Says something of a part of its work only in a process that is young."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1024 if sys.platform == "linux" else 1)
