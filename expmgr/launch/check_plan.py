"""Plans the questions of `check` and `checkpoints` to the guard; answers some without TensorFlow."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import replace

from expmgr import __version__
from expmgr.checkpoints.model_dir import Whole
from expmgr.data.locations import is_outside
from expmgr.errors import BadName, ExpmgrError
from expmgr.guard.judge import Judgement
from expmgr.guard.rules import Verdict
from expmgr.launch.environments import TENSORFLOWS, environment_of
from expmgr.launch.plan import Task, checkpoint_ref, plan_tasks, spec_digest, step_of
from expmgr.launch.prepare import check_still_there
from expmgr.project import Project
from expmgr.runs.events import CandidateJudged
from expmgr.runs.request import CheckpointRef
from expmgr.spec.data import CsvData

_LINK = "120000"


def parse_checkpoint(text: str) -> tuple[str, int | str | None]:
    """`VARIANT[@STEP]`: the variant, and the step, `best` or None for the newest."""
    name, at, step = text.partition("@")
    if not at or step == "last":
        return name, None
    if step == "best":
        return name, step
    if not (step.isascii() and step.isdigit()):
        raise BadName(
            f"{text!r} names no checkpoint",
            left_alone="Nothing was changed.",
            hint=f"name a step, such as {name}@200, or {name}@best, or {name}@last",
        )
    return name, int(step)


def plan_checks(project: Project, text: str, seeds: Sequence[int] | None, *, against: Sequence[str] = ()) -> list[Task]:
    """One task a seed of the variant `text` (`VARIANT[@STEP]`): may its checkpoint enter its own model?

    With `against`, one task a seed and variant, and each is asked about the checkpoints of all of them.
    """
    named, step = parse_checkpoint(text)
    tasks = plan_tasks(project, [named, *against], seeds, mode="check")
    first = tasks[0].name
    names = list(dict.fromkeys(task.name for task in tasks))

    def candidates(task: Task) -> tuple[CheckpointRef, ...]:
        asked = names if against else [task.name]
        return tuple(
            checkpoint_ref(project, name, task.seed, step_of(project, name, task.seed, step) if name == first else None)
            for name in asked
        )

    return [replace(task, candidates=candidates(task)) for task in tasks]


def plan_listing(project: Project, text: str, seeds: Sequence[int] | None) -> list[Task]:
    """One task a seed, which asks about every checkpoint that is kept."""
    tasks = []
    for task in plan_tasks(project, [text], seeds, mode="check"):
        manifest = project.model_dir(task.name, task.seed).read_manifest()
        steps = [one.step for one in manifest.checkpoints] if manifest else []
        tasks.append(
            replace(task, candidates=tuple(checkpoint_ref(project, task.name, task.seed, step) for step in steps))
        )
    return tasks


def decided(project: Project, task: Task) -> list[CandidateJudged] | None:
    """What the guard says of all candidates, where it can be said without TensorFlow; else None.

    It can where nothing moved: the same settings, code and data in git, and the same versions, as when it was saved. A
    checkpoint that is damaged or not there needs no model either.
    """
    told = []
    is_plain = _is_plain(project, task)
    for candidate in task.candidates:
        try:
            whole = candidate.folder.inspect(candidate.step, thorough=False)
            if whole is None and candidate.variant == str(task.name):
                check_still_there(project, task, project.records.newest(task.name, task.seed))
        except ExpmgrError as error:
            told.append(CandidateJudged.of(candidate, error=error))
            continue
        if whole is None:
            told.append(CandidateJudged.of(candidate))
            continue
        if not is_plain or not _is_unchanged(project, task, candidate, whole):
            return None
        told.append(CandidateJudged.of(candidate, whole, Judgement(Verdict.SAME, ())))
    return told


def _is_unchanged(project: Project, task: Task, candidate: CheckpointRef, whole: Whole) -> bool:
    made = whole.signature.provenance
    now = {"code_digest": task.code_digest, "spec_digest": spec_digest(task.spec), "expmgr": __version__}
    versions = _versions(project, task)
    return candidate.seed == task.seed and all(made.get(key) == one for key, one in {**now, **versions}.items())


def _is_plain(project: Project, task: Task) -> bool:
    """Whether the code digest sees all that counts: no code makes model or data, and the data lies in the experiment's
    folder, behind no link."""
    data = task.spec.data
    if not isinstance(data, CsvData) or task.spec.is_own:
        return False
    if any(".." in path.split("/") or is_outside(path) for path in (data.train, data.eval, data.test or "")):
        return False
    return all(entry.mode != _LINK for entry in project.repo.tree(task.commit, task.name.folder))


def _versions(project: Project, task: Task) -> dict[str, str | None]:
    """What would trace the model now."""
    if task.spec.environment is None:
        return {"tensorflow": _version(TENSORFLOWS), "keras": _version(("keras",))}
    found = environment_of(project, task.spec)
    return {"tensorflow": found.version_of(*TENSORFLOWS), "keras": found.version_of("keras")}


def _version(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
