"""What a call of `run` amounts to: one task a variant and seed, each a new run or another attempt at an old one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from expmgr import __version__
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.disk.locks import Process
from expmgr.errors import Busy, CheckpointRefused, ExpmgrError, SpecProblem, UncommittedChanges
from expmgr.git.repo import CommitId
from expmgr.launch.checkout import make_checkout
from expmgr.launch.environments import Environment
from expmgr.paths import RunDir, VariantName, run_command
from expmgr.project import Project, keep_ref
from expmgr.runs.record import Attempt, RunRecord, is_outdated, is_seen_running, new_run_id, user_name
from expmgr.spec.changes import learned_from
from expmgr.spec.experiment import ExperimentSpec
from expmgr.store.fetch import fetched_here
from expmgr.variants.code import code_digest, roots_of, uncommitted_code
from expmgr.variants.variants import Variant, find_variant, spec_of

Mode = Literal["train", "check"]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that the guard is asked about: of `step`, by default the newest."""

    name: VariantName
    seed: int
    step: int | None = None


@dataclass(frozen=True)
class Adopt:
    """A checkpoint that was made elsewhere; `vouched_by` None: it is looked at alone."""

    folder: Path
    step: int | None = None
    maps: tuple[tuple[str, str], ...] = ()
    vouched_by: str | None = None


@dataclass(frozen=True)
class Ask:
    """What a variant's model is asked, and of which checkpoint."""

    what: Literal["evaluate", "predict", "export"]
    source: Candidate
    split: str = "eval"
    data: Path | None = None
    output: Path | None = None
    format: str = "savedmodel"


@dataclass(frozen=True)
class WarmStart:
    """From which checkpoint a run starts, and what it takes of it (`warmstart.Wish`)."""

    name: VariantName
    step: int | str | None
    seed: int | None
    """None: the seed of the run."""
    maps: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    with_optimizer: bool = False
    grow: bool = False


@dataclass(frozen=True)
class How:
    """What a call asks of its runs beyond their specs."""

    max_steps: int | None = None
    """None: the spec's."""
    fresh: bool = False
    from_step: int | None = None
    allow: tuple[str, ...] = ()
    warm_start: WarmStart | None = None


@dataclass(frozen=True)
class Task:
    """One seed of one variant, at one commit."""

    name: VariantName
    commit: CommitId
    tree: str
    code_digest: str
    spec: ExperimentSpec
    seed: int
    max_steps: int
    mode: Mode = "train"
    fresh: bool = False
    from_step: int | None = None
    """Go back to the checkpoint of this step."""
    allow: tuple[str, ...] = ()
    """Ids of the guard's rules whose refusal is let pass."""
    warm_start: WarmStart | None = None
    adopt: Adopt | None = None
    ask: Ask | None = None
    candidates: tuple[Candidate, ...] = ()
    """For `check`: the checkpoints that may or may not enter this variant's model."""

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"

    @property
    def command(self) -> str:
        """What to type to go on with it."""
        is_fixed = self.spec.run_config.tf_random_seed is not None
        is_as_said = self.max_steps == self.spec.train.max_steps
        return run_command(self.name, None if is_fixed else self.seed, None if is_as_said else self.max_steps)


@dataclass(frozen=True)
class Prepared:
    """A task whose folder, record and checkout are there; `before` is the record as it was, None for a new run."""

    task: Task
    record: RunRecord
    folder: RunDir
    before: RunRecord | None
    unseen: RunRecord | None = None
    """A run of the same seed that says it goes on, on another machine or in another container. Once the model_dir's
    lock is ours, it is known to have died."""


def plan_tasks(
    project: Project,
    names: Sequence[str],
    seeds: Sequence[int] | None,
    how: How | None = None,
    *,
    mode: Mode = "train",
) -> list[Task]:
    """The tasks of one call, variant by variant. Every variant is looked at before anything is started.

    Raises what is wrong with any of them: an unknown variant, a bad spec, changes that were not committed, a seed that
    the spec contradicts.
    """
    how = how or How()
    project.repo.head()
    variants = list(dict.fromkeys(find_variant(project.repo, name) for name in names))
    tasks = []
    for variant in variants:
        spec = spec_of(project.repo, variant)
        if mode == "train":
            _check_committed(project, variant)
        tree = project.repo.tree_id(variant.commit)
        digest = code_digest(project.repo, variant.commit, variant.name)
        for seed in _seeds(variant, spec, seeds):
            about = (variant.name, variant.commit, tree, digest, spec, seed)
            rest = (how.fresh, how.from_step, how.allow, how.warm_start)
            tasks.append(Task(*about, how.max_steps or spec.train.max_steps, mode, *rest))
    return tasks


