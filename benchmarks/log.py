"""The log over many events: `python benchmarks/log.py [1000 10000]`.

Writes events into a new repository and times, median of five: reading all from git (cold), from the cache, and after one
new event; adding one; and `expmgr log` as a process. Held against `git log --first-parent` of the same chain, which reads
the commits and not what is in them.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from expmgr.disk.index import Index
from expmgr.git.repo import GitRepo
from expmgr.log.events import Noted, RunTold
from expmgr.log.logs import Draft, Logs
from expmgr.log.refs import OWN

WRITER = "bench-00000001"
REPEATS = 5


def timed(do: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    found = []
    for _ in range(REPEATS):
        before()
        began = time.perf_counter()
        do()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure(count: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="expmgr-bench-"))
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    repo = GitRepo.discover(folder)
    own = repo.git_common_dir / "expmgr"
    own.mkdir()

    def logs() -> Logs:
        return Logs(repo, Index(own / "index.sqlite", own / "runs"), own)

    values = {"variant": "iris/wide", "commit": repo.head(), "attempt": 1, "status": "finished", "step": 1000}
    values |= {"record": "0" * 64, "metric": "accuracy", "split": "eval", "value": 0.9}
    drafts = [
        Draft(RunTold, {**values, "run_id": f"20260101-{number:09d}-00000a", "seed": number}, {"record.json": b"{}"})
        for number in range(count)
    ]
    began = time.perf_counter()
    logs().append(WRITER, drafts, now=1.0, actor=None)
    written = time.perf_counter() - began
    note = Draft(Noted, {"variant": "iris/wide", "text": "x"})

    def add() -> None:
        logs().append(WRITER, [note], now=1.0, actor=None)

    cold = timed(lambda: logs().events(), lambda: (own / "index.sqlite").unlink(missing_ok=True))
    warm = timed(lambda: logs().events())
    after = timed(lambda: logs().events(), add)
    one = timed(add)
    command = [sys.executable, "-m", "expmgr", "-C", str(folder), "log"]
    process = timed(lambda: subprocess.run(command, check=True, capture_output=True))
    walk = timed(
        lambda: subprocess.run([*git, "log", "--first-parent", f"{OWN}{WRITER}"], check=True, capture_output=True)
    )
    print(
        f"{count:,} events: written {written:.2f} s; read cold {cold:.2f} s ({cold / walk:.1f} x git log), cached "
        f"{warm:.3f} s, after one new {after:.3f} s; one added {one:.3f} s; expmgr log {process:.2f} s; git log {walk:.2f} s"
    )
    shutil.rmtree(folder)


def main() -> None:
    for count in [int(one) for one in sys.argv[1:]] or [1_000, 10_000]:
        measure(count)


if __name__ == "__main__":
    main()
