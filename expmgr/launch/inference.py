"""Evaluate, predict and export from a command: fetches the checkpoint, starts the worker, returns data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from expmgr.errors import BadArgument, DataProblem, OutputProblem, UnknownCheckpoint
from expmgr.guard.judge import Judgement
from expmgr.guard.rules import told as told_change
from expmgr.launch.arguments import one_of, whole_number
from expmgr.launch.before import OnNote, from_store, tell_before, telling_what_stays
from expmgr.launch.check_plan import parse_checkpoint
from expmgr.launch.environments import environment_of
from expmgr.launch.local import is_own_worker, run_tasks
from expmgr.launch.plan import How, Task, checkpoint_ref, plan_tasks, step_of
from expmgr.launch.worker import close_early, take_early
from expmgr.paths import VariantName, run_command, seeds_text
from expmgr.project import Project
from expmgr.runs.request import Ask
from expmgr.spec.data import CsvData
from expmgr.spec.experiment import ExperimentSpec
from expmgr.variants.variants import Variant, find_variant, spec_of

Split = Literal["train", "eval", "test"]
Form = Literal["savedmodel", "keras"]


@dataclass(frozen=True)
class InferenceResult:
    """What every use of a checkpoint gives: which one was used, and what the guard said of it."""

    variant: str
    seed: int
    checkpoint: str
    """Its path."""
    step: int
    judgement: Judgement
    selected_step: int | None
    """The step that the spec's `selection` names; None if it goes by no metric."""

    def as_dict(self) -> dict[str, Any]:
        """What the command prints with `--json`."""
        return {"format": 1, **vars(self), "judgement": self.judgement.as_dict()}


@dataclass(frozen=True)
class EvaluateResult(InferenceResult):
    """A checkpoint, evaluated. `as_dict()` is what `expmgr evaluate --json` prints."""

    data: str
    """The file that was read."""
    rows: int | None
    """None where nobody counted them."""
    metrics: Mapping[str, float]
    not_finite: Mapping[str, str]
    """Metrics that are NaN or infinite, as words."""
    event: str | None = None
    """With `log`: the id of what the log says."""

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items())
        return f"<{self.checkpoint} on {self.data}: {told or 'no metric'}>"


@dataclass(frozen=True)
class PredictResult(InferenceResult):
    """What a checkpoint predicted. `as_dict()` is what `expmgr predict --json` prints."""

    data: str
    """The file that was read."""
    rows: int
    output: str
    """The file that was written."""

    def to_pandas(self) -> Any:
        """The predictions, a row per row of the data, as a `pandas.DataFrame`. Raises `ImportError` where pandas is not
        installed."""
        import pandas

        if self.output.endswith((".jsonl", ".json")):
            return pandas.read_json(self.output, lines=True)
        return pandas.read_csv(self.output)

    def __repr__(self) -> str:
        return f"<{self.output}: {self.rows:,} rows, predicted by {self.checkpoint}>"


@dataclass(frozen=True)
class ExportResult(InferenceResult):
    """A checkpoint, exported. `as_dict()` is what `expmgr export --json` prints."""

    output: str
    """The folder of the SavedModel, or the .keras file."""
    form: Form
    """`savedmodel` or `keras` (`as` in JSON)."""
    outputs: str
    """`logits`, `value` or `as built`."""
    inputs: Mapping[str, str]
    """Column to the name of the exported model's input."""
    needs_code: bool
    """Whether who loads it needs classes of the repository."""

    def as_dict(self) -> dict[str, Any]:
        return {"as" if key == "form" else key: value for key, value in super().as_dict().items()}

    def __repr__(self) -> str:
        return f"<{self.output}: {self.checkpoint} as {self.form}>"