def _seeds(variant: Variant, spec: ExperimentSpec, seeds: Sequence[int] | None) -> Sequence[int]:
    fixed = spec.run_config.tf_random_seed
    if fixed is None:
        return (0,) if seeds is None else seeds
    if seeds is not None:
        raise SpecProblem(
            f"{variant.name} fixes its seed (run_config.tf_random_seed: {fixed}), so --seeds cannot choose others",
            left_alone="Nothing was started.",
            hint=f"leave --seeds out, or unset it: expmgr new {variant.name}-seeds --from {variant.name} "
            "--set run_config.tf_random_seed=null",
        )
    return (fixed,)


def _check_committed(project: Project, variant: Variant) -> None:
    found = uncommitted_code(project.repo, variant.commit, variant.name)
    if found is None:
        return
    root, files = found
    shown = [*files[:5], *([f"and {len(files) - 5} more"] if len(files) > 5 else [])]
    raise UncommittedChanges(
        f"{variant.name} is checked out in {root}, with changes that a run would not see",
        details=shown,
        left_alone="Nothing was started.",
        hint=f'commit them and run: expmgr run {variant.name} --commit "what changed"',
    )


def already_complete(project: Project, task: Task) -> RunRecord | None:
    """The finished run that makes `task` needless: same commit, all steps done, its checkpoint still there."""
    record, _ = gone_on_from(project, task)
    if (
        record is None
        or task.fresh
        or task.from_step is not None
        or task.adopt is not None
        or not record.is_complete
        or not _is_what_was_run(record, task)
    ):
        return None
    if task.warm_start is not None and not _began_there(record, task.warm_start):
        return None  # the worker says why it cannot be
    manifest = model_dir_of(project, task).read_manifest()
    is_at_its_end = record.step >= task.max_steps or record.attempts[-1].ended_early is not None
    if manifest is None or manifest.at(record.step) is None or not is_at_its_end:
        return None
    return record


def gone_on_from(project: Project, task: Task) -> tuple[RunRecord | None, str | None]:
    """What the next run of a seed goes on from: the newest run of this clone, and None; or None, and the run whose checkpoint
    was fetched into the model_dir since."""
    newest = project.records.newest(task.name, task.seed)
    fetched = fetched_here(project, model_dir_of(project, task))
    if fetched is None or (newest is not None and _stands_at(newest, *fetched)):
        return newest, None
    return None, fetched[0]


def _stands_at(mine: RunRecord, run_id: str, step: int) -> bool:
    """Whether a run is at the checkpoint of `step` of run `run_id`: its own one, or where it began and has saved none since."""
    if mine.run_id == run_id:
        return True
    began = next((one.from_step for one in reversed(mine.attempts) if one.from_step is not None), None)
    return (mine.parent_run, began) == (run_id, step) and all(one.step <= step for one in mine.checkpoints)


def _began_there(record: RunRecord, asked: WarmStart) -> bool:
    """Whether the run began from the variant, seed and step that are asked for."""
    made = record.warm_start
    seed = record.seed if asked.seed is None else asked.seed
    if made is None or (made.get("variant"), made.get("seed")) != (str(asked.name), seed):
        return False
    return not isinstance(asked.step, int) or asked.step == made.get("step")


def _is_what_was_run(record: RunRecord, task: Task) -> bool:
    """Whether the run would do the same: another commit that changes neither spec nor code is none."""
    return record.commit == task.commit or not is_outdated(record, task.spec, task.code_digest)


def reserve(project: Project, task: Task) -> IO[bytes]:
    """The right to start runs of this variant and seed in this clone, until the file is closed; else `Busy`.

    It goes with the process. Without it two commands would pick the same record to add an attempt to. What protects the
    model_dir itself, also from other machines, is its own lock.
    """
    project.layout.own.mkdir(parents=True, exist_ok=True)
    path = project.layout.own / f"{task.name.experiment}--{task.name.variant}--seed-{task.seed}.running"
    while True:
        file = open(path, "ab")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            break
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        file.close()  # whoever had it before took the file away: this is no longer the one that others would lock
    running = project.records.newest(task.name, task.seed)
    if running is not None and not running.has_ended:
        raise _busy(task, running)
    raise Busy(
        f"{task} is being started by another command",
        left_alone="Nothing was changed.",
        hint="wait for it to end; expmgr list shows what runs",
    )


