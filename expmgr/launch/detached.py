"""`run --detach`: starts the command again in its own session, so that it outlives the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from expmgr.disk import durable
from expmgr.errors import ExitCode, ExpmgrError, apart_from
from expmgr.launch.plan import Task
from expmgr.project import Project
from expmgr.runs.record import RunRecord

_POLL_S = 0.1


class DetachedFailed(ExpmgrError):
    """The command in the background ended before a run had begun. `details` are the last lines that it printed."""

    def after(self, done: Sequence[str]) -> None:
        """Also in the story among `details`: the command in the background did not do what was `done` before it started."""
        begins = next(
            (number for number, line in enumerate(self.details) if line.startswith("Error: ")), len(self.details)
        )
        story = tuple(apart_from(done, line) for line in self.details[begins:])
        if done and story == self.details[begins:]:
            what = " and ".join(done)
            self.left_alone = (
                f"{what[0].upper()}{what[1:]} {'stays as it is' if len(done) == 1 else 'stay as they are'}."
            )
        self.details = (*self.details[:begins], *story)


@dataclass(frozen=True)
class Started:
    """A command in the background, what it says, and the runs that it has begun."""

    pid: int
    log: Path
    runs: tuple[RunRecord, ...]


def start_detached(
    project: Project, arguments: Sequence[str], tasks: Sequence[Task], told: Collection[str] = ()
) -> Started:
    """Start `expmgr <arguments>` in a session of its own, and wait until its first run has begun or it has ended. `told`:
    lines that were said already, which an error leaves out."""
    folder = project.layout.own / "detached"
    durable.make_folder(folder)
    log = folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}.log"
    with open(log, "xb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "expmgr", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    while True:
        is_over = process.poll() is not None
        runs = tuple(_begun(project, process.pid, tasks))
        if runs:
            return Started(process.pid, log, runs)
        if is_over:
            break
        time.sleep(_POLL_S)
    lines = [one for one in log.read_text(encoding="utf-8", errors="replace").splitlines() if one not in told]
    if process.returncode == ExitCode.DONE:  # all had been done before
        return Started(process.pid, log, ())
    error = DetachedFailed("no run has begun", details=lines[-20:])
    error.exit_code = ExitCode(process.returncode) if process.returncode in list(ExitCode) else ExitCode.BUG
    raise error


def _begun(project: Project, pid: int, tasks: Sequence[Task]) -> list[RunRecord]:
    """The runs of `tasks` that the process `pid` has begun: those that are ready, or have ended."""
    found = []
    for task in tasks:
        record = project.records.newest(task.name, task.seed)
        if record is not None and record.attempts[-1].launcher.get("pid") == pid and record.status != "starting":
            found.append(record)
    return found
