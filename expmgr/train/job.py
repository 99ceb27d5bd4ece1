"""One run in its own process: request, guard, lock, training, and how each error ends the run.

Before the event `ready` nothing outside the run's folder changes, so a run that is refused leaves no trace.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expmgr.checkpoints.model_dir import Whole
from expmgr.disk.durable import system_error
from expmgr.disk.locks import Lock, Process, held
from expmgr.errors import (
    DiskFull,
    ExitCode,
    ExpmgrError,
    OurBug,
    Stopped,
    TrainingFailed,
    UnknownCheckpoint,
    WarmStartProblem,
    worst,
)
from expmgr.guard.adoption import Adoption, plan_adoption
from expmgr.guard.judge import Judgement, judge
from expmgr.guard.refusal import refusal
from expmgr.guard.warm_start import Plan, plan_warm_start
from expmgr.paths import RunDir, seeds_option
from expmgr.runs.events import AdoptionPlanned, CandidateJudged, Ended, Ready, Withdrawn
from expmgr.runs.record import Status
from expmgr.runs.request import CheckpointRef, read_request
from expmgr.spec.model import EstimatorModel
from expmgr.train.building import Built, build
from expmgr.train.inference import answer
from expmgr.train.loop.stopping import StopFlag
from expmgr.train.model import adopting, checkpoints
from expmgr.train.training.base import TrainingResult
from expmgr.train.training.reporting import Teller
from expmgr.train.training.training import Training
from expmgr.train.user.params import unread


@dataclass(frozen=True)
class Judged:
    """The newest checkpoint, None where there is none, and what the guard says of it; or what a warm start takes."""

    newest: Whole | None
    judgement: Judgement | None
    warm: WarmStarted | None = None
    foreign: Foreign | None = None


@dataclass(frozen=True)
class Foreign:
    """A checkpoint that was made elsewhere, and what is taken of it."""

    prefix: Path
    adoption: Adoption
    step: int
    vouched_by: str | None

    def as_dict(self) -> dict[str, Any]:
        about = {"path": str(self.prefix), "step": self.step, "vouched_by": self.vouched_by}
        return {**about, "files": adopting.digests(self.prefix), **self.adoption.as_dict()}


@dataclass(frozen=True)
class WarmStarted:
    """What is taken from where."""

    source: Whole
    plan: Plan
    variant: str
    seed: int

    def origin(self) -> dict[str, Any]:
        """Where the weights come from."""
        made = self.source.signature.provenance
        about = {"variant": self.variant, "seed": self.seed, "step": self.source.saved.step}
        return {**about, "run_id": made.get("run_id"), "commit": made.get("commit")}

    def as_dict(self) -> dict[str, Any]:
        return {**self.origin(), **self.plan.as_dict()}


def run_job(run_dir: RunDir, stop: StopFlag, on_untold: Callable[[dict[str, Any]], None] = lambda _: None) -> int:
    """Do what `request.json` in `run_dir` asks; the exit code of the run's process. `on_untold` is given the error as a story
    where the disk takes no event of it."""
    teller = Teller(run_dir)
    teller.on_untold = on_untold
    try:
        trainer, built = _built(run_dir)
        stop.grace_secs = built.spec.train.grace_secs
        if built.request.mode == "check" and built.request.adopt is not None:
            return _look_at_foreign(built, teller)
        if built.request.ask is not None:
            teller.tell(trainer.answer(built))
            return int(ExitCode.DONE)
        if built.request.mode == "check":
            return _check(built, teller)
        return _begin(trainer, built, stop, teller)
    except Exception as error:  # the last place where anything can be told
        story = as_story(error)
        try:
            teller.tell(Withdrawn(error=story.as_dict()))
        except (DiskFull, OSError):  # a full disk takes no event
            on_untold(story.as_dict())
        return int(story.exit_code)


@dataclass(frozen=True)
class Trainer:
    """Who trains and asks a kind of model."""

    training: Any
    """The class of a training."""
    answer: Any
    """The function that answers what the request asks."""


def _built(run_dir: RunDir) -> tuple[Trainer, Built]:
    """The model of the request with all that it needs, and who trains it."""
    if not isinstance(read_request(run_dir).experiment_spec.model, EstimatorModel):
        return Trainer(Training, answer), build(run_dir)
    # What these import is in an environment with Estimators alone.
    from expmgr.train.estimators.building import build as build_estimator
    from expmgr.train.estimators.inference import answer as answer_of_estimator
    from expmgr.train.estimators.training import EstimatorTraining

    built: Any = build_estimator(run_dir)
    return Trainer(EstimatorTraining, answer_of_estimator), built


def as_story(error: Exception) -> ExpmgrError:
    """`error` itself where it tells a story; otherwise what it means to a user, its traceback in the log."""
    if isinstance(error, ExpmgrError):
        return error
    traceback.print_exception(error)
    line = next(iter(str(error).splitlines()), "")[:300]
    if isinstance(error, OSError) and (story := system_error(error)) is not None:
        return story
    if full := checkpoints.disk_error(error, "a file of the run"):
        return full
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return TrainingFailed(
            f"there is not enough memory: {line or type(error).__name__}", hint="a smaller data.batch_size"
        )
    return OurBug(f"{type(error).__name__}: {line}", hint="the run's log has the traceback: please send it to us")


def _judge(built: Built) -> Judged:
    newest = built.folder.inspect(built.request.from_step)
    if newest is None and built.request.from_step is not None:
        raise UnknownCheckpoint(f"{built.folder.shown} has no checkpoint, so none of step {built.request.from_step}")
    if newest is None:
        return Judged(None, None)
    return Judged(newest, judge(newest.signature, built.signature(newest.saved.step), built.request.allow))


def _check(built: Built, teller: Teller) -> int:
    """Tell what the guard says of every candidate; the gravest exit code."""
    codes = [ExitCode.DONE]
    for candidate in built.request.candidates:
        told = _judged(built, candidate)
        teller.tell(told)
        codes.append(ExitCode(told.exit_code))
    return int(worst(codes))


def _judged(built: Built, candidate: CheckpointRef) -> CandidateJudged:
    try:
        whole = candidate.folder.inspect(candidate.step, thorough=False)
    except ExpmgrError as error:
        return CandidateJudged.of(candidate, error=error)
    if whole is None:
        return CandidateJudged.of(candidate)
    return CandidateJudged.of(candidate, whole, judge(whole.signature, built.signature(whole.saved.step)))


def _admitted(built: Built) -> Judged:
    """The checkpoint to go on from, which the guard lets through; with `fresh`, none."""
    built.folder.check_usable()
    if built.request.adopt is not None:
        if not built.request.fresh and built.folder.inspect() is not None:
            raise WarmStartProblem(
                f"{built.folder.shown} has checkpoints already: what is adopted needs a model_dir of its own",
                left_alone="Nothing was changed.",
                hint=f"expmgr new {built.request.variant}-2 --from {built.request.variant}",
            )
        return Judged(None, None, None, _foreign(built))
    if built.request.fresh:
        return Judged(None, None, _warm_start(built))
    judged = _judge(built)
    if judged.newest is None:
        return Judged(None, None, _warm_start(built))
    _look_at_the_start(built, judged.newest)
    if judged.newest and judged.judgement and judged.judgement.verdict.may_restore:
        _look_at_what_is_left(built, judged.newest, judged.judgement)
    if judged.newest and judged.judgement and not judged.judgement.verdict.may_restore:
        raise refusal(judged.judgement, judged.newest.shown, built.request.variant, built.request.seed)
    return judged


def _warm_start(built: Built) -> WarmStarted | None:
    """What is taken from the checkpoint that the request names."""
    asked = built.request.warm_start
    if asked is None:
        return None
    at = asked.source
    whole = at.folder.inspect(at.step)
    if whole is None:
        raise WarmStartProblem(f"{at.variant} has no checkpoint to start from", hint=f"expmgr run {at.variant}")
    plan = plan_warm_start(whole.signature, built.signature(0), asked.wish(built.request.allow), whole.shown)
    return WarmStarted(whole, plan, at.variant, at.seed)


def _foreign(built: Built) -> Foreign:
    asked = built.request.adopt
    assert asked is not None
    prefix = adopting.find_checkpoint(asked.folder, asked.step)
    tensors = adopting.tensors_of(prefix)
    adoption = plan_adoption(tensors, built.signature(0), str(prefix), built.request.variant, asked.maps)
    return Foreign(prefix, adoption, adopting.step_of(prefix, adoption), asked.vouched_by)


def _look_at_foreign(built: Built, teller: Teller) -> int:
    teller.tell(AdoptionPlanned(adoption=_foreign(built).as_dict(), exit_code=int(ExitCode.DONE)))
    return int(ExitCode.DONE)


def _look_at_the_start(built: Built, newest: Whole) -> None:
    """A warm start begins a model_dir; in one that has begun, the same words take it up again."""
    asked = built.request.warm_start
    made = newest.signature.provenance.get("warm_start")
    if asked is None:
        return
    at = asked.source
    is_there = made is not None and (made["variant"], made["seed"]) == (at.variant, at.seed)
    if made is not None and is_there and (at.step is None or at.step == made.get("step")):
        return
    source = f"{at.variant}:{at.seed}" + (f"@{at.step}" if at.step is not None else "")
    raise WarmStartProblem(
        f"{built.folder.shown} has checkpoints already, to step {newest.saved.step}: a warm start begins at step 0",
        left_alone="Nothing was changed.",
        hint=f"set them aside: expmgr run {built.request.variant} --fresh --warm-start-from {source}",
    )


def _look_at_what_is_left(built: Built, newest: Whole, judgement: Judgement) -> None:
    """A changed spec of which not one step would be trained must not have the old one's result."""
    if newest.saved.step < built.request.max_steps:
        return
    changed = [one for one in judgement.differences if one.rule.effect == "training"]
    if changed:
        name, step = built.request.variant, newest.saved.step
        run = f"expmgr run {name}{seeds_option(built.request.seed)}"
        raise WarmStartProblem(
            f"{newest.shown} is at step {step}, so nothing would be trained with what changed",
            details=[f"{one.what}   saved {one.saved}   wanted {one.wanted}" for one in changed[:5]],
            left_alone="Nothing was changed.",
            hint=f"train on: {run} --max-steps N, above {step}; or start anew: {run} --fresh",
        )


