"""Checks records against the event log, which holds the digest of each record that was told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expmgr.disk.json_text import parse_json
from expmgr.log.refs import KEEP, OWN, REMOTES
from expmgr.runs.origin import read_origin

if TYPE_CHECKING:
    from expmgr.disk.index import Index
    from expmgr.git.repo import GitRepo
    from expmgr.paths import RunDir

# log.events is imported where a log has to be parsed: a list by the index does without it, and should not wait for pydantic.

#: Of so many runs the events are looked for by their id; of more, all are read.
_FEW = 20


@dataclass(frozen=True)
class ToldRecord:
    """What an event says of a run's record. `digest` is its sha256, `variant` and `seed` whose run it is."""

    event: str
    ref: str
    attempt: int
    digest: str
    variant: str
    seed: int

    @property
    def is_own(self) -> bool:
        return self.ref.startswith(OWN)


@dataclass(frozen=True)
class RecordAnswer:
    """Whether a record is the one that the log names. `difference` says why it is not; `is_confirmed` that it is. Neither:
    no log tells of it, or not yet."""

    difference: str | None = None
    is_confirmed: bool = False


class LogCheck:
    """The records that all logs of a repository name. `own` is `.git/expmgr/`.

    What the logs say is read where it is asked for, and again after `forget` if a ref has moved since.
    """

    def __init__(self, repo: GitRepo, index: Index, own: Path) -> None:
        self._repo, self._index, self._own = repo, index, own
        self._refs: dict[str, str] = {}
        self._state = _digest(self._refs)
        self._is_current = False
        self._told: dict[str, list[ToldRecord]] = {}
        self._is_whole = False
        """Whether `_told` has all runs, and not only those that were asked for."""

    def forget(self) -> None:
        """Look again where the logs are, when that is asked next."""
        self._is_current = False

    def _look(self) -> None:
        if self._is_current:
            return
        refs = self._repo.refs(OWN, REMOTES, KEEP)
        if refs != self._refs:
            self._refs, self._told, self._is_whole = refs, {}, False
            self._state = _digest(refs)
        self._is_current = True

    @property
    def state(self) -> str:
        """Where all logs and pins are: another text if any has changed."""
        self._look()
        return self._state

    def told(self, run_id: str) -> list[ToldRecord]:
        """What all logs say of a run, the newest attempt last."""
        self._look()
        if run_id not in self._told and not self._is_whole:
            self._is_whole = len(self._told) >= _FEW
            self._told |= {run_id: []} | self._read(None if self._is_whole else run_id)
        return self._told.get(run_id, [])

    def own_runs(self) -> dict[str, ToldRecord]:
        """The runs that this clone's log tells of, with their newest attempt."""
        self._look()
        if not self._is_whole:
            self._told, self._is_whole = self._read(None), True
        own = {run_id: [one for one in told if one.is_own] for run_id, told in self._told.items()}
        return {run_id: told[-1] for run_id, told in own.items() if told}

    def answer(self, folder: RunDir, content: bytes) -> RecordAnswer:
        """Whether `content` is the record of the run in `folder` that the log names."""
        run_id = folder.path.name
        told = self.told(run_id)
        origin = read_origin(folder)
        own = [one for one in told if one.is_own]
        is_pinned = f"{KEEP}{run_id}" in self._refs
        if origin is not None:
            writer = f"/{origin.get('writer')}"
            named = [one for one in told if one.event == origin.get("event") or one.ref.endswith(writer)]
            told = named or told  # a damaged origin.json names nobody
        elif own:
            told = own
        elif is_pinned:
            return RecordAnswer()
        elif told:
            return RecordAnswer("is of another clone, whose mark (origin.json) is missing")
        if not told:
            return RecordAnswer()
        newest = told[-1].attempt
        attempts, has_ended = _attempts(content)
        if attempts is None:
            return RecordAnswer("cannot be read")
        if origin is None and attempts > newest and (is_pinned or not has_ended):
            return RecordAnswer()  # an attempt that is not told yet
        digest = hashlib.sha256(content).hexdigest()
        # Of another clone's log more may have been fetched than was taken over.
        if any(one.digest == digest for one in told if origin is not None or one.attempt == newest):
            return RecordAnswer(is_confirmed=True)
        return RecordAnswer("differs from the event log")

    def _read(self, run_id: str | None) -> dict[str, list[ToldRecord]]:
        """What the logs say of one run, or of all."""
        found: dict[str, dict[str, ToldRecord]] = {}
        for ref, event, content in self._rows(run_id):
            values = json.loads(content)
            about = (values["attempt"], values["record"], values["variant"], values["seed"])
            found.setdefault(values["run_id"], {}).setdefault(event, ToldRecord(event, ref, *about))
        return {name: sorted(told.values(), key=lambda one: one.attempt) for name, told in found.items()}

    def _rows(self, run_id: str | None) -> list[tuple[str, str, str]]:
        """Ref, id and content of the events that tell of runs, from the index where it is current."""
        logs = {ref: tip for ref, tip in self._refs.items() if not ref.startswith(KEEP)}
        cached = self._index.log_tips()
        if any(cached.get(ref) != tip for ref, tip in logs.items()):
            from expmgr.log.logs import Logs

            told = Logs(self._repo, self._index, self._own).events("run")
            return [(one.ref, one.id, one.content) for one in told]
        return [row for row in self._index.run_events(run_id) if row[0] in logs]


def _digest(refs: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(refs.items())).encode()).hexdigest()


def _attempts(content: bytes) -> tuple[int | None, bool]:
    """How many attempts a record has, and whether the last of them has ended; None where it is no record."""
    try:
        values = parse_json(content)
        return len(values["attempts"]), values["status"] in ("finished", "failed", "preempted", "killed")
    except (ValueError, KeyError, TypeError):
        return None, False
