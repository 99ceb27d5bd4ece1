"""`.git/expmgr/index.sqlite`: a cache of record summaries, so that 10,000 runs are listed fast.

A cache: what it holds follows from the records, and each answer is checked against the files as they are now (times, size
and inode of each `run.json`). Missing, older, broken, locked or on a full disk, it is made anew or done without; no command
fails by it. Runs that go on are never taken from it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expmgr import __version__

#: Another number for another shape of the tables, or for another way to make `code_digest`: what lies there is made anew.
VERSION = 9
#: How long one process waits for another that writes.
_BUSY_S = 2.0
#: A metric beyond it is no number that anything could be made of: its square is infinite.
LARGEST = 1e150
_TABLES = """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, stamp TEXT NOT NULL, variant TEXT NOT NULL, seed INTEGER NOT NULL, status TEXT NOT NULL,
  commit_id TEXT NOT NULL, code_digest TEXT NOT NULL, spec_id TEXT NOT NULL, started_at REAL NOT NULL, by_hand INTEGER NOT NULL,
  warm_start TEXT, metric TEXT, split TEXT, selected TEXT NOT NULL, checked TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE specs (spec_id TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE digests (
  commit_id TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (commit_id, name)
) WITHOUT ROWID;
CREATE TABLE signatures (
  commit_id TEXT NOT NULL, signers TEXT NOT NULL, whose TEXT NOT NULL, PRIMARY KEY (commit_id, signers)
) WITHOUT ROWID;
CREATE TABLE rejected (commit_id TEXT PRIMARY KEY, reason TEXT NOT NULL, version TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE logs (ref TEXT PRIMARY KEY, tip TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
  ref TEXT NOT NULL, place INTEGER NOT NULL, commit_id TEXT NOT NULL, event_id TEXT, time INTEGER, kind TEXT,
  content TEXT NOT NULL, PRIMARY KEY (ref, place)
) WITHOUT ROWID
"""
_COLUMNS = (
    "run_id, stamp, variant, seed, status, commit_id, code_digest, spec_id, started_at, by_hand, warm_start, metric, "
    "split, selected, checked"
)


@dataclass(slots=True)
class Head:
    """What a list wants to know of a run; `RunRecord` has all of it under the same names."""

    run_id: str
    stamp: str
    variant: str
    seed: int
    status: str
    commit: str
    code_digest: str
    spec_id: str
    started_at: float
    """When its newest attempt began, seconds since 1970, UTC."""
    is_by_hand: int
    warm_start_text: str | None
    metric_name: str | None
    """What its spec is compared by, and on which split."""
    split: str | None
    selected_text: str
    checked: str
    """Whether the event log names this record: empty if so; otherwise the state of the logs that did not tell of it."""
    _resolved_spec_of: Callable[[Head], dict[str, Any]] = field(repr=False, compare=False)

    @property
    def by_hand(self) -> bool | None:
        """As of a record: None for a run of expmgr."""
        return True if self.is_by_hand else None

    @property
    def spec(self) -> dict[str, Any]:
        """The resolved spec that it was made with."""
        return self._resolved_spec_of(self)

    @property
    def selected(self) -> dict[str, dict[str, float]]:
        """Split to metric to value, at the selected checkpoint."""
        return dict(json.loads(self.selected_text))

    @property
    def warm_start(self) -> dict[str, Any] | None:
        """From which checkpoint training started."""
        return dict(json.loads(self.warm_start_text)) if self.warm_start_text else None

    def metric(self, metric: str, split: str) -> float | None:
        """The value at the selected checkpoint, None where it was not evaluated, or to no number."""
        value = self.selected.get(split, {}).get(metric)
        return value if value is not None and abs(value) < LARGEST else None

    def row(self) -> tuple[Any, ...]:
        return (
            self.run_id, self.stamp, self.variant, self.seed, self.status, self.commit, self.code_digest, self.spec_id,
            self.started_at, self.is_by_hand, self.warm_start_text, self.metric_name, self.split, self.selected_text,
            self.checked,
        )  # fmt: skip


#: Commit, id, Lamport time, kind and canonical JSON of an event; of what is none, the commit and why (id None).
LogRow = tuple[str, "str | None", "int | None", "str | None", str]

_TYPES = {"run_id": str, "variant": str, "seed": int, "commit": str, "code_digest": str, "spec": dict}


def is_final(content: Any) -> bool:
    """Whether `content`, the JSON of a record, is one that has ended, with all that a head is made of."""
    return (
        isinstance(content, dict)
        and content.get("format") == 1
        and content.get("status") in ("finished", "failed", "preempted", "killed")
        and all(isinstance(content.get(key), kind) for key, kind in _TYPES.items())
        and isinstance(content.get("metrics", {}), dict)
        and isinstance(content.get("attempts"), list)
        and all(
            isinstance(one, dict) and isinstance(one.get("started_at"), (int, float))
            for one in content["attempts"][-1:]
        )
        and bool(content["attempts"])
    )


def stamp_of(folder: str) -> str:
    """What tells one content of a run's record from another: when it was written and when anything about it was changed,
    both in ns, its size in bytes, its inode, and whether it is marked as that of another clone. Raises `OSError`."""
    about = os.stat(f"{folder}/run.json")
    mark = "foreign" if os.path.lexists(f"{folder}/origin.json") else "own"
    return f"{about.st_mtime_ns} {about.st_ctime_ns} {about.st_size} {about.st_ino} {mark}"


def damage_of(path: Path) -> str | None:
    """Why the index in `path` cannot be read; None where it can, or is not there. Nothing is changed."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as database:
            said = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return None if said == "ok" else said


class Index:
    """The cache of one repository, in `path`; `runs` is the folder of its records."""

    def __init__(self, path: Path | None, runs: Path) -> None:
        """With no `path` nothing is cached."""
        self._path, self._runs = path, runs
        self._specs: dict[str, dict[str, Any]] = {}
        self.without_record: list[str] = []
        """Folders of runs without a `run.json`, when `heads` looked last."""

    def heads(
        self, read: Callable[[str], tuple[Mapping[str, Any], bool, str] | None], is_current: Callable[[str], bool]
    ) -> list[Head]:
        """The head of every run, the oldest first. `read` gives a record as its JSON has it, whether that is its last word, and
        `Head.checked`; None for one that is not to be listed. It is called for what is not cached, for what goes on, and if
        `is_current` says that the logs have changed since."""
        stamps = self._stamps()
        known = {row[0]: row for row in self._ask(f"SELECT {_COLUMNS} FROM runs")}
        found: list[Head] = []
        fresh: list[Head] = []
        for run_id, stamp in stamps.items():
            row = known.get(run_id)
            if row is not None and row[1] == stamp and (not row[-1] or is_current(row[-1])):
                found.append(Head(*row, self._resolved_spec_of))  # type: ignore[call-arg]
                continue
            told = read(run_id)
            if told is not None:
                record, is_last, checked = told
                head = self._head(record, stamp, checked)
                found.append(head)
                if is_last:
                    fresh.append(head)
        self._keep(fresh, [run_id for run_id in known if run_id not in stamps])
        return found

    def code_digest(self, commit: str, name: str, made: Callable[[], str]) -> str:
        """The code digest of a variant at a commit, which never changes; `made` makes it."""
        rows = self._ask("SELECT digest FROM digests WHERE commit_id = ? AND name = ?", (commit, name))
        if rows:
            return str(rows[0][0])
        digest = made()
        self._write(lambda db: db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (commit, name, digest)))
        return digest

    def signature(self, commit: str, signers: str, made: Callable[[], str | None]) -> str | None:
        """Whose the signature of a commit is by the allowed signers with the digest `signers`; `made` finds out, and None is
        not kept."""
        question = "SELECT whose FROM signatures WHERE commit_id = ? AND signers = ?"
        rows = self._ask(question, (commit, signers))
        if rows:
            return str(rows[0][0])
        whose = made()
        if whose is None:
            return None
        self._write(
            lambda db: db.execute("INSERT OR REPLACE INTO signatures VALUES (?, ?, ?)", (commit, signers, whose))
        )
        return whose

    def run_events(self, run_id: str | None) -> list[tuple[str, str, str]]:
        """Ref, id and canonical JSON of the cached events that tell of runs; of those alone that hold `run_id`, if given."""
        question = "SELECT ref, event_id, content FROM events WHERE kind = 'run'"
        if run_id is None:
            return self._ask(question)
        return self._ask(f"{question} AND instr(content, ?)", (run_id,))

    def rejected(self) -> dict[str, str]:
        """Commits of the log whose records this version of expmgr cannot take over, and why."""
        return dict(self._ask("SELECT commit_id, reason FROM rejected WHERE version = ?", (__version__,)))

    def keep_rejected(self, commits: Mapping[str, str]) -> None:
        if commits:
            rows = [(commit, why, __version__) for commit, why in commits.items()]
            self._write(lambda db: db.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?)", rows))

    def log_tips(self) -> dict[str, str]:
        """The refs of logs that are cached, and the newest commit that is."""
        return dict(self._ask("SELECT ref, tip FROM logs"))

    def log_rows(self, ref: str) -> list[LogRow]:
        """The cached rows of a log, the oldest first."""
        question = "SELECT commit_id, event_id, time, kind, content FROM events WHERE ref = ? ORDER BY place"
        return self._ask(question, (ref,))

    def keep_log(self, ref: str, tip: str, rows: Sequence[LogRow], *, after: int) -> None:
        """Cache `rows`, those of `ref` up to `tip` behind the first `after`; 0 forgets what was cached of it."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM events WHERE ref = ? AND place >= ?", (ref, after))
            placed = ((ref, after + number, *row) for number, row in enumerate(rows))
            database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", placed)
            database.execute("INSERT OR REPLACE INTO logs VALUES (?, ?)", (ref, tip))

        self._write(write)

    def _stamps(self) -> dict[str, str]:
        """Run id to what tells one content of its record from another."""
        found: dict[str, str] = {}
        try:
            names = sorted(os.listdir(self._runs))
        except FileNotFoundError:
            return found
        self.without_record = []
        for name in names:
            try:
                found[name] = stamp_of(f"{self._runs}/{name}")
            except OSError as error:
                if error.errno == errno.ENOENT:
                    self.without_record.append(name)
        return found

    def _head(self, record: Mapping[str, Any], stamp: str, checked: str) -> Head:
        spec = record["spec"]
        content = json.dumps(spec)  # in its order: that of the columns is the first layer's
        spec_id = hashlib.sha256(content.encode()).hexdigest()
        self._specs[spec_id] = spec
        compared = spec.get("compare") or {}
        warm = record.get("warm_start")
        return Head(
            record["run_id"], stamp, record["variant"], record["seed"], record["status"], record["commit"],
            record["code_digest"], spec_id, record["attempts"][-1]["started_at"], int(record.get("by_hand") is not None),
            json.dumps(warm) if warm else None, compared.get("metric"), compared.get("split"),
            json.dumps(record.get("metrics", {}).get("selected", {})), checked, self._resolved_spec_of,
        )  # fmt: skip

    def _resolved_spec_of(self, head: Head) -> dict[str, Any]:
        if head.spec_id not in self._specs:
            rows = self._ask("SELECT content FROM specs WHERE spec_id = ?", (head.spec_id,))
            if rows:
                self._specs[head.spec_id] = json.loads(rows[0][0])
            else:  # somebody took the index away in between: the record has it
                content = (self._runs / head.run_id / "run.json").read_bytes()
                self._specs[head.spec_id] = json.loads(content)["spec"]
        return self._specs[head.spec_id]

    def _keep(self, fresh: Sequence[Head], gone: Sequence[str]) -> None:
        """Write what was read now, and take out what is there no more."""
        if not fresh and not gone:
            return
        specs = {head.spec_id: json.dumps(self._specs[head.spec_id]) for head in fresh}
        places = ", ".join("?" * len(_COLUMNS.split(",")))

        def write(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR IGNORE INTO specs VALUES (?, ?)", specs.items())
            database.executemany(f"INSERT OR REPLACE INTO runs VALUES ({places})", (head.row() for head in fresh))
            database.executemany("DELETE FROM runs WHERE run_id = ?", ((run_id,) for run_id in gone))

        self._write(write)

    # The file. Whatever is wrong with it, the records are what counts.

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of an answer; none where the index cannot be asked."""
        with contextlib.suppress(OSError):
            for _ in range(2):
                try:
                    with contextlib.closing(self._connect()) as database:
                        return database.execute(question, values).fetchall()
                except sqlite3.OperationalError:  # locked for long, read-only, no space
                    return []
                except sqlite3.DatabaseError:  # no database, or a damaged one
                    self._forget()
        return []

    def _write(self, write: Callable[[sqlite3.Connection], object]) -> None:
        with contextlib.suppress(OSError):
            try:
                with contextlib.closing(self._connect()) as database, database:
                    write(database)
            except sqlite3.OperationalError:
                pass  # the next command tries again
            except sqlite3.DatabaseError:
                self._forget()

    def _forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        """The index, with its tables; another version's is emptied."""
        if self._path is None or not self._path.parent.is_dir():
            raise FileNotFoundError(self._path)
        database = sqlite3.connect(self._path, timeout=_BUSY_S)
        try:
            # A killed process leaves it whole all the same; what a power cut tears is found broken, and made anew.
            database.execute("PRAGMA synchronous = OFF")
            if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                self._make(database)
        except BaseException:
            database.close()
            raise
        return database

    @staticmethod
    def _make(database: sqlite3.Connection) -> None:
        with database:
            database.execute("BEGIN IMMEDIATE")
            if database.execute("PRAGMA user_version").fetchone()[0] == VERSION:
                return  # another process was quicker
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in tables:
                database.execute(f'DROP TABLE "{name}"')
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