def give_back(reserved: IO[bytes]) -> None:
    """End what `reserve` began, and leave nothing of it."""
    Path(reserved.name).unlink(missing_ok=True)
    reserved.close()


def _busy(task: Task, running: RunRecord) -> Busy:
    return Busy(
        f"{task} is being trained by run {running.run_id}",
        left_alone="Nothing was changed.",
        hint=f"wait for it to end; expmgr show {running.run_id}",
    )


def check_still_there(project: Project, task: Task, previous: RunRecord | None) -> None:
    """Never start from step 0 in silence where there was a checkpoint: its folder may be on a disk that is not there."""
    if previous is None or task.fresh:
        return
    has_trained = previous.step > 0 or any(attempt.from_step for attempt in previous.attempts)
    if not has_trained and not any(one.step for one in previous.checkpoints):
        return
    folder = model_dir_of(project, task)
    if folder.read_manifest() is None:
        raise CheckpointRefused(
            f"{folder.shown} is empty, but run {previous.run_id} trained {task} to step {previous.step}",
            details=[f"its checkpoints were saved in {previous.model_dir}"],
            left_alone="Nothing was changed on disk.",
            hint=f"bring the folder back (is its disk mounted?), or start anew: {task.command} --fresh",
        )


def prepare(project: Project, task: Task, environment: Environment) -> Prepared:
    """Make everything that the worker needs: record, pin, checkout, request. On an error nothing of it stays."""
    previous = project.records.newest(task.name, task.seed)
    unseen = None
    if previous is not None and not previous.has_ended and task.mode == "train":
        if is_seen_running(previous):
            raise _busy(task, previous)
        unseen = previous  # whether it still runs, the model_dir's lock will tell
    previous, fetched = gone_on_from(project, task)
    if task.mode == "train":
        check_still_there(project, task, previous)
    takes_up = previous is not None and unseen is None and previous.commit == task.commit
    before = previous if takes_up and not task.fresh and task.mode == "train" else None
    record = _with_attempt(before, task) if before else _new_record(project, task, _parent(task, previous, fetched))
    folder = project.records.run_dir(record.run_id)
    try:
        project.records.begin(record)
        if not project.is_scratch:
            project.repo.set_ref(keep_ref(record.run_id), task.commit, "expmgr: run")
        make_checkout(project.repo, task.commit, folder.code)
        request = _request(project, task, record, folder)
        durable.write_json(folder.request, {**request, "environment": environment.as_dict()})
    except BaseException:
        take_back(project, Prepared(task, record, folder, before))
        raise
    return Prepared(task, record, folder, before, unseen)


def take_back(project: Project, prepared: Prepared) -> None:
    """As if the task had never been asked for."""
    project.records.withdraw(prepared.record.run_id, prepared.before)
    if prepared.before is None and not project.is_scratch:
        project.repo.delete_ref(keep_ref(prepared.record.run_id))


def _attempt(number: int, task: Task) -> Attempt:
    return Attempt(
        number=number, started_at=time.time(), max_steps=task.max_steps, launcher=Process.current().as_dict()
    )


def _with_attempt(before: RunRecord, task: Task) -> RunRecord:
    record = before.model_copy(deep=True)
    record.attempts.append(_attempt(len(record.attempts) + 1, task))
    record.status = "starting"
    return record


def _new_record(project: Project, task: Task, parent: str | None) -> RunRecord:
    now = time.time()
    return RunRecord(
        run_id=new_run_id(now),
        variant=str(task.name),
        seed=task.seed,
        commit=task.commit,
        tree=task.tree,
        code_digest=task.code_digest,
        parent_run=parent,
        spec=task.spec.resolved(),
        created_at=now,
        host=socket.gethostname() if project.settings.record_host else None,
        user=user_name() if project.settings.record_user else None,
        model_dir=project.shown(project.layout.model_dir(task.name, task.seed)),
        attempts=[_attempt(1, task)],
    )


