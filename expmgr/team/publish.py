"""Publishes what happens in this clone: writes events to its log, and catches up after a crash.

A run's commit is pinned by `refs/expmgr/keep/<run-id>` until its record stands in the log; so the pins are the list of what
is still to be told, and whoever comes next tells what a crash left. A record of another clone is taken over as it is,
beside one's own, with `origin.json`: it is looked at and compared, and never trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from expmgr.errors import ExitCode, ExpmgrError
from expmgr.escape import clean, one_line
from expmgr.git.remotes import remote_names
from expmgr.git.repo import CommitId
from expmgr.log.events import Actor, Event, RunTold, VariantMade, Vouched
from expmgr.log.logs import RECORD_FILE, REVIEW_FILE, Draft, Told
from expmgr.log.refs import KEEP, OWN, keep_ref
from expmgr.log.writers import writer_id
from expmgr.project import Project
from expmgr.runs.origin import is_foreign
from expmgr.runs.record import RunRecord, record_in
from expmgr.settings import Signing
from expmgr.team.verify_signatures import policy_of
from expmgr.variants.variants import Variant, VariantPlan, all_variants, make_variant, origins


def actor_of(project: Project) -> Actor | None:
    """Who is at work, as events name them; None where git does not know, or the settings say so."""
    if not project.settings.record_user:
        return None
    try:
        name, _, address = project.repo.identity().rpartition(" <")
    except ExpmgrError:
        return None
    return Actor(name=_plain(name), email=_plain(address.removesuffix(">")))


def _plain(text: str) -> str:
    """A name as an event takes it: a line of UTF-8, of which nothing else is asked."""
    return one_line(clean(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")))[:1000]


def tell(
    project: Project,
    drafts: Iterable[Draft],
    *,
    drop: Iterable[str] = (),
    signing: Signing | None = None,
    choose: Callable[[list[Draft]], list[Draft]] = lambda drafts: drafts,
) -> list[Event]:
    """Add to this clone's log what `choose` leaves of the drafts; the events. They are signed where `signing` (None: what the
    target branch and the settings here say) asks for it."""
    drafts = list(drafts)
    if signing is None and drafts:
        signing = policy_of(project).signing
    # Where signatures are required always, so that git's own words come out.
    sign = signing == "require" or (signing == "warn" and project.repo.has_signing_key())
    return project.logs.append(
        writer_id(project.layout.own),
        drafts,
        now=time.time(),
        actor=actor_of(project),
        sign=sign,
        drop=tuple(drop),
        choose=choose,
    )


def new_variant(
    project: Project,
    plan: VariantPlan,
    on_problem: Callable[[str], object] = lambda _: None,
    on_note: Callable[[str], object] = lambda _: None,
) -> CommitId:
    """Make a variant, and record that in the log. If the log cannot be written, `on_problem` is told why, and `catch_up`
    does it later. `on_note` is told if a variant of this name existed before, and if the spec is that of the base."""
    commit = make_variant(project.repo, plan)
    if plan.is_same:
        on_note(f"nothing differs between {plan.name} and {plan.called}: --set gave values that it has already")
    earlier, model_dir = project.records.of_variant(plan.name), project.layout.variant_dir(plan.name)
    if earlier or model_dir.exists():
        kept = f", and its model_dir {project.shown(model_dir)} still exists" if model_dir.exists() else ""
        runs = "1 run is" if len(earlier) == 1 else f"{len(earlier)} runs are"
        on_note(
            f"a variant {plan.name} existed before: {runs} on record{kept}; "
            f"to start over and set its contents aside: expmgr run {plan.name} --fresh"
        )
    try:
        values = {"variant": str(plan.name), "commit": commit, "base": plan.called, "why": plan.why}
        tell(project, [Draft(VariantMade, values)], signing=project.settings.signing)
    except (OSError, ExpmgrError) as problem:
        on_problem(why_unsaid(problem))
    return commit


def why_unsaid(problem: OSError | ExpmgrError) -> str:
    """Why the log could not be written, with what to type where a lock of git is in the way."""
    if isinstance(problem, ExpmgrError) and problem.exit_code == ExitCode.BUSY and problem.hint:
        return f"{problem.message}: {problem.hint}"
    return problem.message if isinstance(problem, ExpmgrError) else str(problem)


def tell_runs(project: Project) -> int:
    """Say what runs have ended since; how many attempts. Nothing is said of what still goes on."""
    if project.is_scratch:
        return 0
    pins = [ref.removeprefix(KEEP) for ref in project.repo.refs(KEEP)]
    drafts: list[Draft] = []
    told: list[str] = []
    for run_id in pins:
        with contextlib.suppress(OSError, ExpmgrError):
            path = project.records.run_dir(run_id).record
            content = path.read_bytes()
            record = record_in(content, path)
            if record.has_ended and not is_foreign(project.records.run_dir(run_id)):
                drafts += _of_run(record, content)
                told.append(keep_ref(run_id))
    if drafts:
        tell(project, drafts, drop=told, choose=lambda given: _unsaid(project, given))
        project.logs.events("run")  # now in the index, by which the next command checks the records
    return len(told)


def _unsaid(project: Project, drafts: Sequence[Draft]) -> list[Draft]:
    """Those of `drafts` that this clone's log does not say: another process may have been quicker; and an attempt that began
    and was taken back leaves its pin, while the one before stands in the log."""
    own = (one.event for one in project.logs.events("run", "vouch") if one.ref.startswith(OWN))
    known = {(one.kind, getattr(one, "run_id", None), getattr(one, "attempt", None)) for one in own}
    return [
        one
        for one in drafts
        if (one.kind.model_fields["kind"].default, one.values["run_id"], one.values.get("attempt")) not in known
    ]


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
    """Say everything that happened in this clone and is not in a log yet: variants too that were made with git alone, unless
    they came from somebody else."""
    tell_runs(project)
    known = {one.event.variant for one in project.logs.events("variant") if isinstance(one.event, VariantMade)}
    made = origins(project.repo)
    drafts = []
    for variant in all_variants(project.repo):
        if str(variant.name) not in known and _is_ours(project, variant):
            origin = made.get(variant.name)
            base, why = (origin.base, origin.why) if origin else ("?", "")
            values = {"variant": str(variant.name), "commit": variant.commit, "base": base, "why": why}
            drafts.append(Draft(VariantMade, values))
    tell(project, drafts)


def _is_ours(project: Project, variant: Variant) -> bool:
    """Whether a branch was made here: no remote has it, or its newest commit is by whoever is at work."""
    repo = project.repo
    if all(repo.commit_of(f"refs/remotes/{one}/{variant.name.branch}") is None for one in remote_names(repo)):
        return True
    actor = actor_of(project)
    return actor is not None and actor.email == repo.author(variant.commit)


def retold(project: Project, told: Iterable[Told]) -> list[Draft]:
    """Events that stand in a log which is no longer ours, as drafts for another one: who said them, when, and what lies
    beside them stays."""
    drafts = []
    for one in told:
        values: dict[str, Any] = {"actor": None, **json.loads(one.content)}
        beside = {name: project.logs.beside([one], name)[0] for name in (RECORD_FILE, REVIEW_FILE)}
        files = {name: content for name, content in beside.items() if content is not None}
        kept = {key: value for key, value in values.items() if key not in ("writer", "time")}
        drafts.append(Draft(type(one.event), kept, files, was=one.id))
    return drafts