def evaluate(
    project: Project,
    text: str,
    *,
    data: Path | None = None,
    split: Split = "eval",
    seed: int = 0,
    allow: Sequence[str] = (),
    log: bool = False,
    on_note: OnNote = lambda _: None,
) -> EvaluateResult:
    """Evaluate the checkpoint of `text` (`VARIANT[@STEP]`) on a split of the variant's data, or on the file `data`. With `log`
    the event log says what it was evaluated to; nothing else is written."""
    one_of("split", split, get_args(Split))
    done: list[str] = []
    with telling_what_stays(done):
        task = _task(project, text, seed, allow, on_note, done, what="evaluate", data=data, split=split)
        found = EvaluateResult(**_answer(project, task, text, on_note))
    return replace(found, event=_log(project, task, found, split if data is None else data.name)) if log else found


def _log(project: Project, task: Task, found: EvaluateResult, split: str) -> str:
    """Say in the log what a checkpoint was evaluated to; the id of the event."""
    from expmgr.log.events import Evaluated
    from expmgr.log.logs import Draft
    from expmgr.team.publish import tell

    runs = [one for one in project.records.of_variant(task.name) if one.seed == task.seed]
    made = [one.run_id for one in runs if any(saved.step == found.step for saved in one.checkpoints)]
    values: dict[str, object] = {
        "variant": str(task.name),
        "seed": task.seed,
        "step": found.step,
        "split": split,
        "metrics": found.metrics,
        "run_id": made[-1] if made else None,
        "commit": task.commit,
    }
    (event,) = tell(project, [Draft(Evaluated, values)])
    return event.id


def predict(
    project: Project,
    text: str,
    data: Path,
    output: Path,
    *,
    seed: int = 0,
    allow: Sequence[str] = (),
    on_note: OnNote = lambda _: None,
) -> PredictResult:
    """Predict every row of the file `data` with the checkpoint of `text`, into the file `output`: CSV, or JSON lines where it
    ends in .jsonl. Raises `OutputProblem` where that is there already."""
    _require_free(output)
    done: list[str] = []
    with telling_what_stays(done):
        task = _task(project, text, seed, allow, on_note, done, what="predict", data=data, output=output.absolute())
        return PredictResult(**_answer(project, task, text, on_note))


def export(
    project: Project,
    text: str,
    output: Path | None = None,
    *,
    form: Form | None = None,
    seed: int = 0,
    allow: Sequence[str] = (),
    on_note: OnNote = lambda _: None,
) -> ExportResult:
    """Write the checkpoint of `text` as a SavedModel or a .keras file, to `output`, or to `VARIANT-STEP` in the current folder.
    `form`: None for what `output` ends in. Raises `OutputProblem` where that is there already."""
    form = form or ("keras" if output is not None and output.suffix == ".keras" else "savedmodel")
    one_of("format", form, get_args(Form))
    if output is not None:
        if (form == "keras") != (output.suffix == ".keras"):
            raise BadArgument(f"{output}: a Keras file ends in .keras, and a SavedModel does not")
        _require_free(output)
    done: list[str] = []
    with telling_what_stays(done):
        task = _task(project, text, seed, allow, on_note, done, what="export", form=form)
        assert task.ask is not None
        step, end = task.ask.source.step, ".keras" if form == "keras" else ""
        target = output or Path(f"{task.name.variant}{'' if step is None else f'-{step}'}{end}")
        _require_free(target)
        asked = replace(task, ask=task.ask.model_copy(update={"output": target.absolute()}))
        told = _answer(project, asked, text, on_note)
        return ExportResult(form=told.pop("as"), **told)


def _task(
    project: Project,
    text: str,
    seed: int,
    allow: Sequence[str],
    on_note: OnNote,
    done: list[str],
    *,
    what: str,
    data: Path | None = None,
    split: str = "eval",
    output: Path | None = None,
    form: str = "savedmodel",
) -> Task:
    """The task; what was done for it that stays is added to `done`."""
    seed = whole_number("seed", seed)
    name, step = parse_checkpoint(text)
    variant = find_variant(project.repo, name)
    spec = spec_of(project.repo, variant)
    if what == "evaluate" and data is None and split == "test" and spec.data.test is None:
        raise BadArgument(f"{variant.name} has no test split (data.test)")
    if project.settings.store is None:
        _require_checkpoint(project, variant, spec, seed, step)
    if data is not None:
        _require_data(spec, data)
    environment_of(project, spec)  # before anything is fetched
    if from_store(project, name, seed, step, on_note):
        done.append("what was fetched")
    (task,) = plan_tasks(project, [name], [seed] if seed else None, How(allow=tuple(allow)), mode="check")
    _require_checkpoint(project, variant, spec, seed, step)
    source = checkpoint_ref(project, task.name, task.seed, step_of(project, task.name, task.seed, step))
    file = data.absolute() if data is not None else None
    about = {"what": what, "source": source, "split": split, "data": file, "output": output, "format": form}
    return replace(task, ask=Ask.model_validate(about))


