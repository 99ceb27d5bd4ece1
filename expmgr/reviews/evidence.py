"""The evidence of a review: the candidate as it would be merged, compared with its baseline; digests.

Two digests bind a decision. `digests`: spec and code of both sides, the metric and the smallest difference that matters,
and every file but prose that the merge would change in the target. `result_set`: the runs that count, and their numbers.
Neither depends on a commit, so a rebase or a change of prose alters none of them, and a new result, other code, other
settings, or a change on the target that reaches the candidate does.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from expmgr.comparison.comparison import Comparison, Row, compare
from expmgr.comparison.results import Result
from expmgr.comparison.sides import Answer, Check, Side
from expmgr.comparison.used_runs import pair
from expmgr.data.locations import is_outside
from expmgr.errors import ReviewProblem, SpecProblem, UnknownVariant
from expmgr.git.commits import merged_tree
from expmgr.git.objects import TreeEntry
from expmgr.git.repo import CommitId
from expmgr.log.events import ReviewOpened, RunTold, canonical
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.counting import ABOUT
from expmgr.runs.origin import is_foreign
from expmgr.runs.record import RunRecord
from expmgr.spec.changes import flat
from expmgr.spec.data import CsvData
from expmgr.spec.yaml_file import read_spec
from expmgr.team.target_branch import newest, target_of
from expmgr.team.verify_signatures import Policy, policy_at, trusted
from expmgr.variants.code_digest import code_digest, counted_files
from expmgr.variants.variants import Variant, find_variant


@dataclass(frozen=True)
class Question:
    """Whether `candidate` is to be merged into `target`, held against `baseline`, and by what."""

    candidate: Variant
    baseline: Variant
    target: str
    """The branch, as people call it."""
    metric: str | None = None
    split: str | None = None
    seeds: tuple[int, ...] | None = None
    is_confirmed: bool = False
    gone: tuple[str, ...] = ()
    """Variants whose branch is not there any more: they are looked at as they were when the review was opened."""


@dataclass(frozen=True)
class Evidence:
    """What is known now of a question."""

    question: Question
    comparison: Comparison
    digests: str
    result_set: str
    target_commit: CommitId
    tree: str | None
    """What a merge would make of the target; None where files are in conflict."""
    conflicts: tuple[str, ...]
    moved: tuple[str, ...]
    """Files of the candidate's code and data that would be others when it is merged than its branch has."""
    brings: tuple[str, ...] = ()
    """The files that a merge would change in the target."""
    is_lost: bool = False
    """Whether what would be merged holds no spec of the candidate's experiment: the target deleted it."""

    @property
    def row(self) -> Row:
        """The candidate's."""
        return next(row for row in self.comparison.rows if row.result is not None)

    @property
    def result(self) -> Result:
        assert self.row.result is not None
        return self.row.result

    @cached_property
    def checks(self) -> Sequence[Check]:
        """What the checks of a comparison say of it."""
        name = str(self.question.candidate.name)
        return [replace(one, mend=self.with_merge(name, one.mend)) if one.mend else one for one in self.result.checks]

    def with_merge(self, variant: str, command: str) -> str:
        """A command that runs the candidate, after what makes its branch what would be merged."""
        is_run = variant == str(self.question.candidate.name) and f"expmgr run {variant}" in command
        if not (is_run and self.moved):
            return command
        return f"git switch {self.question.candidate.name.branch}; git merge {self.question.target}; {command}"

    @property
    def blocks(self) -> list[Check]:
        return [check for check in self.checks if check.answer is Answer.BLOCK]

    @property
    def without_results(self) -> list[Side]:
        """The sides that have no result for what would be merged."""
        return [row.side for row in self.comparison.rows if not row.values]

    def as_dict(self) -> dict[str, Any]:
        return {
            "digests": self.digests,
            "result_set": self.result_set,
            "candidate": {"variant": str(self.question.candidate.name), "commit": self.question.candidate.commit},
            "baseline": {"variant": str(self.question.baseline.name), "commit": self.question.baseline.commit},
            "target": {"branch": self.question.target, "commit": self.target_commit},
            "conflicts": list(self.conflicts),
            "moved": list(self.moved),
            "brings": list(self.brings),
            "comparison": self.comparison.as_dict(),
        }


