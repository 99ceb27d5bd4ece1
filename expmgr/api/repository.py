"""`expmgr.open` and `expmgr.compare`: what the commands do, for scripts and notebooks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expmgr.api.tables import Changes, ComparisonTable, Runs
from expmgr.errors import BadArgument, ExpmgrError
from expmgr.escape import clean
from expmgr.launch.local import Watcher, run_tasks
from expmgr.project import Project

if TYPE_CHECKING:
    from expmgr.api.details import RunDetails, VariantDetails
    from expmgr.api.doctor import Diagnosis
    from expmgr.api.listing import Listing
    from expmgr.api.review_reports import ReviewReport, ReviewReports
    from expmgr.launch.check_answers import GuardAnswers, KeptCheckpoints
    from expmgr.launch.inference import EvaluateResult, ExportResult, PredictResult
    from expmgr.launch.plan import Outcome
    from expmgr.launch.prepare import Prepared
    from expmgr.launch.rebuild import RebuiltManifests
    from expmgr.team.restore import RestoredRun

_Names = list[str]  # `Repository.list` hides the builtin in its class
_RestoredRuns = list["RestoredRun"]


def open(path: str | Path = ".") -> Repository:
    """The repository that `path` is in. Raises `ExpmgrError` if it is in none."""
    return Repository(Project.open(Path(path), _note))


def compare(
    variants: Sequence[str],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    seeds: Sequence[int] | None = None,
    path: str | Path = ".",
) -> ComparisonTable:
    """`open(path).compare(...)`, for a notebook that does nothing else."""
    names = [variants] if isinstance(variants, str) else variants
    return open(path).compare(*names, baseline=baseline, metric=metric, seeds=seeds)


class Repository:
    """Variants of one repository: made, trained, compared and looked at as by the commands of the same names.

    Each method raises the error that its command prints (`ExpmgrError`, with `message`, `details`, `left_alone` and `hint`),
    and `BadArgument` for arguments that make no sense. Notes that the command prints go to stderr; that a
    record cannot be read is noted once. Paths are relative to the
    current folder of the process, as for a command.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def __repr__(self) -> str:
        repo = self._project.repo
        variants, runs = len(self.variants), len(self._project.records.heads())
        return f"<expmgr repository {repo.root or repo.git_common_dir}: {variants} variants, {runs} runs>"

    @property
    def variants(self) -> _Names:
        """Their names."""
        from expmgr.variants.variants import all_variants

        return [str(one.name) for one in all_variants(self._project.repo)]

    def list(
        self,
        experiment: str | None = None,
        *,
        where: str | Sequence[str] = (),
        sort: str | None = None,
        limit: int | None = None,
    ) -> Listing:
        """As `expmgr list`: a row per variant, with its runs and its result.

        `where`: conditions `KEY=VALUE` (or != > >= < <= ~) that all have to hold, on a key of the spec, a metric or a column;
        `sort`: such a key, `-KEY` for the largest first; `limit`: how many rows. Raises `UnknownVariant` for an experiment
        that there is not, and `NoSuchKey`, with the nearest one.

        >>> repository.list("iris", where=["model.hidden_units=[20, 20]", "accuracy>0.9"], sort="-accuracy", limit=5)
        """
        from expmgr.api.listing import list_variants

        conditions = [where] if isinstance(where, str) else where
        return list_variants(self._project, experiment, where=conditions, sort=sort, limit=limit)

    def show(self, what: str) -> VariantDetails | RunDetails:
        """As `expmgr show`: of a variant its spec, runs and notes; of a run (its id or the beginning of it, or VARIANT:SEED) the
        record, notes, and what it is at. Raises `UnknownVariant` or `UnknownRun`."""
        from expmgr.api.details import details

        return details(self._project, what)

    def restore(self, *runs: str) -> _RestoredRuns:
        """As `expmgr restore`: restore damaged records from the event log, those of `runs` (ids or unique prefixes) or all.

        Raises `RecordDamaged` if no log has the record, and `Busy` if the run has not ended.
        """
        from expmgr.team.restore import restore

        return restore(self._project, runs, lambda problem: _note(problem.message))

    def new(
        self, variant: str, *, base: str | None = None, set: Mapping[str, Any] | None = None, why: str | None = None
    ) -> str:
        """Make a variant; its name. `set` maps dotted keys of the spec to values, None to unset one.

        Raises `SpecProblem`, `BranchExists` and the like, and nothing has changed.
        """
        from expmgr.team.publish import new_variant
        from expmgr.variants.variants import plan_variant

        assignments = [f"{key}={json.dumps(value)}" for key, value in (set or {}).items()]
        plan = plan_variant(
            self._project.repo, variant, base, assignments, why, packages=self._project.settings.code_packages
        )
        new_variant(self._project, plan, lambda reason: _note(f"the log does not have it yet: {reason}"), _note)
        return str(plan.name)

    def run(
        self,
        *variants: str,
        seeds: Iterable[int] | None = None,
        max_steps: int | None = None,
        jobs: int = 1,
        fresh: bool = False,
        from_step: int | None = None,
        allow: Sequence[str] = (),
        warm_start_from: str | None = None,
        map: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
        with_optimizer: bool = False,
        grow: bool = False,
        commit: str | None = None,
        quiet: bool = False,
    ) -> Runs:
        """As `expmgr run`: train `variants`, with each of `seeds`; their runs when all have ended.

        `max_steps`: to this step, instead of the spec's; `jobs`: how many runs at a time; `fresh`: start at step 0, the old
        model_dir is set aside; `from_step`: go back to the checkpoint of that step; `allow`: rules of the guard whose refusal
        you take upon yourself; `commit`: first commit the variant's changes in its checkout, with this message.
        `warm_start_from="VARIANT[:SEED][@STEP]"` starts at step 0 from the weights of another checkpoint: `map` says which
        variable is which, `only` which are taken, `with_optimizer` takes the optimizer's slots too, and `grow` lets a larger
        layer take the slice that it overlaps with.

        Progress goes to stderr unless `quiet`; notes always do. Raises the first error (`CheckpointRefused`,
        `UserCodeFailed` and so on) where one was not trained to its end, after all others have ended; the runs of those are in
        `runs(variant)`.

        >>> repository.run("iris/baseline", "iris/wide", seeds=range(3), max_steps=200, jobs=2)
        """
        from expmgr.guard.allowing import allowed_rules
        from expmgr.launch.before import telling_what_stays
        from expmgr.launch.call import RunCall, commit_changes, plan_call

        call = RunCall(
            variants,
            _seeds(seeds),
            max_steps,
            jobs,
            fresh,
            from_step,
            allow=tuple(allowed_rules(allow, variants[0] if variants else "VARIANT")),
            warm_start_from=warm_start_from,
            maps=tuple((map or {}).items()),
            only=tuple(only),
            with_optimizer=with_optimizer,
            grow=grow,
            commit=commit,
        )
        done: list[str] = []
        with telling_what_stays(done):
            if commit is not None and commit_changes(self._project, variants[0], commit).files:
                done.append("the commit")
            tasks = plan_call(self._project, call, _note, done)
            outcomes = run_tasks(self._project, tasks, jobs=jobs, watcher=Watcher() if quiet else _Lines())
            for one in outcomes:
                if one.error is not None:
                    raise one.error
        return Runs([one.record for one in outcomes if one.record is not None])

    def runs(self, variant: str) -> Runs:
        """Every run of a variant that is recorded here."""
        from expmgr.variants.variants import find_variant

        return Runs(self._project.records.of_variant(find_variant(self._project.repo, variant).name))

    def check(
        self, variant: str, *, against: str | Sequence[str] = (), seeds: Iterable[int] | None = None
    ) -> GuardAnswers:
        """As `expmgr check`: may the checkpoint of `variant` (`VARIANT[@STEP]`) be restored into its model as it is now; with
        `against`, who of these variants may start from whom, all ways. Changes nothing.

        A refusal is an answer here, and raises nothing: each has `verdict`, `judgement` (`differences`, `notes`) and `error`,
        for a checkpoint that cannot be read or a model that cannot be built.
        """
        from expmgr.launch.check_answers import ask_guard

        others = [against] if isinstance(against, str) else against
        return ask_guard(self._project, variant, _seeds(seeds), against=others, on_note=_note)

    def checkpoints(self, variant: str, *, seeds: Iterable[int] | None = None) -> KeptCheckpoints:
        """As `expmgr checkpoints`: those that are kept, with size (bytes), metric, and the guard's verdict on each now."""
        from expmgr.launch.check_answers import kept_checkpoints

        return kept_checkpoints(self._project, variant, _seeds(seeds), on_note=_note)

    def rebuild_checkpoints(self, variant: str, *, seeds: Iterable[int] | None = None) -> RebuiltManifests:
        """As `expmgr checkpoints --rebuild`: rebuild a damaged or lost manifest of each seed (default: 0) from the checkpoints
        that are whole; the damaged one is set aside. Each has `steps`, `not_taken`, `notes` and `set_aside`.

        `errors` has those of the seeds that were not rebuilt. The error of a single seed is raised: `CheckpointRefused` if no
        checkpoint is whole, and `Busy` if somebody trains there.
        """
        from expmgr.launch.rebuild import rebuild_manifests

        return rebuild_manifests(self._project, variant, _seeds(seeds))

    def evaluate(
        self,
        variant: str,
        *,
        data: str | Path | None = None,
        split: Literal["train", "eval", "test"] = "eval",
        seed: int = 0,
        allow: Sequence[str] = (),
        log: bool = False,
    ) -> EvaluateResult:
        """As `expmgr evaluate`: the metrics of a checkpoint (`VARIANT[@STEP]`, `@best`, `@last`; default: the newest) on a split
        of the variant's data, or on the file `data`.

        `log` says it in the event log, for the team; otherwise nothing is recorded. Raises `CheckpointRefused` where the guard
        does not let the checkpoint into the model, unless `allow` names the rule.

        >>> repository.evaluate("iris/wide@best", split="test").metrics["accuracy"]
        """
        from expmgr.guard.allowing import allowed_rules
        from expmgr.launch.inference import evaluate

        return evaluate(
            self._project,
            variant,
            data=None if data is None else Path(data),
            split=split,
            seed=seed,
            allow=allowed_rules(allow, variant),
            log=log,
            on_note=_note,
        )

    def predict(
        self, variant: str, data: str | Path, output: str | Path, *, seed: int = 0, allow: Sequence[str] = ()
    ) -> PredictResult:
        """As `expmgr predict`: predict every row of the file `data`, into the new file `output`: CSV, or JSON lines where it ends
        in .jsonl. `to_pandas()` of the result reads it.

        Raises `OutputProblem` where `output` is there already, and `CheckpointRefused` as `evaluate` does.

        >>> repository.predict("iris/wide", "new.csv", "predicted.csv").to_pandas()
        """
        from expmgr.guard.allowing import allowed_rules
        from expmgr.launch.inference import predict

        rules = allowed_rules(allow, variant)
        return predict(self._project, variant, Path(data), Path(output), seed=seed, allow=rules, on_note=_note)

    def export(
        self,
        variant: str,
        output: str | Path | None = None,
        *,
        format: Literal["savedmodel", "keras"] | None = None,
        seed: int = 0,
        allow: Sequence[str] = (),
    ) -> ExportResult:
        """As `expmgr export`: write a checkpoint as a SavedModel or a .keras file, to `output`, or to `VARIANT-STEP` in the
        current folder. `format`: default as `output` ends, else a SavedModel.

        Raises `OutputProblem` where `output` is there already, and `CheckpointRefused` as `evaluate` does.

        >>> repository.export("iris/wide", "served").output
        """
        from expmgr.guard.allowing import allowed_rules
        from expmgr.launch.inference import export

        target = None if output is None else Path(output)
        rules = allowed_rules(allow, variant)
        return export(self._project, variant, target, form=format, seed=seed, allow=rules, on_note=_note)

    def compare(
        self, *variants: str, baseline: str | None = None, metric: str | None = None, seeds: Iterable[int] | None = None
    ) -> ComparisonTable:
        """As `expmgr compare`; the first is the baseline, unless said. A notebook shows numbers, verdicts and a picture."""
        from expmgr.comparison.comparison import compare as compared
        from expmgr.comparison.used_runs import chosen

        if not variants:
            raise BadArgument('compare takes the names of variants: compare("iris/baseline", "iris/wide")')
        found = chosen(self._project, variants, baseline)
        comparison = compared(
            found.subjects, baseline=found.baseline, metric=metric, tried=found.tried, seeds=_seeds(seeds)
        )
        return ComparisonTable(comparison, lambda run_id: self._project.records.load(run_id).curves)

    def diff(self, *variants: str) -> Changes:
        """As `expmgr diff`: what differs between two variants or more, held against the first, and whether nothing else does."""
        from expmgr.comparison.differences import differences_of

        return Changes(differences_of(self._project, variants))

    def doctor(self, *, fix: bool = False, network: bool = False) -> Diagnosis:
        """As `expmgr doctor`: what is wrong with this set-up. `fix` does what is safe; `network` also asks the git remotes and
        the store."""
        from expmgr.api.doctor import Setup, diagnose

        return diagnose(Setup(self._project.repo.folder, network), fix=fix)

    def reviews(self, *, everything: bool = False) -> ReviewReports:
        """As `expmgr review list`: the open reviews, with `everything` also those that were decided. One that cannot be judged
        now is left out, and a note on stderr says why."""
        from expmgr.api.review_reports import ReviewReport, ReviewReports
        from expmgr.reviews.current import reports

        found = reports(self._project, everything=everything, on_problem=_note)
        return ReviewReports([ReviewReport(one) for one in found])

    def review(self, review: str) -> ReviewReport:
        """As `expmgr review show`: one review, by its id or the beginning of it, or by the variant under review. Raises
        `UnknownReview`."""
        from expmgr.api.review_reports import ReviewReport
        from expmgr.reviews.current import report_named

        return ReviewReport(report_named(self._project, review))


def _seeds(seeds: Iterable[int] | None) -> tuple[int, ...] | None:
    """Each seed once, in the order given."""
    if seeds is None:
        return None
    try:
        found = dict.fromkeys(index(one) for one in seeds)
    except TypeError:
        found = None
    if not found or min(found) < 0:
        raise BadArgument("seeds are numbers: seeds=range(5), or [0, 3, 5]")
    return tuple(found)


def _note(told: str) -> None:
    print(clean(f"Note: {told}"), file=sys.stderr)


class _Lines(Watcher):
    """A line where a run begins and where it ends."""

    def started(self, prepared: Prepared) -> None:
        task = prepared.task
        print(f"{task.name} seed {task.seed}: to step {task.max_steps}", file=sys.stderr)

    def ended(self, outcome: Outcome) -> None:
        task, record = outcome.task, outcome.record
        if record is not None:
            print(f"{task.name} seed {task.seed}: {record.status} at step {record.step}", file=sys.stderr)


__all__ = ["ComparisonTable", "ExpmgrError", "Repository", "Runs", "open"]
