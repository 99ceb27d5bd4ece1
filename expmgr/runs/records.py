"""The records of all runs: begins, lists, finds and ends them in `.git/expmgr/runs/`.

While a run goes on, its folder holds `run.json` (what was known at the start) and `events.jsonl` (what happened since).
When it ends, both are folded into `run.json`, which is then never rewritten: a further attempt is added. A reader folds
by itself what nobody folded, so a run whose process was killed is shown as killed without anybody's help.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from expmgr.disk import durable
from expmgr.disk.index import Head, Index, is_final
from expmgr.errors import ExpmgrError, UnknownRun
from expmgr.paths import Layout, RunDir, VariantName
from expmgr.runs.origin import is_foreign

if TYPE_CHECKING:
    from expmgr.runs.record import RunRecord

# record and folding are imported where they are used: a list by the index reads no record, and should not wait for pydantic.


class Records:
    """All runs of a repository, as folders below `.git/expmgr/runs/`."""

    def __init__(self, layout: Layout, on_note: Callable[[str], None] = lambda _: None) -> None:
        """`on_note` is told of each record that cannot be read, once."""
        self.layout = layout
        self.on_note = on_note
        self.unreadable: dict[str, str] = {}
        """Run id to reason: records that `heads` and `abandoned` skipped."""
        self.index = Index(layout.own / "index.sqlite", layout.runs)

    def run_dir(self, run_id: str) -> RunDir:
        return RunDir(self.layout.run_dir(run_id))

    # Writing.

    def begin(self, record: RunRecord) -> RunDir:
        """Write the record of a run that starts now, or of one that starts another attempt."""
        folder = self.run_dir(record.run_id)
        durable.make_folder(self.layout.active)
        durable.make_folder(folder.path)
        # Before the record: a crash in between must leave something that the next command finds.
        durable.write_json(self.layout.active / record.run_id, record.attempts[-1].launcher)
        folder.events.unlink(missing_ok=True)
        self._write(record)
        return folder

    def withdraw(self, run_id: str, before: RunRecord | None = None) -> None:
        """Take back a run that did not begin: as if it had never been asked for (`before`: its earlier attempts)."""
        folder = self.run_dir(run_id)
        if before is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        else:
            self._write(before)
            self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)

    def finish(self, run_id: str, *, killed: bool = False) -> RunRecord:
        """Fold the events into the record, for good; `killed` where the run's process did not say its last word."""
        from expmgr.runs.folding import ended_by

        folder = self.run_dir(run_id)
        record = self._folded(run_id)
        if killed and not record.has_ended:
            record = ended_by(record, "killed", None)
        self._write(record)
        self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)
        return record

    def _write(self, record: RunRecord) -> None:
        durable.write_json(self.run_dir(record.run_id).record, record.model_dump(mode="json"))

    @staticmethod
    def _clear(folder: RunDir) -> None:
        shutil.rmtree(folder.code, ignore_errors=True)
        for path in (folder.events, folder.progress, folder.request, *folder.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)

    # Reading.

    def load(self, run_id: str) -> RunRecord:
        """The record, as it stands: `killed` where it says that it runs and its processes are gone."""
        from expmgr.runs.folding import ended_by
        from expmgr.runs.record import is_abandoned

        record = self._folded(run_id)
        if not record.has_ended and is_abandoned(record):
            record = ended_by(record, "killed", None)
        return record

    def heads(self) -> list[Head]:
        """The head of every run, the oldest first, by the index.

        A folder without a record (a start that a crash cut) is skipped; so is one whose record cannot be read,
        which `unreadable` then names.
        """
        return self.index.heads(self._listed)

    def _listed(self, run_id: str) -> tuple[dict[str, Any], bool] | None:
        """A record as its JSON has it, and whether that is its last word; None for one that is not to be listed."""
        try:
            content = json.loads(self.run_dir(run_id).record.read_bytes())
            if is_final(content):
                return content, True
        except (OSError, ValueError):
            pass  # below it is told in words
        found = next(self._loaded([run_id]), None)
        return (found.model_dump(mode="json"), False) if found is not None else None

    def all(self) -> Iterator[RunRecord]:
        """Every run, whole, the oldest first; see `heads`."""
        yield from self._loaded(head.run_id for head in self.heads())

    def _loaded(self, run_ids: Iterable[str]) -> Iterator[RunRecord]:
        for run_id in run_ids:
            try:
                record = self.load(run_id)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ExpmgrError, OSError) as problem:
                self._skip(run_id, problem)
                continue
            if record.status != "starting":
                yield record

    def _skip(self, run_id: str, problem: Exception) -> None:
        reason = getattr(problem, "message", str(problem))
        if self.unreadable.get(run_id) != reason:
            self.unreadable[run_id] = reason
            self.on_note(f"run {run_id} was skipped: {reason}")

    def unreadable_of(self, variant: VariantName, seed: int | None = None) -> list[str]:
        """Ids of the records of a variant, or of one of its seeds, that cannot be read, the oldest first: as far as their
        JSON says whose they are."""
        self.heads()
        found = []
        for run_id in sorted(self.unreadable):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                values = json.loads(self.run_dir(run_id).record.read_bytes())
                if values.get("variant") == str(variant) and seed in (None, values.get("seed")):
                    found.append(run_id)
        return found

    def whole(self, heads: Iterable[Head]) -> list[RunRecord]:
        """The records of `heads`, in the same order; what went or broke in between is left out."""
        return list(self._loaded(head.run_id for head in heads))

    def of_variant(self, variant: VariantName) -> list[RunRecord]:
        """The variant's runs, the oldest first."""
        return self.whole(head for head in self.heads() if head.variant == str(variant))

    def newest(self, variant: VariantName, seed: int, *, foreign: bool = False) -> RunRecord | None:
        """The newest run of that seed that expmgr trained in this clone; with `foreign` in any."""
        found = (head for head in reversed(self.heads()) if (head.variant, head.seed) == (str(variant), seed))
        wanted = (
            one.run_id for one in found if one.by_hand is None and (foreign or not is_foreign(self.run_dir(one.run_id)))
        )
        return next(self._loaded(wanted), None)

    def code_digest(self, commit: str, name: VariantName, made: Callable[[], str]) -> str:
        """The code digest of a variant at a commit, made once."""
        return self.index.code_digest(commit, str(name), made)

    def find(self, name: str) -> RunRecord | None:
        """The run whose id is `name` or begins with it; `UnknownRun` where several do, None where none does."""
        if not name or "/" in name or not self.layout.runs.is_dir():
            return None
        found = [path.name for path in self.layout.runs.iterdir() if path.name.startswith(name)]
        if len(found) > 1:
            more = [f"and {len(found) - 5} more"] if len(found) > 5 else []
            raise UnknownRun(f"{len(found)} runs begin with {name}", details=[*sorted(found)[:5], *more])
        try:
            return self.load(found[0]) if found else None
        except FileNotFoundError:
            return None

    def progress(self, run_id: str) -> dict[str, Any]:
        """What a run that goes on said last (`phase`, `step`, `loss` and so on); empty where it said nothing yet."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self.run_dir(run_id).progress.read_text(encoding="utf-8"))
            return found
        return {}

    def abandoned(self) -> list[str]:
        """Runs whose processes are gone without having said so: what a crash left for the next command."""
        active = sorted(self.layout.active.iterdir()) if self.layout.active.is_dir() else []
        if not active:
            return []
        from expmgr.runs.record import ON_ITS_WAY_SECS, is_abandoned, is_gone

        found = []
        for path in active:
            if path.name.startswith("."):  # a marker on its way; a crash may have left it there
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > ON_ITS_WAY_SECS:
                        path.unlink()
                continue
            try:
                record = self._folded(path.name)
            except FileNotFoundError:
                if is_gone(path):
                    found.append(path.name)
                continue
            except ExpmgrError as problem:
                self._skip(path.name, problem)
                continue
            if record.has_ended and not is_gone(path):  # another attempt is being begun
                continue
            if is_abandoned(record):
                found.append(path.name)
        return found

    def _folded(self, run_id: str) -> RunRecord:
        from expmgr.runs.events import read_events
        from expmgr.runs.folding import fold
        from expmgr.runs.record import parse_record

        folder = self.run_dir(run_id)
        record = parse_record(folder.record)
        if record.has_ended:  # folded before, and the crash came before the events went
            return record
        events, _ = read_events(folder)
        return fold(record, events) if events else record
