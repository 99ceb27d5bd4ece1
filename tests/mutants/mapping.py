"""Which test reaches which line, in all processes that it starts: a plugin of coverage and one of pytest (run.py)."""

from __future__ import annotations

import os
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def coverage_init(registry: Any, options: Any) -> None:
    import coverage

    class ByTest(coverage.CoveragePlugin):
        """The context of a line is the test that pytest names in the environment, which all its processes inherit.

        Threads have the context of the main thread: there is one per process, and a thread that ended would take it away.
        """

        def dynamic_context(self, frame: FrameType) -> str | None:
            if threading.current_thread() is not threading.main_thread():
                return None
            return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0] or None

    registry.add_dynamic_context(ByTest())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line per phase of a test: seconds, outcome, test."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with open(os.environ["MUTANTS_OUTCOMES"], "a", encoding="utf-8") as file:
            file.write(f"{report.duration:.3f} {report.outcome} {report.nodeid}\n")