def question_of(project: Project, opened: ReviewOpened) -> Question:
    """What a review asks, with both variants as their branches have them now."""
    gone: list[str] = []

    def variant(name: str, commit: str) -> Variant:
        try:
            found = find_variant(project.repo, name)
            if str(found.name) == name:
                return found
        except UnknownVariant:
            pass
        gone.append(name)
        return Variant(VariantName(*name.split("/", 1)), CommitId(commit), 0, "")

    return Question(
        variant(opened.candidate, opened.commit),
        variant(opened.baseline, opened.base_commit),
        opened.target,
        opened.metric,
        opened.split,
        tuple(opened.seeds) if opened.seeds is not None else None,
        opened.is_confirmed,
        tuple(gone),
    )


def target_commit(project: Project, target: str) -> CommitId:
    """The newest commit of the branch `target` that this clone knows: its own, or the team's remote's that goes on from
    it."""
    found = newest(project, target)
    if found is None:
        raise ReviewProblem(
            f"there is no branch {target} to merge into",
            left_alone="Nothing was changed.",
            hint='git fetch; or target = "BRANCH" in [tool.expmgr]',
        )
    return found


def target_name(project: Project) -> str:
    """The branch that variants are merged into, as people call it."""
    name = target_of(project)
    if name == "HEAD":
        raise ReviewProblem(
            "there is no branch to merge into: neither main nor master, and no setting that names one",
            left_alone="Nothing was changed.",
            hint='target = "BRANCH" in [tool.expmgr] of pyproject.toml',
        )
    return name


def changed_experiments(project: Project, base: CommitId, head: CommitId) -> list[str]:
    """The experiments whose spec, code or data in git `head` would change in `base`, or delete there."""
    repo = project.repo
    tree = merged_tree(repo, base, head)[0] or head
    changed = {entry.path for entry in repo.changed(base, tree)}
    found = []
    for experiment in sorted({*_experiments(project, base), *_experiments(project, tree)}) if changed else ():
        name = VariantName(experiment, "any")
        is_changed = (
            name.spec_path in changed
            or code_digest(repo, base, name) != code_digest(repo, tree, name)
            or any(_is_at(path, place) for path in changed for place in _data_of(project, tree, name))
        )
        if is_changed:
            found.append(experiment)
    return found


def _experiments(project: Project, tree: str) -> list[str]:
    parts = (entry.path.split("/") for entry in project.repo.tree(tree, "experiments"))
    return [one[1] for one in parts if len(one) == 3 and one[2] == "spec.yaml"]


def _is_at(path: str, place: str) -> bool:
    """Whether a file is at a place, below it, or what DVC keeps it by."""
    return path == place or path.startswith(f"{place}/") or path in _pointers(place)


def _data_of(project: Project, tree: str, name: VariantName) -> list[str]:
    """The files and folders in git that a spec names as its data."""
    try:
        data = read_spec(project.repo.read(tree, name.spec_path) or b"", name.spec_path, name.experiment).data
    except SpecProblem:
        return []  # others say so
    if isinstance(data, CsvData):
        named = [data.train, data.eval, data.test or ""]
    else:
        named = [*data.files.values(), *(one for one in data.vocabularies.values() if isinstance(one, str))]
    return [posixpath.normpath(f"{name.folder}/{one}") for one in named if one and not is_outside(one)]


def gather(
    project: Project, question: Question, *, base: CommitId | None = None, policy: Policy | None = None
) -> Evidence:
    """Look at a question, as the candidate would be when it is merged into `base` (the target as it is now). `policy`: what
    signatures are worth there, where that is known."""
    repo = project.repo
    onto = base or target_commit(project, question.target)
    candidate = question.candidate
    tree, conflicts = merged_tree(repo, onto, candidate.commit)
    is_lost = tree is not None and repo.read(tree, candidate.name.spec_path) is None
    as_merged = candidate if tree is None or is_lost else replace(candidate, commit=CommitId(tree))
    brings = repo.changed(onto, tree) if tree is not None else []
    data = _Data(project, as_merged.commit)
    policy = policy or policy_at(project, onto)
    heard = _heard(project, policy)
    found = pair(project, question.baseline, as_merged, lambda run: bool(data.moved(run)), heard)
    comparison = compare(
        found.subjects,
        baseline=found.baseline,
        metric=question.metric,
        split=question.split,
        tried=found.tried,
        seeds=question.seeds,
        is_confirmed=question.is_confirmed,
        in_review=True,
    )
    sides = [row.side for row in comparison.rows]
    asked = {
        "metric": [comparison.metric, comparison.mode, comparison.split, comparison.minimum_effect],
        "seeds": sorted(question.seeds) if question.seeds is not None else None,
        "sides": [[side.name, _spec(side), side.subject.code_digest] for side in sides],
        "brings": [[one.path, one.mode, one.oid] for one in brings if not _is_prose(one, policy.allowed_signers)],
    }
    return Evidence(
        question,
        comparison,
        _digest(asked),
        _digest([[side.name, [_told(run, side) for run in side.runs]] for side in sides]),
        onto,
        tree,
        tuple(conflicts),
        tuple(_moved(project, candidate, as_merged, found.subjects[1].runs, data)),
        tuple(one.path for one in brings),
        is_lost,
    )


