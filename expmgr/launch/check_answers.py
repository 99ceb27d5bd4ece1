"""The guard's answers for `check`, and the list of checkpoints for `checkpoints`, as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from expmgr.checkpoints.manifest import Manifest, SavedCheckpoint
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.errors import ExpmgrError, reported, worst
from expmgr.guard.judge import Judgement
from expmgr.guard.rules import Verdict
from expmgr.launch.before import OnNote, tell_before, with_store
from expmgr.launch.check_plan import plan_checks, plan_listing
from expmgr.launch.local import run_tasks
from expmgr.launch.plan import Outcome, Task
from expmgr.paths import seeds_option
from expmgr.project import Project
from expmgr.runs.events import CandidateJudged


@dataclass(frozen=True)
class GuardAnswer:
    """What the guard says of one checkpoint and the model of one seed of a variant."""

    variant: str
    seed: int
    source: str | None
    """Whose checkpoint it is (`from` in JSON); None if the question was not answered (see `error`)."""
    checkpoint: str | None
    """Its path; None where there is none."""
    step: int | None
    exit_code: int
    judgement: Judgement | None
    """None where there is no checkpoint, or it cannot be read."""
    error: ExpmgrError | None
    command: str
    """What to type to ask again."""
    way_out: str | None = None
    """What a person can do where training cannot go on from the checkpoint."""

    @property
    def verdict(self) -> Verdict | None:
        """`same`, `resume`, `warm-start` or `refuse`; None where there is no judgement."""
        return self.judgement.verdict if self.judgement is not None else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "variant": self.variant,
            "seed": self.seed,
            "from": self.source,
            "checkpoint": self.checkpoint,
            "step": self.step,
            "exit_code": self.exit_code,
            "judgement": self.judgement.as_dict() if self.judgement is not None else None,
            "error": self.error.as_dict() if self.error is not None else None,
        }

    def __repr__(self) -> str:
        if self.error is not None:
            said = f"error: {self.error.message}"
        elif self.judgement is None:
            said = "no checkpoint yet"
        else:
            said = f"{self.judgement.verdict.value} ({self.checkpoint})"
        return f"<{self.variant} seed {self.seed}: {said}>"


@dataclass(frozen=True)
class GuardAnswers:
    """The guard's answers, by seed and variant. `as_dict()` is what `expmgr check --json` prints."""

    answers: Sequence[GuardAnswer]
    sources: Sequence[str]
    """The variants whose checkpoints were asked about."""
    exit_code: int
    """The exit code of `expmgr check`: 0 if training may resume from every checkpoint, 3 if one is refused, and that of the
    error if a question was not answered."""

    def as_dict(self) -> dict[str, Any]:
        return {"format": 1, "exit_code": self.exit_code, "checks": [one.as_dict() for one in self.answers]}

    def __iter__(self) -> Iterator[GuardAnswer]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, number: int) -> GuardAnswer:
        return self.answers[number]

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.answers))


def ask_guard(
    project: Project,
    variant: str,
    seeds: Sequence[int] | None = None,
    *,
    against: Sequence[str] = (),
    on_note: OnNote = lambda _: None,
) -> GuardAnswers:
    """May the checkpoint of `variant` (`VARIANT[@STEP]`) be restored into its model as it is now; with `against`, who may start
    from whom, all ways. Changes nothing."""
    tasks = plan_checks(project, variant, seeds, against=against)
    outcomes = _asked(project, tasks, on_note)
    answers = [answer for outcome in outcomes for answer in _answers(project, outcome)]
    sources = dict.fromkeys(ref.variant for task in tasks for ref in task.candidates)
    return GuardAnswers(answers, list(sources), worst([one.exit_code for one in outcomes]))


def _asked(project: Project, tasks: Sequence[Task], on_note: OnNote) -> list[Outcome]:
    tell_before(project, tasks, on_note)
    return run_tasks(project, tasks)


def _answers(project: Project, outcome: Outcome) -> Iterator[GuardAnswer]:
    task = outcome.task
    about = (str(task.name), task.seed)
    is_fixed = task.spec.run_config.tf_random_seed is not None  # then no command takes --seeds
    seed, step = 0 if is_fixed else task.seed, task.candidates[0].step
    command = f"expmgr check {task.name}{'' if step is None else f'@{step}'}{seeds_option(seed)}"
    if outcome.error is not None:
        yield GuardAnswer(*about, None, None, None, int(outcome.exit_code), None, outcome.error, command)
    for told in outcome.candidates:
        judgement = Judgement.from_dict(told.judgement) if told.judgement is not None else None
        error = with_store(project, task, reported(told.error)) if told.error is not None else None
        out = None
        if judgement is not None and not judgement.verdict.may_restore:
            out = judgement.differences[0].rule.way_out(str(task.name), seed)
        source, checkpoint, at = told.variant, told.checkpoint, told.step
        yield GuardAnswer(*about, source, checkpoint, at, told.exit_code, judgement, error, command, out)


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint that is kept, and what the guard says of it now."""

    variant: str
    seed: int
    step: int
    saved_at: float
    """Seconds since 1970, UTC."""
    metric: str
    selected_by: str | None
    """The metric that selects a checkpoint; None where the last one is selected."""
    value: float | None
    """Of the metric that the selection goes by, else of the one that the spec compares by; None where it was not evaluated
    when it was saved."""
    size_bytes: int
    signature: str | None
    """sha256 of its signature."""
    verdict: str
    """The guard's; `damaged` if it cannot be read, `unknown` if the guard did not answer."""
    selected: bool
    preserved: bool

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def __repr__(self) -> str:
        value = "" if self.value is None else f", {self.metric} {self.value:.4f}"
        return f"<checkpoint of {self.variant} seed {self.seed} at step {self.step}: {self.verdict}{value}>"