def _parent(task: Task, previous: RunRecord | None, fetched: str | None) -> str | None:
    """The run that this one goes on from: the one whose checkpoint was fetched, or the one before in this clone."""
    if task.fresh:
        return None
    return fetched or (previous.run_id if previous is not None and previous.step else None)


def _request(project: Project, task: Task, record: RunRecord, folder: RunDir) -> dict[str, Any]:
    model_dir = project.layout.model_dir(task.name, task.seed)
    return {
        "format": 1,
        "mode": task.mode,
        "run_id": record.run_id,
        "variant": str(task.name),
        "seed": task.seed,
        "commit": task.commit,
        "spec": record.spec,
        "experiment_dir": str(folder.code / task.name.folder),
        "variant_dir": str(project.layout.variant_dir(task.name)),
        "repository": str(project.repo.root) if project.repo.root else None,
        "module_roots": roots_of(project.repo, task.commit, task.name),
        "data_root": project.settings.data_root,
        "pass_environment": project.settings.pass_environment,
        "model_dir": str(model_dir),
        "shown_model_dir": project.shown(model_dir),
        "max_steps": task.max_steps,
        "fresh": task.fresh,
        "from_step": task.from_step,
        "allow": list(task.allow),
        "candidates": [_candidate(project, one) for one in task.candidates],
        "warm_start": _warm_start(project, task),
        "adopt": _adopt(task.adopt),
        "ask": _ask(project, task.ask),
        "provenance": {
            "commit": task.commit,
            "run_id": record.run_id,
            "seed": task.seed,
            "expmgr": __version__,
            "code_digest": task.code_digest,
            "spec_digest": spec_digest(task.spec),
        },
    }


def _candidate(project: Project, candidate: Candidate) -> dict[str, Any]:
    folder = model_dir_of(project, candidate)
    about = {"variant": folder.variant, "seed": folder.seed, "step": candidate.step}
    return {**about, "model_dir": str(folder.path), "shown": folder.shown}


def step_of(project: Project, name: VariantName, seed: int, step: int | str | None) -> int | None:
    """The step that `best` means: the selected one, or the newest where nothing was selected."""
    if step != "best":
        return step if isinstance(step, int) else None
    manifest = model_dir_of(project, Candidate(name, seed)).read_manifest()
    return manifest.selected_step if manifest else None


def _ask(project: Project, ask: Ask | None) -> dict[str, Any] | None:
    if ask is None:
        return None
    files = {"data": str(ask.data) if ask.data else None, "output": str(ask.output) if ask.output else None}
    about = {"what": ask.what, "split": ask.split, "format": ask.format}
    return {**about, **files, "source": _candidate(project, ask.source)}


def _adopt(asked: Adopt | None) -> dict[str, Any] | None:
    if asked is None:
        return None
    return {"folder": str(asked.folder), "step": asked.step, "maps": asked.maps, "vouched_by": asked.vouched_by}


def _warm_start(project: Project, task: Task) -> dict[str, Any] | None:
    wish = task.warm_start
    if wish is None:
        return None
    seed = task.seed if wish.seed is None else wish.seed
    source = Candidate(wish.name, seed, step_of(project, wish.name, seed, wish.step))
    return {
        "source": _candidate(project, source),
        "maps": wish.maps,
        "only": wish.only,
        "with_optimizer": wish.with_optimizer,
        "grow": wish.grow,
    }


def spec_digest(spec: ExperimentSpec) -> str:
    """sha256 of what a checkpoint depends on in a spec. The order of keys counts: columns have one."""
    text = json.dumps(learned_from(spec.resolved()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_dir_of(project: Project, task: Task | Candidate) -> ModelDir:
    """The model_dir that `task` trains in."""
    path = project.layout.model_dir(task.name, task.seed)
    return ModelDir(path, shown=project.shown(path), variant=str(task.name), seed=task.seed)


@dataclass(frozen=True)
class Outcome:
    """How one task ended. `record` is None where no run began."""

    task: Task
    exit_code: int
    record: RunRecord | None = None
    error: ExpmgrError | None = None
    complete: bool = False
    """All steps had been done before: nothing was."""
    judged: Sequence[dict[str, Any]] = ()
    """For `check`: what the guard says of each candidate."""
    log: Path | None = None
