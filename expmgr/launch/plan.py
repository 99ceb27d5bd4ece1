"""Plans a call of `run`: one task per variant and seed, a new run or another attempt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from expmgr.errors import ExpmgrError, SpecProblem, UncommittedChanges
from expmgr.git.repo import CommitId
from expmgr.launch.environments import environment_of
from expmgr.paths import VariantName, run_command
from expmgr.project import Project
from expmgr.runs.counting import is_outdated
from expmgr.runs.events import CandidateJudged, JudgedEvent
from expmgr.runs.record import RunRecord, selected_step
from expmgr.runs.request import Adopt, Ask, CheckpointRef
from expmgr.spec.changes import learned_from
from expmgr.spec.experiment import ExperimentSpec
from expmgr.store.fetched import fetched_here
from expmgr.variants.code_digest import code_digest, uncommitted_code
from expmgr.variants.variants import Variant, find_variant, spec_of

Mode = Literal["train", "check"]


@dataclass(frozen=True)
class WarmStartOption:
    """`--warm-start-from`: from which checkpoint each run of a call starts, and what it takes of it."""

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
    warm_start: WarmStartOption | None = None


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
    warm_start: WarmStartOption | None = None
    adopt: Adopt | None = None
    ask: Ask | None = None
    candidates: tuple[CheckpointRef, ...] = ()
    """For `check`: the checkpoints that may or may not enter this variant's model."""

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"

    @property
    def command(self) -> str:
        """What to type to go on with it."""
        is_fixed = self.spec.run_config.tf_random_seed is not None
        is_as_said = self.max_steps == self.spec.train.max_steps
        return run_command(self.name, None if is_fixed else self.seed, None if is_as_said else self.max_steps)


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
    the spec contradicts; where they are trained, an environment that cannot.
    """
    how = how or How()
    project.repo.head()
    variants = list(dict.fromkeys(find_variant(project.repo, name) for name in names))
    tasks = []
    for variant in variants:
        spec = spec_of(project.repo, variant)
        if mode == "train":
            _check_committed(project, variant)
            environment_of(project, spec)
        tree = project.repo.tree_id(variant.commit)
        digest = code_digest(project.repo, variant.commit, variant.name)
        for seed in _seeds(variant, spec, seeds):
            if mode == "train" and not how.fresh:
                project.records.require_newest(variant.name, seed)
            about = (variant.name, variant.commit, tree, digest, spec, seed)
            rest = (how.fresh, how.from_step, how.allow, how.warm_start)
            tasks.append(Task(*about, how.max_steps or spec.train.max_steps, mode, *rest))
    return tasks


def _seeds(variant: Variant, spec: ExperimentSpec, seeds: Sequence[int] | None) -> Sequence[int]:
    fixed = spec.run_config.tf_random_seed
    if fixed is None:
        return (0,) if seeds is None else seeds
    if seeds is not None and tuple(seeds) != (fixed,):  # a hint names the seed, also where there is no other
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
    """The finished run that makes `task` needless: same commit, all steps done, its checkpoint still there.

    `CheckpointDamaged` where the manifest lists its last or its selected checkpoint, and files of it are missing or cut.
    """
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
    folder = project.model_dir(task.name, task.seed)
    manifest = folder.read_manifest()
    is_at_its_end = record.step >= task.max_steps or record.attempts[-1].ended_early is not None
    if manifest is None or manifest.at(record.step) is None or not is_at_its_end:
        return None
    for step in {record.step, selected_step(record)}:
        if manifest.at(step) is not None:
            folder.inspect(step, thorough=False)
    return record


def gone_on_from(project: Project, task: Task) -> tuple[RunRecord | None, str | None]:
    """What the next run of a seed goes on from: the newest run of this clone, and None; or None, and the run whose checkpoint
    was fetched into the model_dir since."""
    newest = project.records.newest(task.name, task.seed)
    fetched = fetched_here(project, project.model_dir(task.name, task.seed))
    if fetched is None or (newest is not None and _stands_at(newest, *fetched)):
        return newest, None
    return None, fetched[0]


def _stands_at(mine: RunRecord, run_id: str, step: int) -> bool:
    """Whether a run is at the checkpoint of `step` of run `run_id`: its own one, or where it began and has saved none since."""
    if mine.run_id == run_id:
        return True
    began = next((one.from_step for one in reversed(mine.attempts) if one.from_step is not None), None)
    return (mine.parent_run, began) == (run_id, step) and all(one.step <= step for one in mine.checkpoints)


def _began_there(record: RunRecord, asked: WarmStartOption) -> bool:
    """Whether the run began from the variant, seed and step that are asked for."""
    made = record.warm_start
    seed = record.seed if asked.seed is None else asked.seed
    if made is None or (made.get("variant"), made.get("seed")) != (str(asked.name), seed):
        return False
    return not isinstance(asked.step, int) or asked.step == made.get("step")


def _is_what_was_run(record: RunRecord, task: Task) -> bool:
    """Whether the run would do the same: another commit that changes neither spec nor code is none."""
    return record.commit == task.commit or not is_outdated(record, task.spec, task.code_digest)


def step_of(project: Project, name: VariantName, seed: int, step: int | str | None) -> int | None:
    """The step that `best` means: the selected one, or the newest where nothing was selected."""
    if step != "best":
        return step if isinstance(step, int) else None
    manifest = project.model_dir(name, seed).read_manifest()
    return manifest.selected_step if manifest else None


def spec_digest(spec: ExperimentSpec) -> str:
    """sha256 of what a checkpoint depends on in a spec. The order of keys counts: columns have one."""
    text = json.dumps(learned_from(spec.resolved()), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def checkpoint_ref(project: Project, name: VariantName, seed: int, step: int | None = None) -> CheckpointRef:
    """The checkpoint of `step` (None: the newest) of one seed of a variant. It need not exist."""
    folder = project.model_dir(name, seed)
    return CheckpointRef(variant=str(name), seed=seed, model_dir=folder.path, shown=folder.shown, step=step)


@dataclass(frozen=True)
class Outcome:
    """How one task ended. `record` is None where no run began."""

    task: Task
    exit_code: int
    record: RunRecord | None = None
    error: ExpmgrError | None = None
    complete: bool = False
    """All steps had been done before: nothing was."""
    judged: Sequence[JudgedEvent] = ()
    """The answers to a task that trains nothing. With an `error`, those that came before it."""
    log: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `expmgr run --json` prints it."""
        record = self.record
        return {
            "variant": str(self.task.name),
            "seed": self.task.seed,
            "exit_code": int(self.exit_code),
            "complete_before": self.complete,
            "run_id": record.run_id if record else None,
            "status": record.status if record else None,
            "step": record.step if record else None,
            "metrics": record.metrics if record else {},
            "error": self.error.as_dict() if self.error else None,
        }

    @property
    def candidates(self) -> list[CandidateJudged]:
        """For `check`: what the guard says of each candidate."""
        return [one for one in self.judged if isinstance(one, CandidateJudged)]
