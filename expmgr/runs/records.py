"""The records of all runs: begins, lists, finds and ends them in `.git/expmgr/runs/`.

While a run goes on, its folder holds `run.json` (what was known at the start) and `events.jsonl` (what happened since).
When it ends, both are folded into `run.json`, which is then never rewritten: a further attempt is added. A reader folds
by itself what nobody folded, so a run whose process was killed is shown as killed without anybody's help.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expmgr.disk import durable
from expmgr.disk.index import Head, Index, is_final, stamp_of
from expmgr.disk.json_text import parse_json
from expmgr.errors import ExpmgrError, RecordDamaged, UnknownRun
from expmgr.paths import Layout, RunDir, VariantName
from expmgr.runs.log_check import LogCheck
from expmgr.runs.origin import is_foreign

if TYPE_CHECKING:
    from expmgr.git.repo import GitRepo
    from expmgr.runs.empty_folders import EmptyFolder
    from expmgr.runs.record import RunRecord

# record and folding are imported where they are used: a list by the index reads no record, and should not wait for pydantic.

#: What folding raises for lines that are whole, and still not what an expmgr writes: they are not validated one by one.
_NO_EVENTS = (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError)


#: A run may end, and be told, while its record is looked at: not more of them at once.
_SECOND_LOOKS = 5


@dataclass(frozen=True)
class SkippedRun:
    """A run whose record is not used, and why. `variant` and `seed` are None if neither the event log nor the file says
    whose it is."""

    run_id: str
    reason: str
    variant: str | None
    seed: int | None
    is_damaged: bool
    """The record was changed or is broken. Otherwise a newer version wrote it, or the file cannot be opened."""
    is_in_log: bool = False
    """Whether the event log has the record, so that `restore` can bring it back."""
    hint: str | None = None

    @property
    def status(self) -> str:
        return "damaged" if self.is_damaged else "unreadable"

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "variant": self.variant,
            "seed": self.seed,
            "status": self.status,
            "reason": self.reason,
        }


class Records:
    """All runs of a repository, as folders below `.git/expmgr/runs/`."""

    def __init__(
        self,
        layout: Layout,
        on_note: Callable[[str], None] = lambda _: None,
        repo: GitRepo | None = None,
        *,
        is_diagnosis: bool = False,
    ) -> None:
        """`on_note` is told of each record that is skipped, once. Records are checked against the event logs of `repo`. A
        diagnosis trusts no index, and reading changes nothing."""
        self.layout = layout
        self.on_note = on_note
        self.skipped: dict[str, SkippedRun] = {}
        """By run id: the records that `heads` and `abandoned` skipped."""
        self._damaged: set[str] = set()
        """Runs of whose damaged events `on_note` was told."""
        self._is_diagnosis = is_diagnosis
        self.index = Index(None if is_diagnosis else layout.own / "index.sqlite", layout.runs)
        self._log = LogCheck(repo, self.index, layout.own) if repo is not None else None
        self._confirmed: dict[str, str] = {}
        """Run id to the stamp of the record that the log was seen to name."""
        self._second_looks = _SECOND_LOOKS

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
        if folder.record.exists():  # byte for byte, as the log names it: for `withdraw`
            durable.write_bytes(folder.before, folder.record.read_bytes())
        self._write(record)
        return folder

    def withdraw(self, run_id: str, before: RunRecord | None = None) -> None:
        """Take back a run that did not begin: as if it had never been asked for (`before`: its earlier attempts)."""
        folder = self.run_dir(run_id)
        if before is None:
            shutil.rmtree(folder.path, ignore_errors=True)
        else:
            if folder.before.exists():
                durable.write_bytes(folder.record, folder.before.read_bytes())
            else:
                self._write(before)
            self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)

    def finish(self, run_id: str, *, killed: bool = False) -> RunRecord:
        """Fold the events into the record, for good; `killed` where the run's process did not say its last word."""
        from expmgr.runs.folding import ended_by
        from expmgr.runs.record import parse_record

        folder = self.run_dir(run_id)
        as_written = parse_record(folder.record)
        if not as_written.has_ended:
            record = self._folded(run_id)
            if killed and not record.has_ended:
                record = ended_by(record, "killed", None)
            if record.attempts[-1].damaged_lines and folder.events.exists():
                kept = folder.damaged_events(record.attempts[-1].number)
                kept.unlink(missing_ok=True)
                durable.copy_file(folder.events, kept)
            self._write(record)
        else:  # folded before, and never rewritten
            record = as_written
        self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)
        return record

    def put_back(self, run_id: str, content: bytes) -> list[str]:
        """Replace the record of a run that has ended by `content`, its record as the event log has it. The names of the files
        in the run's folder that keep what was there: its record, and events that are in no record."""
        folder = self.run_dir(run_id)
        durable.make_folder(folder.path)
        kept = [
            _kept(path, form) for path, form in ((folder.record, "damaged-{}.json"), (folder.events, "damaged-{}.events.jsonl"))
            if path.exists()
        ]  # fmt: skip
        durable.write_bytes(folder.record, content)
        self._clear(folder)
        (self.layout.active / run_id).unlink(missing_ok=True)
        return kept

    def _write(self, record: RunRecord) -> None:
        durable.write_json(self.run_dir(record.run_id).record, record.model_dump(mode="json"))

    @staticmethod
    def _clear(folder: RunDir) -> None:
        shutil.rmtree(folder.code, ignore_errors=True)
        for path in (folder.events, folder.progress, folder.request, folder.before, *folder.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)

    # Reading.

    def load(self, run_id: str) -> RunRecord:
        """The record as it is now: `killed` if it says that it runs and its processes are gone.

        Raises `RecordDamaged` if it is not the one that the event log names.
        """
        self._forget_log()
        return self._load(run_id)

    def _load(self, run_id: str) -> RunRecord:
        """As `load`, by what the logs were last seen to say."""
        from expmgr.runs.folding import ended_by
        from expmgr.runs.record import is_abandoned

        self._check(run_id)
        record = self._folded(run_id)
        if not record.has_ended and is_abandoned(record):
            record = ended_by(record, "killed", None)
        return record

    def heads(self) -> list[Head]:
        """The head of every run, the oldest first, by the index.

        A folder without a record (a start that a crash cut) is not listed; nor is one whose record cannot be read or is not
        the one that the event log names, which `skipped` then has.
        """
        self._forget_log()
        heads = self.index.heads(self._listed, self._is_current)
        for head in heads:  # it may have been restored
            self.skipped.pop(head.run_id, None)
        self._confirmed |= {head.run_id: head.stamp for head in heads if not head.checked}
        if self.index.without_record and not self._is_diagnosis:
            from expmgr.runs.empty_folders import remove_dead

            remove_dead(self.layout, self.index.without_record)
        return heads

    def require_newest(self, variant: VariantName, seed: int) -> None:
        """Raise `RecordDamaged` if the record of the newest run of a seed is damaged, or was deleted though this clone's log
        tells of it: what that run left is not known then."""
        skipped = [one.run_id for one in self.skipped_of(variant, seed)]
        own = self._log.own_runs() if self._log is not None else {}
        told = [run_id for run_id, about in own.items() if (about.variant, about.seed) == (str(variant), seed)]
        deleted = [run_id for run_id in told if not self.run_dir(run_id).record.exists()]
        newest = self.newest(variant, seed) if skipped or deleted else None
        last = max((*skipped, *deleted), default="")
        if not last or (newest is not None and newest.run_id > last):
            return
        if last in skipped:
            self.load(last)  # raises why it is not used
            return
        hint = f"restore it from the event log: expmgr restore {last}"
        raise RecordDamaged(last, "was deleted, and the event log has it", hint, is_in_log=True)

    def damaged_or_deleted(self) -> list[str]:
        """The runs whose records are damaged, and those that this clone's log tells of and that have no record."""
        self.heads()
        damaged = {one.run_id for one in self.skipped.values() if one.is_damaged}
        own = self._log.own_runs() if self._log is not None else {}
        return sorted(damaged | {run_id for run_id in own if not self.run_dir(run_id).record.exists()})

    def empty_folders(self) -> list[EmptyFolder]:
        """Folders of runs without a record. `heads` removes those that are empty, once it is sure that nobody is about to
        write there."""
        from expmgr.runs.empty_folders import empty_folders

        return empty_folders(self.layout)

    def _forget_log(self) -> None:
        self._second_looks = _SECOND_LOOKS
        if self._log is not None:
            self._log.forget()

    def _is_current(self, checked: str) -> bool:
        return self._log is None or self._log.state == checked

    def _listed(self, run_id: str) -> tuple[dict[str, Any], bool, str] | None:
        """A record as its JSON has it, whether that is its last word, and `Head.checked`; None for one that is not to be
        listed."""
        try:
            content = parse_json(self.run_dir(run_id).record.read_bytes())
            if is_final(content):
                return content, True, "" if self._check(run_id) or self._log is None else self._log.state
        except RecordDamaged as problem:
            self._skip(run_id, problem)
            return None
        except (OSError, ValueError):
            pass  # below it is told in words
        found = next(self._loaded([run_id]), None)
        return (found.model_dump(mode="json"), False, "") if found is not None else None

    def _check(self, run_id: str) -> bool:
        """Whether the event log names this record; False if no log tells of it yet. Raises `RecordDamaged` if another is
        named."""
        if self._log is None:
            return False
        folder = self.run_dir(run_id)
        try:
            stamp = stamp_of(str(folder.path))
            if self._confirmed.get(run_id) == stamp:
                return True
            answer = self._log.answer(folder, folder.record.read_bytes())
            if answer.difference is not None and self._second_looks:  # or it was told between our two questions
                self._second_looks -= 1
                self._log.forget()
                answer = self._log.answer(folder, folder.record.read_bytes())
        except FileNotFoundError:
            return False  # whoever reads it says so
        if answer.difference is not None:
            hint = f"restore it from the event log: expmgr restore {run_id}"
            raise RecordDamaged(run_id, answer.difference, hint, is_in_log=True)
        if answer.is_confirmed:
            self._confirmed[run_id] = stamp
        return answer.is_confirmed

    def all(self) -> Iterator[RunRecord]:
        """Every run, whole, the oldest first; see `heads`."""
        yield from self._loaded(head.run_id for head in self.heads())

    def _loaded(self, run_ids: Iterable[str]) -> Iterator[RunRecord]:
        for run_id in run_ids:
            try:
                record = self._load(run_id)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ExpmgrError, OSError) as problem:
                self._skip(run_id, problem)
                continue
            if record.status != "starting":
                yield record

    def _skip(self, run_id: str, problem: Exception) -> None:
        reason, hint, is_in_log = getattr(problem, "message", str(problem)), getattr(problem, "hint", None), False
        is_damaged = isinstance(problem, RecordDamaged)
        if isinstance(problem, RecordDamaged):
            reason, is_in_log = f"its record {problem.reason}", problem.is_in_log
        known = self.skipped.get(run_id)
        if known is None or known.reason != reason:
            variant, seed = self._whose(run_id)
            self.skipped[run_id] = SkippedRun(run_id, reason, variant, seed, is_damaged, is_in_log, hint)
            self.on_note(f"run {run_id} was skipped: {reason}" + (f" ({hint})" if is_damaged and hint else ""))

    def _whose(self, run_id: str) -> tuple[str | None, int | None]:
        """Variant and seed of a record that is not used: as the event log has them, or as far as its JSON says."""
        if self._log is not None and (told := self._log.told(run_id)):
            return told[-1].variant, told[-1].seed
        folder = self.run_dir(run_id)
        for path in (folder.record, folder.request):  # what a run was asked for stays until it has ended
            with contextlib.suppress(OSError, ValueError, AttributeError):
                values = parse_json(path.read_bytes())
                variant, seed = values.get("variant"), values.get("seed")
                if isinstance(variant, str):
                    return variant, seed if isinstance(seed, int) else None
        return None, None

    def skipped_of(self, variant: VariantName, seed: int | None = None) -> list[SkippedRun]:
        """The runs of a variant, or of one of its seeds, whose records are not used, the oldest first."""
        self.heads()
        found = [one for _, one in sorted(self.skipped.items()) if one.variant == str(variant)]
        return [one for one in found if seed in (None, one.seed)]

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
            found = parse_json(self.run_dir(run_id).progress.read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    def abandoned(self) -> list[str]:
        """Runs whose processes are gone without having said so: what a crash left for the next command."""
        active = sorted(self.layout.active.iterdir()) if self.layout.active.is_dir() else []
        if not active:
            return []
        from expmgr.runs.empty_folders import is_cut
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
                if is_gone(path) or is_cut(path):
                    found.append(path.name)
                continue
            except ExpmgrError as problem:
                try:
                    self._check(path.name)  # the event log may have the record
                    self._skip(path.name, problem)
                except RecordDamaged as damage:
                    self._skip(path.name, damage)
                continue
            if record.has_ended and not is_gone(path):  # another attempt is being begun
                continue
            if is_abandoned(record):
                found.append(path.name)
        return found

    def has_begun(self, record: RunRecord) -> bool:
        """Whether the newest attempt of a run got as far as to train: by its events, or, if these are damaged, by a checkpoint
        that it saved."""
        attempt = record.attempts[-1]
        if attempt.from_step is not None:
            return True
        folder = self.run_dir(record.run_id)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if parse_json(folder.request.read_bytes()).get("mode") != "train":
                return False
        return attempt.damaged_lines > 0 or self._has_saved(record)

    def _has_saved(self, record: RunRecord) -> bool:
        """Whether a checkpoint in its model_dir says that the newest attempt saved it."""
        from expmgr.checkpoints.signature import unpacked

        for path in self.layout.model_dir(record.name, record.seed).glob("model.ckpt-*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                made = parse_json(path.read_bytes())["provenance"]
                made = unpacked(made) if isinstance(made, str) else made
                started = record.attempts[-1].started_at
                if made.get("run_id") == record.run_id and made["saved"]["saved_at"] >= started:
                    return True
        return False

    def _folded(self, run_id: str) -> RunRecord:
        from expmgr.runs.events import read_events
        from expmgr.runs.folding import fold
        from expmgr.runs.record import is_abandoned, parse_record

        folder = self.run_dir(run_id)
        record = parse_record(folder.record)
        if record.has_ended:  # folded before, and the crash came before the events went
            return record
        damaged: list[bytes] = []
        events, end = read_events(folder, damaged=damaged)
        try:
            record = fold(record, events) if events else record
        except _NO_EVENTS as error:
            reason = f"has events that cannot be read: {str(error)[:200] or type(error).__name__}"
            raise RecordDamaged(run_id, reason, hint=f"look at the file, or move it away: {folder.events}") from None
        # Nobody writes the rest of the last line any more. If it is the only one, the run had not begun.
        if (events or damaged) and is_abandoned(record) and _has_more(folder.events, end):
            damaged.append(b"")
        if damaged:
            record = record.model_copy(deep=True)
            record.attempts[-1].damaged_lines = len(damaged)
            self._note_damage(record)
        return record

    def _note_damage(self, record: RunRecord) -> None:
        lines = record.attempts[-1].damaged_lines
        told = "1 line of its events.jsonl" if lines == 1 else f"{lines} lines of its events.jsonl"
        if record.run_id not in self._damaged:
            self._damaged.add(record.run_id)
            self.on_note(
                f"run {record.run_id} ({record.variant}, seed {record.seed}): {told} cannot be read, and what they said is "
                "missing from its record; the file is kept"
            )


def _kept(path: Path, form: str) -> str:
    """Copy a file beside itself, under the first free name; that name."""
    content = path.read_bytes()
    for number in itertools.count(1):
        name = form.format(number)
        try:
            with open(path.with_name(name), "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            continue
        durable.fsync_dir(path.parent)
        return name
    raise AssertionError("numbers do not end")


def _has_more(path: Path, end: int) -> bool:
    """Whether a file goes on behind byte `end`."""
    try:
        return path.stat().st_size > end
    except FileNotFoundError:
        return False