def seeds_with_checkpoints(project: Project, name: VariantName) -> list[int]:
    """The seeds of a variant that have a model_dir with checkpoints here."""
    names = (path.name.removeprefix("seed-") for path in project.layout.variant_dir(name).glob("seed-*"))
    seeds = sorted(int(one) for one in names if one.isdigit())
    return [seed for seed in seeds if project.model_dir(name, seed).read_manifest() is not None]


def _require_checkpoint(project: Project, variant: Variant, spec: ExperimentSpec, seed: int, step: object) -> None:
    """`UnknownCheckpoint` where the seed has no checkpoint here, or not that of the step."""
    fixed, name = spec.run_config.tf_random_seed, variant.name
    train = run_command(name, None if fixed is not None else seed, None)
    seed = seed if fixed is None else fixed
    folder = project.model_dir(name, seed)
    manifest = folder.read_manifest()
    if manifest is not None and manifest.checkpoints:
        if isinstance(step, int):
            folder.listed(manifest, step)
        return
    if there := seeds_with_checkpoints(project, name):
        raise UnknownCheckpoint(
            f"{name} has no checkpoint of seed {seed}; it has checkpoints of seed{'' if len(there) == 1 else 's'} "
            f"{seeds_text(there)}",
            left_alone="Nothing was changed.",
            hint=f"name one of these seeds, as in --seed {there[0]}; or train this one: {train}",
        )
    if project.settings.store is not None and project.records.of_variant(name):  # why nothing was fetched was noted
        hint = f"fetch it from the store: expmgr pull {name}"
        raise UnknownCheckpoint(f"no checkpoint of {name} is here", left_alone="Nothing was changed.", hint=hint)
    raise UnknownCheckpoint(f"{name} has no checkpoint yet", hint=train)


def _require_data(spec: ExperimentSpec, data: Path) -> None:
    if isinstance(spec.data, CsvData) and not data.exists():
        raise DataProblem(f"{data} cannot be read: No such file or directory", left_alone="Nothing was changed.")


def _require_free(path: Path) -> None:
    if path.exists():
        raise OutputProblem(f"{path} is there already", left_alone="Nothing was changed.", hint="take another name")
    if not path.absolute().parent.is_dir():
        raise OutputProblem(f"there is no folder {path.parent}", left_alone="Nothing was changed.")


def _answer(project: Project, task: Task, text: str, on_note: OnNote) -> dict[str, Any]:
    """What the worker tells of it, by the fields of a result."""
    tell_before(project, [task], on_note)
    if not is_own_worker(task):  # one in another environment answers
        close_early()
    (outcome,) = run_tasks(project, [task], worker=take_early())
    if outcome.error is not None:
        raise outcome.error
    (answered,) = outcome.judged
    told = answered.body()
    told["judgement"] = judgement = Judgement.from_dict(told["judgement"])
    for one in judgement.differences:
        if one.is_allowed:
            on_note(told_change(one.rule.id, one.what, one.saved, one.wanted, allowed=True))
    selected = told["selected_step"]
    is_last = text.endswith("@last")
    if task.ask is not None and task.ask.source.step is None and not is_last and selected not in (None, told["step"]):
        on_note(f"this is the newest checkpoint; the selected one is of step {selected}: {task.name}@best")
    return {"variant": str(task.name), "seed": task.seed, **told}
