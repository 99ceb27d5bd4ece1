"""One real worker for the whole folder: TensorFlow is imported once, every run is a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from train.runs import Site, WorkerProcess, worker_process


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with worker_process(tmp_path_factory.mktemp("worker")) as process:
        yield process


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
