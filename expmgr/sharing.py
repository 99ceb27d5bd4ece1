"""What this clone tells in its log, and what it takes over from the logs of others.

A run's commit is pinned by `refs/expmgr/keep/<run-id>` until its record stands in the log; so the pins are the list of what
is still to be told, and whoever comes next tells what a crash left. A record of another clone is taken over as it is,
beside one's own, with `origin.json`: it is looked at and compared, and never trained on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from expmgr.errors import EventProblem, ExpmgrError
from expmgr.events import Actor, Event, RunTold, VariantMade, Vouched
from expmgr.gitrepo import CommitId
from expmgr.log import OWN, Draft, Told, writer_of
from expmgr.project import KEEP, Project, keep_ref
from expmgr.records import ORIGIN, RunRecord, is_foreign
from expmgr.signing import signed
from expmgr.variants import VariantPlan, all_variants, make_variant, origins
from expmgr.writers import writer_id

RECORD_FILE = "record.json"
#: A record with curves of many metrics is some hundred kB.
_MOST_RECORD_BYTES = 64_000_000


def actor_of(project: Project) -> Actor | None:
    """Who is at work, as events name them; None where git does not know, or the settings say so."""
    if not project.settings.record_user:
        return None
    try:
        name, _, address = project.repo.identity().rpartition(" <")
    except ExpmgrError:
        return None
    return Actor(name=name, email=address.removesuffix(">"))


def tell(project: Project, drafts: Iterable[Draft], *, drop: Iterable[str] = ()) -> list[Event]:
    """Add to this clone's log; the events."""
    return project.logs.append(
        writer_id(project.layout.own),
        drafts,
        now=time.time(),
        actor=actor_of(project),
        sign=project.settings.signing != "off" and _can_sign(project),
        drop=tuple(drop),
    )


def _can_sign(project: Project) -> bool:
    """Whether to try: always where signatures are required, so that git's own words come out."""
    return project.settings.signing == "require" or project.repo.has_signing_key()


def new_variant(project: Project, plan: VariantPlan) -> CommitId:
    """Make a variant, and say so. Where that cannot be written, `catch_up` says it later."""
    commit = make_variant(project.repo, plan)
    with contextlib.suppress(OSError, ExpmgrError):
        values = {"variant": str(plan.name), "commit": commit, "base": plan.called, "why": plan.why}
        tell(project, [Draft(VariantMade, values)])
    return commit


def tell_runs(project: Project) -> int:
    """Say what runs have ended since; how many attempts. Nothing is said of what still goes on."""
    if project.is_scratch:
        return 0
    pins = [ref.removeprefix(KEEP) for ref in project.repo.refs(KEEP)]
    drafts: list[Draft] = []
    told: list[str] = []
    for run_id in pins:
        with contextlib.suppress(OSError, ExpmgrError):
            content = project.records.run_dir(run_id).record.read_bytes()
            record = RunRecord.model_validate_json(content)
            if record.has_ended and not is_foreign(project.records.run_dir(run_id)):
                drafts += _of_run(record, content)
                told.append(keep_ref(run_id))
    if drafts:
        before = [one.content for one in project.logs.events("run")]
        tell(project, [one for one in drafts if not _is_told(one, before)], drop=told)
    return len(told)


def _is_told(draft: Draft, before: Iterable[str]) -> bool:
    """Whether an attempt is in a log: one that began and was taken back leaves its pin."""
    run, attempt = f'"run_id":"{draft.values["run_id"]}"', f'"attempt":{draft.values.get("attempt")},'
    return any(run in one and attempt in one for one in before)


def _of_run(record: RunRecord, content: bytes) -> Iterator[Draft]:
    compared = record.spec.get("compare") or {}
    metric, split = compared.get("metric"), compared.get("split")
    about = {"run_id": record.run_id, "variant": record.variant, "seed": record.seed}
    values = {
        **about,
        "commit": record.commit,
        "attempt": len(record.attempts),
        "status": record.status,
        "step": record.step,
        "record": hashlib.sha256(content).hexdigest(),
        "metric": metric,
        "split": split,
        "value": record.metric(metric, split) if metric and split else None,
    }
    yield Draft(RunTold, values, {RECORD_FILE: content})
    adopted = record.adopted
    if adopted is not None and len(record.attempts) == 1:
        vouched = {
            "by": str(adopted.get("vouched_by")),
            "source": str(adopted.get("path")),
            "step": adopted.get("step"),
        }
        yield Draft(Vouched, {**about, **vouched})


def catch_up(project: Project) -> None:
    """Say everything that happened in this clone and is not in a log yet: variants too that were made with git alone."""
    tell_runs(project)
    known = {one.event.variant for one in project.logs.events("variant") if isinstance(one.event, VariantMade)}
    made = origins(project.repo)
    drafts = []
    for variant in all_variants(project.repo):
        if str(variant.name) not in known:
            origin = made.get(variant.name)
            base, why = (origin.base, origin.why) if origin else ("?", "")
            values = {"variant": str(variant.name), "commit": variant.commit, "base": base, "why": why}
            drafts.append(Draft(VariantMade, values))
    tell(project, drafts)