@dataclass(frozen=True)
class KeptCheckpoints:
    """The checkpoints that are kept. `as_dict()` is what `expmgr checkpoints --json` prints."""

    checkpoints: Sequence[KeptCheckpoint]
    errors: Sequence[ExpmgrError]
    """Why the guard could not be asked of the checkpoints of a seed."""
    exit_code: int

    def as_dict(self) -> dict[str, Any]:
        return {"format": 1, "checkpoints": [one.as_dict() for one in self.checkpoints]}

    def __iter__(self) -> Iterator[KeptCheckpoint]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __getitem__(self, number: int) -> KeptCheckpoint:
        return self.checkpoints[number]

    def to_pandas(self) -> Any:
        """A row per checkpoint, as a `pandas.DataFrame`. Raises `ImportError` where pandas is not installed."""
        import pandas

        return pandas.DataFrame([one.as_dict() for one in self.checkpoints])

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.checkpoints)) or "no checkpoint"


def kept_checkpoints(
    project: Project, variant: str, seeds: Sequence[int] | None = None, *, on_note: OnNote = lambda _: None
) -> KeptCheckpoints:
    """The checkpoints of a variant that are kept, with the guard's verdict on each now."""
    outcomes = _asked(project, plan_listing(project, variant, seeds), on_note)
    found = []
    errors: list[ExpmgrError] = []
    codes = [one.exit_code for one in outcomes if one.error is not None]
    for outcome in outcomes:
        folder = project.model_dir(outcome.task.name, outcome.task.seed)
        if outcome.error is not None:
            errors.append(outcome.error)
        owner_problem = _owner_problem(folder)
        if owner_problem is not None:  # the guard reads nothing there, so no answer is about a checkpoint
            errors.append(owner_problem)
            codes.append(int(owner_problem.exit_code))
        manifest = folder.read_manifest()
        if manifest is None:
            continue
        asked = [one.step for one in outcome.task.candidates if one.step is not None]
        verdicts = dict.fromkeys(asked, "unknown")  # without an answer the checkpoints are there all the same
        if owner_problem is None:
            verdicts |= {told.step: _verdict(told) for told in outcome.candidates if told.step is not None}
        selected = _selected(outcome, manifest)
        for step, verdict in verdicts.items():
            saved = manifest.at(step)
            if saved is not None:
                found.append(_kept(outcome, saved, verdict, step == selected))
    return KeptCheckpoints(found, errors, worst(codes))


def _owner_problem(folder: ModelDir) -> ExpmgrError | None:
    """Why the guard reads no checkpoint of a folder; None if the folder is the variant's."""
    try:
        folder.check_owner()
    except ExpmgrError as error:
        return error
    return None


def _selected(outcome: Outcome, manifest: Manifest) -> int | None:
    """The step of the selected checkpoint; the last one where no metric selects."""
    if hasattr(outcome.task.spec.selection, "metric"):
        return manifest.selected_step
    return max((one.step for one in manifest.checkpoints), default=None)


def _verdict(told: CandidateJudged) -> str:
    return str(told.judgement["verdict"]) if told.judgement else "damaged"


def _kept(outcome: Outcome, saved: SavedCheckpoint, verdict: str, is_selected: bool) -> KeptCheckpoint:
    chosen, compared = outcome.task.spec.selection, outcome.task.spec.compared
    # What the selection goes by, where it does: it is what makes one `selected`.
    metric = getattr(chosen, "metric", compared.metric)
    split = getattr(chosen, "split", compared.split)
    return KeptCheckpoint(
        variant=str(outcome.task.name),
        seed=outcome.task.seed,
        step=saved.step,
        saved_at=saved.saved_at,
        metric=metric,
        selected_by=getattr(chosen, "metric", None),
        value=saved.metrics.get(split, {}).get(metric),
        size_bytes=sum(file.size_bytes for file in saved.files.values()),
        signature=next((file.sha256 for name, file in saved.files.items() if name.endswith(".json")), None),
        verdict=verdict,
        selected=is_selected,
        preserved=saved.preserved,
    )
