"""What a run of pytest with a mutant says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: A mutant of which nothing is known: it counts neither as killed nor as a survivor.
NOT_TRIED = "not tried"


def verdict(code: int | None, outcomes: Sequence[str], collects: Callable[[], bool]) -> str | None:
    """The test that fails with a mutant, or in what other way it is noticed; None if it survives.

    `code` is pytest's exit code (None: out of time), `outcomes` are its tests as `mapping.py` writes them, and `collects`
    says whether pytest finds the same tests without the mutant. What has another reason, such as a process that was killed,
    is `NOT_TRIED`.
    """
    if code is None:
        return "out of time"
    if code == 0:
        return None
    failed = [line.split(" ", 2)[2] for line in outcomes if line.split(" ", 2)[1] == "failed"]
    if code == 1 and failed:
        return failed[0]
    return "on import" if code in (2, 4) and collects() else NOT_TRIED