def retold(project: Project, told: Iterable[Told]) -> list[Draft]:
    """Events that stand in a log which is no longer ours, as drafts for another one."""
    drafts = []
    for one in told:
        values: dict[str, Any] = json.loads(one.content)
        (record,) = project.logs.beside([one], RECORD_FILE)
        files = {RECORD_FILE: record} if record is not None else {}
        drafts.append(
            Draft(type(one.event), {key: values[key] for key in values if key not in ("writer", "time")}, files)
        )
    return drafts


@dataclass(frozen=True)
class TakenOver:
    """What `take_over` found: runs that are new here or gained an attempt, and what it passed over with the reason."""

    runs: tuple[RunRecord, ...]
    passed_over: dict[str, str]


def take_over(project: Project) -> TakenOver:
    """Have the records of all logs here. Of two logs that tell of one run, the one that was first here counts; one's own
    record is never replaced, and what is not the record that its event names is passed over."""
    newest: dict[str, Told] = {}
    passed: dict[str, str] = {}
    told = project.logs.events("run")
    trusted = signed(project, told) if project.settings.signing == "require" else None
    for one in told:
        event = one.event
        assert isinstance(event, RunTold)
        if trusted is not None and one.id not in trusted and not one.ref.startswith(OWN):
            passed[event.run_id] = f"{event.writer} tells of it without a signature by whom it names"
            continue
        before = newest.get(event.run_id)
        if before is None or (before.event.writer == event.writer and event.attempt > _attempt(before)):
            newest[event.run_id] = one
        elif before.event.writer != event.writer:
            passed[event.run_id] = f"{event.writer} tells of it, and so does {before.event.writer}, whose it is here"
    wanted = [one for run_id, one in newest.items() if _is_news(project, run_id, one, passed)]
    runs = []
    for one, content in zip(wanted, project.logs.beside(wanted, RECORD_FILE), strict=True):
        try:
            runs.append(_take(project, one, content))
        except EventProblem as problem:
            assert isinstance(one.event, RunTold)
            passed[one.event.run_id] = problem.message
    return TakenOver(tuple(runs), passed)


def _attempt(told: Told) -> int:
    assert isinstance(told.event, RunTold)
    return told.event.attempt


def _is_news(project: Project, run_id: str, told: Told, passed: dict[str, str]) -> bool:
    folder = project.records.run_dir(run_id)
    if not folder.record.exists():
        return True
    try:
        known = json.loads((folder.path / ORIGIN).read_bytes())
    except (FileNotFoundError, ValueError):
        if not told.ref.startswith(OWN):
            passed[run_id] = f"{told.event.writer} tells of it, and it is a run of this clone"
        return False
    if known.get("writer") != told.event.writer:
        passed[run_id] = f"{told.event.writer} tells of it, and so does {known.get('writer')}, whose it is here"
        return False
    return int(known.get("attempt", 0)) < _attempt(told)


def _take(project: Project, told: Told, content: bytes | None) -> RunRecord:
    event = told.event
    assert isinstance(event, RunTold)
    if content is None:
        raise EventProblem(f"{event.writer} tells of it without its record")
    if len(content) > _MOST_RECORD_BYTES or hashlib.sha256(content).hexdigest() != event.record:
        raise EventProblem(f"what lies beside the event of {event.writer} is not the record that it names")
    try:
        record = RunRecord.model_validate_json(content)
    except ValidationError as error:
        raise EventProblem(f"the record of {event.writer} cannot be read: {error.errors()[0]['msg']}") from None
    about = (record.run_id, record.variant, record.seed, record.commit, record.status, len(record.attempts))
    if about != (event.run_id, event.variant, event.seed, event.commit, event.status, event.attempt):
        raise EventProblem(f"the record of {event.writer} is of another run than its event says")
    _place(project, told, record, content)
    return record


def _place(project: Project, told: Told, record: RunRecord, content: bytes) -> None:
    """The folder of a run appears whole. It can be made again from the log, so it need not be on the disk at once."""
    folder = project.records.run_dir(record.run_id)
    beside = project.layout.own / f".{record.run_id}.{os.urandom(4).hex()}"
    beside.mkdir(parents=True)
    folder.path.parent.mkdir(exist_ok=True)
    try:
        (beside / folder.record.name).write_bytes(content)
        if not told.ref.startswith(OWN):
            origin = {"format": 1, "writer": writer_of(told.ref), "event": told.id, "attempt": len(record.attempts)}
            (beside / ORIGIN).write_text(json.dumps(origin) + "\n", encoding="utf-8")
        if folder.path.exists():  # it gained an attempt
            for name in (folder.record.name, ORIGIN):
                os.replace(beside / name, folder.path / name)
        else:
            with contextlib.suppress(OSError):  # another pull was quicker
                os.rename(beside, folder.path)
            if not folder.record.exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder.path))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