def _begin(trainer: Trainer, built: Built, stop: StopFlag, teller: Teller) -> int:
    judged = _admitted(built)
    teller.progress("building", judged.newest.saved.step if judged.newest else 0, built.request.max_steps)
    built.make_ready()
    _look_at(stop)

    def wait(seconds: float) -> None:
        _look_at(stop)
        time.sleep(seconds)

    with held(built.folder.lock_dir, built.folder.shown, wait=wait) as lock:
        judged = _admitted(built)  # whoever held the lock before may have trained
        return _train(trainer, built, judged, lock, stop, teller)


def _look_at(stop: StopFlag) -> None:
    if stop.is_set():
        raise Stopped("stopped before training began", left_alone="Nothing was changed.")


def _may_move(judgement: Judgement | None) -> set[str]:
    """Values of the probe that the changes which were let through may move; what a person let pass may move all."""
    found: set[str] = set()
    for one in judgement.differences if judgement else ():
        found |= {"outputs", "loss", "metrics", "step"} if one.is_allowed else one.rule.moves
    return found


def _train(trainer: Trainer, built: Built, judged: Judged, lock: Lock, stop: StopFlag, teller: Teller) -> int:
    renames = judged.judgement.renames if judged.judgement else {}
    if judged.warm is not None:
        built.provenance["warm_start"] = judged.warm.origin()
    elif judged.newest and "warm_start" in judged.newest.signature.provenance:
        built.provenance["warm_start"] = judged.newest.signature.provenance["warm_start"]
    if judged.foreign is not None:
        told = judged.foreign.as_dict()
        built.provenance["adopted"] = {key: told[key] for key in ("path", "step", "files", "vouched_by", "unknown")}
    training = trainer.training(
        built,
        judged.newest,
        lock=lock,
        teller=teller,
        stop=stop,
        renames=renames,
        warm=judged.warm,
        foreign=judged.foreign,
    )
    training.restore(_may_move(judged.judgement))
    found = list(judged.judgement.differences if judged.judgement else ())
    found.extend(judged.warm.plan.changes if judged.warm else ())
    teller.tell(
        Ready(
            worker=Process.current().as_dict(),
            from_step=training.start_step,
            changes=[one.as_dict() for one in found if one.rule.id != "setting"],
            data=built.data.as_dict(),
            parameters=built.parameters,
            params=built.params,
            measures=built.measures,
            unread=unread(built.code),
            environment=built.environment(),
            probe=training.probed,
            not_exact=training.not_exact(),
            warm_start=judged.warm.as_dict() if judged.warm else None,
            adopted=judged.foreign.as_dict() if judged.foreign else None,
        )
    )
    print(f"trains from {training.start_step} to {training.max_steps}", flush=True)
    try:
        return _end(training, training.run(), None, teller)
    except Exception as failure:  # a run that began has to say how it ended
        error = as_story(failure)
        status: Status = "preempted" if isinstance(error, Stopped) else "failed"
        return _end(training, TrainingResult(status), error, teller)


def _end(training: Training, outcome: TrainingResult, error: ExpmgrError | None, teller: Teller) -> int:
    """Tell how it ended; the exit code."""
    try:
        teller.tell(
            Ended(
                status=outcome.status,
                ended_early=outcome.ended_early,
                step=training.step,
                examples_seen=training.examples_seen,
                train_s=training.train_s,
                selected_step=outcome.selected_step,
                metrics=outcome.metrics,
                error=error.as_dict() if error and outcome.status == "failed" else None,
            )
        )
    except DiskFull as full:  # a full disk takes no event
        untold = error or full
        teller.on_untold(untold.as_dict())
        return int(untold.exit_code)
    if outcome.status == "preempted":
        return int(ExitCode.STOPPED)
    return int(error.exit_code if error else ExitCode.DONE)
