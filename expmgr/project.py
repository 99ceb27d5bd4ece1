"""`Project`, the repository that a command works in: git, settings, paths and records."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from expmgr.disk import durable
from expmgr.errors import ExpmgrError, RecordDamaged
from expmgr.git.repo import GitRepo
from expmgr.log.refs import keep_ref
from expmgr.paths import Layout, VariantName
from expmgr.runs.records import Records
from expmgr.settings import Settings, models_root, read_settings

if TYPE_CHECKING:
    from expmgr.checkpoints.model_dir import ModelDir
    from expmgr.log.logs import Logs
    from expmgr.runs.record import RunRecord


@dataclass(frozen=True)
class Project:
    """A repository that expmgr works in. Nothing is written by opening it, but for what a crash left (`sweep_up`)."""

    repo: GitRepo
    settings: Settings
    layout: Layout
    records: Records
    is_scratch: bool = False
    """Whether runs and model_dirs lie in a temporary folder, and nothing is recorded in the repository."""

    def scratch(self, folder: Path) -> Project:
        """The same repository, with everything that a run writes in `folder`."""
        layout = Layout(folder, folder / "models")
        return Project(self.repo, self.settings, layout, Records(layout, self.records.on_note), is_scratch=True)

    @cached_property
    def logs(self) -> Logs:
        """The repository's logs, a scratch project's too. Made when they are asked for: importing what an event is takes as
        long as all else that `list` does."""
        from expmgr.log.logs import Logs

        own = Layout(self.repo.git_common_dir, self.layout.models_root)
        index = Records(own).index if self.is_scratch else self.records.index
        return Logs(self.repo, index, own.own)

    @classmethod
    def open(cls, folder: Path, on_note: Callable[[str], None] = lambda _: None) -> Project:
        """The project that `folder` is in; `NotARepository` where there is none. `on_note` is told which records cannot be
        read, whatever is done with the project."""
        repo = GitRepo.discover(folder)
        repo.on_note = on_note
        settings = read_settings(repo.root, repo.git_common_dir / "expmgr")
        layout = Layout(repo.git_common_dir, models_root(settings, repo.main_root))
        project = cls(repo, settings, layout, Records(layout, on_note, repo))
        project.sweep_up()
        return project

    def sweep_up(self) -> list[RunRecord]:
        """End the runs whose processes were killed: their record says so, their checkouts go, their commits stay."""
        ended: list[RunRecord] = []
        if not self.records.abandoned():
            return ended
        # Not in another's repository, on a read-only disk, or where git says no: the next command tries again.
        with contextlib.suppress(OSError, ExpmgrError), self._sweeping() as mine:
            for run_id in self.records.abandoned() if mine else ():
                try:
                    record = self.records.load(run_id)
                except FileNotFoundError:
                    record = None
                except RecordDamaged:  # the command that needs it says so
                    continue
                if record is None or not self.records.has_begun(record):
                    self._forget(run_id, record)
                else:
                    ended.append(self.records.finish(run_id, killed=True))
        return ended

    @contextlib.contextmanager
    def _sweeping(self) -> Iterator[bool]:
        """Whether this process sweeps up: one at a time, for two would fold the same events and one find them gone."""
        with open(self.layout.own / "sweep.lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _forget(self, run_id: str, record: RunRecord | None) -> None:
        """Take back a start that was cut before anything began."""
        earlier = record.attempts[:-1] if record else []
        if record is not None and earlier:
            before = record.model_copy(update={"attempts": earlier, "status": earlier[-1].status})
            self.records.withdraw(run_id, before)
        else:
            self.repo.delete_ref(keep_ref(run_id))
            self.records.withdraw(run_id)  # last: as long as the run is listed as active, somebody tries again

    def ignore_models(self) -> None:
        """Have git ignore the model_dirs, in this clone alone, where they lie in the main worktree."""
        try:
            inside = self.layout.models_root.relative_to(self.repo.main_root)
        except ValueError:
            return
        exclude = self.repo.git_common_dir / "info" / "exclude"
        line = f"/{inside.as_posix()}/"
        text = exclude.read_text(encoding="utf-8") if exclude.exists() else ""
        if line not in text.splitlines():
            exclude.parent.mkdir(exist_ok=True)
            gap = "" if not text or text.endswith("\n") else "\n"
            durable.write_bytes(exclude, f"{text}{gap}{line}\n".encode())

    def model_dir(self, name: VariantName, seed: int) -> ModelDir:
        """The model_dir of one seed of a variant."""
        from expmgr.checkpoints.model_dir import ModelDir

        path = self.layout.model_dir(name, seed)
        return ModelDir(path, shown=self.shown(path), variant=str(name), seed=seed)

    def shown(self, path: Path) -> str:
        """`path` as people read it: relative to the main worktree where it lies in it."""
        with contextlib.suppress(ValueError):
            return str(path.relative_to(self.repo.main_root))
        return str(path)