def _is_prose(entry: TreeEntry, signers: str) -> bool:
    """Whether nothing follows from a file. What reviews froze is what was decided."""
    is_file = entry.mode in ("100644", "100755", "000000")
    return is_file and entry.path.endswith(".md") and entry.path != signers and "/reviews/" not in entry.path


def _heard(project: Project, policy: Policy) -> Callable[[RunRecord], bool]:
    """Whether a run counts: one of another clone, where signatures are required, by what its person signed alone."""
    if policy.signing != "require":
        return lambda _: True
    told = trusted(project, project.logs.events("run"), policy)
    known = {one.event.run_id for one in told if isinstance(one.event, RunTold)}
    return lambda run: run.run_id in known or not is_foreign(project.records.run_dir(run.run_id))


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def _spec(side: Side) -> dict[str, Any]:
    """What of a spec makes a result what it is."""
    return {key: value for key, value in flat(side.spec.resolved()).items() if not key.startswith(ABOUT)}


def _told(run: RunRecord, side: Side) -> list[Any]:
    return [run.run_id, len(run.attempts), run.step, run.selected_step, side.values[run.seed]]


class _Data:
    """Whether data in git that runs were given, or what DVC keeps for git, is another in `merged`."""

    def __init__(self, project: Project, merged: str) -> None:
        self._repo, self._merged = project.repo, merged
        self._known: dict[tuple[str, ...], list[str]] = {}

    def moved(self, run: RunRecord) -> list[str]:
        """Those files and folders of a run that are."""
        folder = run.name.folder
        places = {f"{folder}/{one.path}" if key.startswith("files.") else one.path for key, one in run.data.items()}
        paths = {posixpath.normpath(one) for one in places if not one.startswith(("/", "~", "$")) and "://" not in one}
        key = (run.commit, *sorted(one for one in paths if not one.startswith("../")))
        if key not in self._known:
            self._known[key] = self._look(*key) if len(key) > 1 and run.commit != self._merged else []
        return self._known[key]

    def _look(self, commit: str, *paths: str) -> list[str]:
        asked = [*paths, *dict.fromkeys(pointer for path in paths for pointer in _pointers(path))]
        found = self._repo.ids([f"{one}:{path}" for path in asked for one in (commit, self._merged)])
        pairs = zip(asked, found[::2], found[1::2], strict=True)
        return [path for path, was, now in pairs if was != now and (was is not None or path.endswith(".dvc"))]


def _pointers(path: str) -> list[str]:
    """The files by which DVC may keep `path`, or a folder that it lies in."""
    parts = path.split("/")
    return [f"{'/'.join(parts[:count])}.dvc" for count in range(1, len(parts) + 1)]


def _moved(project: Project, candidate: Variant, merged: Variant, runs: Sequence[RunRecord], data: _Data) -> list[str]:
    """The files that count which a merge would make others than the candidate's branch has."""
    if merged.commit == candidate.commit:
        return []
    was, now = (counted_files(project.repo, one.commit, one.name) for one in (candidate, merged))
    moved = {path for path in {**was, **now} if was.get(path) != now.get(path)}
    spec = candidate.name.spec_path
    if project.repo.read(candidate.commit, spec) != project.repo.read(merged.commit, spec):
        moved.add(spec)
    return sorted(moved | {path for run in runs for path in data.moved(run)})
