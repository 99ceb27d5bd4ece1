"""What the evidence of a review is bound to, and which experiments a change reaches. One clone, no TensorFlow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from clones import commit_on, ok, ran
from expmgr.git.objects import TreeEntry
from expmgr.log.events import ReviewOpened
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.reviews.evidence import (
    Evidence,
    Question,
    _is_at,
    _is_prose,
    _pointers,
    changed_experiments,
    gather,
    question_of,
)
from expmgr.runs.record import DataSplit
from expmgr.variants.variants import find_variant
from once import made_once
from team.events import event_of
from world import ROOT, Repo, new_repo

SPEC, CSV = "experiments/iris/spec.yaml", "experiments/iris/iris_training.csv"


def _make(folder: Path) -> None:
    repo = new_repo(folder)
    shutil.copytree(ROOT / "experiments" / "iris", repo.path / "experiments" / "iris")
    repo.commit("Add experiment iris")
    ok(repo, "new", "iris/baseline")
    ok(repo, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ran(repo, "iris/baseline", 0.90, 0.91, 0.93, tell=False)
    ran(repo, "iris/wide", 0.95, 0.97, 0.96, tell=False)


@pytest.fixture
def repo(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A baseline and a wider one, three seeds each."""
    shutil.copytree(made_once(tmp_path_factory, "evidence", _make), tmp_path / "repo", symlinks=True)
    return Repo(tmp_path / "repo")


def evidence(repo: Repo, **about: object) -> Evidence:
    project = Project.open(repo.path)
    sides = (find_variant(project.repo, name) for name in ("iris/wide", "iris/baseline"))
    return gather(project, Question(*sides, "main", **about))  # type: ignore[arg-type]


def bound(repo: Repo, **about: object) -> tuple[str, str]:
    found = evidence(repo, **about)
    return found.digests, found.result_set


def record_path(repo: Repo, seed: int, variant: str = "iris/wide") -> Path:
    for path in (repo.path / ".git/expmgr/runs").glob("*/run.json"):
        values = json.loads(path.read_text())
        if (values["variant"], values["seed"]) == (variant, seed):
            return path
    raise AssertionError("no such run")


def rewrite(repo: Repo, seed: int, variant: str = "iris/wide", **values: object) -> None:
    path = record_path(repo, seed, variant)
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("mode", "path", "is_prose"),
    [
        ("100644", "README.md", True),
        ("100755", "docs/a/b.md", True),
        ("000000", "gone.md", True),
        ("120000", "README.md", False),  # a link may lead to anything
        ("160000", "x.md", False),  # a submodule
        ("100644", "README.txt", False),
        ("100644", "md", False),
        ("100644", "a.md/b.py", False),
        ("100644", "experiments/iris/reviews/0123.md", False),  # what was decided
        ("100644", "SIGNERS.md", False),
    ],
)
def test_what_is_prose(mode: str, path: str, is_prose: bool) -> None:
    assert _is_prose(TreeEntry(mode, "0" * 40, path), "SIGNERS.md") is is_prose


def test_where_data_is() -> None:
    assert _pointers("a/b/c.csv") == ["a.dvc", "a/b.dvc", "a/b/c.csv.dvc"]
    assert [
        path for path in ("a/b", "a/b/c", "a/bc", "a", "a.dvc", "a/b.dvc", "a/b/c.dvc", "x/a/b") if _is_at(path, "a/b")
    ] == ["a/b", "a/b/c", "a.dvc", "a/b.dvc", "a/b/c.dvc"]


def test_what_a_decision_is_bound_to(repo: Repo) -> None:
    """Prose and time alter nothing; all else that a merge brings, and every setting, alter the digests alone."""
    first = bound(repo)
    assert bound(repo) == first
    commit_on(repo, "exp/iris/wide", "experiments/iris/NOTES.md", "words\n")
    commit_on(repo, "main", "docs/x.md", "words\n")
    assert bound(repo) == first
    seen = {first[0]}
    for path, text in (
        ("tools/helper.py", "x = 1\n"),
        ("tools/helper.py", "x = 2\n"),
        ("experiments/iris/reviews/x.md", "y\n"),
    ):
        commit_on(repo, "exp/iris/wide", path, text)
        found = bound(repo)
        assert found[1] == first[1]
        assert found[0] not in seen
        seen.add(found[0])
    for about in ({"metric": "loss"}, {"seeds": (0, 1, 2)}):
        found = evidence(repo, **about)
        assert found.digests not in seen
        seen.add(found.digests)


def test_a_result_set_is_that_of_the_runs_that_count_and_their_numbers(repo: Repo) -> None:
    digests, results = bound(repo)
    rewrite(repo, 0, parameters=7, train_s=99.0, tags=["x"])
    assert bound(repo) == (digests, results)
    seen = {results}
    for values in (
        {"step": 999},
        {"selected_step": 998},
        {"metrics": {"selected": {"eval": {"accuracy": 0.5, "loss": 0.5}}}},
        {"attempts": json.loads(record_path(repo, 0).read_text())["attempts"] * 2},
    ):
        rewrite(repo, 0, **values)
        (repo.path / ".git/expmgr/index.sqlite").unlink(missing_ok=True)
        found = bound(repo)
        assert (found[0], found[1] in seen) == (digests, False), values
        seen.add(found[1])
    ran(repo, "iris/wide", 0.97, first=1, tell=False)  # the same number, of another run
    found = bound(repo)
    assert (found[0], found[1] in seen) == (digests, False)
    seen.add(found[1])
    rewrite(repo, 1, "iris/baseline", step=999)  # of either side
    (repo.path / ".git/expmgr/index.sqlite").unlink(missing_ok=True)
    assert bound(repo)[1] not in seen
    assert bound(repo, seeds=(0, 2))[1] not in seen
    assert "few-seeds" in [check.id for check in evidence(repo, seeds=(0, 2)).blocks]  # a decision hangs on it


def test_what_would_be_merged_is_looked_at(repo: Repo) -> None:
    """Main changed the data since: the candidate's results are old, the baseline's are not, and a run needs the merge."""
    before = evidence(repo)
    assert (before.moved, before.conflicts, before.is_lost, before.without_results) == ((), (), False, [])
    assert before.brings == (SPEC,)
    command = "expmgr run iris/wide --seeds 0-2"
    assert before.with_merge("iris/wide", command) == command
    commit_on(repo, "main", CSV, "\n".join(repo.read(CSV).splitlines()[:-9]) + "\n")
    after = evidence(repo)
    assert (after.moved, after.digests != before.digests) == ((CSV,), True)
    assert [side.name for side in after.without_results] == ["iris/wide"]
    assert after.with_merge("iris/wide", command) == f"git switch exp/iris/wide; git merge main; {command}"
    assert after.with_merge("iris/baseline", "expmgr run iris/baseline") == "expmgr run iris/baseline"
    assert after.with_merge("iris/wide", "expmgr diff iris/baseline iris/wide") == "expmgr diff iris/baseline iris/wide"
    stale = next(check for check in after.checks if check.id == "stale")
    assert stale.mend == f"git switch exp/iris/wide; git merge main; {command}"
    assert [check.id for check in after.blocks if check.id == "stale"] == ["stale"]


def test_data_in_git_outside_of_the_experiment_makes_results_old(repo: Repo) -> None:
    """No code digest knows it: what the runs were given is looked at in what would be merged."""
    repo.write("data/rows.csv", "1\n")
    repo.commit("rows")
    repo.git("rebase", "--quiet", "main", "exp/iris/wide")
    repo.git("switch", "--quiet", "main")
    data = {
        "train": DataSplit(path="data/rows.csv", rows=2000, sha256="a" * 64),
        "eval": DataSplit(path="/elsewhere/eval.csv", rows=50_000, sha256="b" * 64, also_in_train=0),
    }
    for seed in range(3):  # whose data are not in git
        shutil.rmtree(record_path(repo, seed).parent)
    ran(repo, "iris/wide", 0.95, 0.97, 0.96, data=data)
    before = evidence(repo)
    assert (before.moved, before.without_results) == ((), [])
    commit_on(repo, "main", "data/other.csv", "2\n")
    assert evidence(repo).without_results == []
    commit_on(repo, "main", "data/rows.csv", "2\n")
    after = evidence(repo)
    assert after.moved == ("data/rows.csv",)
    assert [side.name for side in after.without_results] == ["iris/wide"]


def test_a_conflict_and_a_deleted_experiment_are_told(repo: Repo) -> None:
    tip = repo.git("rev-parse", "main").strip()
    commit_on(repo, "main", SPEC, repo.read(SPEC).replace("[10, 10]", "[30, 30]"))
    found = evidence(repo)
    assert (found.tree, found.conflicts, found.brings, found.is_lost) == (None, (SPEC,), (), False)
    assert found.result.case.other.values == {0: 0.95, 1: 0.97, 2: 0.96}  # the candidate as it is
    repo.git("reset", "--quiet", "--hard", tip)
    repo.git("branch", "--force", "exp/iris/wide", "main")
    commit_on(repo, "main", SPEC, None)
    assert evidence(repo).is_lost


def test_a_variant_whose_branch_is_gone_is_looked_at_as_it_was(repo: Repo) -> None:
    project = Project.open(repo.path)
    sides = {name: find_variant(project.repo, f"iris/{name}") for name in ("wide", "baseline")}
    values = {
        "candidate": "iris/wide", "baseline": "iris/baseline", "commit": sides["wide"].commit, "target": "main",
        "base_commit": sides["baseline"].commit, "metric": "accuracy", "split": "eval", "seeds": [0, 1],
        "digests": "0" * 64, "result_set": "1" * 64,
    }  # fmt: skip
    opened = event_of(ReviewOpened, writer="ann-00000001", **values)
    asked = question_of(project, opened)
    assert (asked.gone, asked.seeds, asked.target) == ((), (0, 1), "main")
    commit_on(repo, "exp/iris/wide", "x.py", "1\n")
    assert question_of(project, opened).candidate.commit == repo.git("rev-parse", "exp/iris/wide").strip()
    repo.git("branch", "-D", "exp/iris/wide")
    asked = question_of(project, opened)
    assert (asked.gone, asked.candidate.commit) == (("iris/wide",), sides["wide"].commit)
    assert asked.candidate.name == VariantName("iris", "wide")


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("README.md", "words\n", []),
        ("experiments/iris/README.md", "words\n", []),
        (SPEC, "changed", ["iris"]),
        (SPEC, None, ["iris"]),
        (CSV, "other rows\n", ["iris"]),
        (f"{CSV}.dvc", "outs: []\n", ["iris"]),
        ("experiments/iris.dvc", "outs: []\n", ["iris"]),
        ("experiments/iris/other.csv", "a file of the folder\n", ["iris"]),
        ("experiments/other/deep.py", "x\n", []),
        ("experiments/new/spec.yaml", "experiment: new\n", ["new"]),
        ("experiments/new/deep/spec.yaml", "experiment: new\n", []),
    ],
)
def test_which_experiments_a_change_reaches(repo: Repo, path: str, text: str | None, found: list[str]) -> None:
    repo.git("branch", "change", "main")
    commit_on(repo, "change", path, repo.read(SPEC) + "# changed\n" if text == "changed" else text)
    project = Project.open(repo.path)
    heads = [project.repo.commit_of(name) for name in ("main", "change")]
    assert changed_experiments(project, *heads) == found  # type: ignore[arg-type]
    assert changed_experiments(project, heads[0], heads[0]) == []  # type: ignore[arg-type]


def test_who_is_behind_is_not_changed_by_what_it_lacks(repo: Repo) -> None:
    """The change is what a merge would do to the base."""
    repo.git("branch", "change", "main")
    commit_on(repo, "main", SPEC, repo.read(SPEC) + "# changed on main\n")
    commit_on(repo, "change", "README.md", "words\n")
    project = Project.open(repo.path)
    heads = [project.repo.commit_of(name) for name in ("main", "change")]
    assert changed_experiments(project, *heads) == []  # type: ignore[arg-type]


def test_evidence_says_what_it_is_of(repo: Repo) -> None:
    found = evidence(repo)
    told = found.as_dict()
    assert (told["digests"], told["result_set"]) == (found.digests, found.result_set)
    assert {side: told[side] for side in ("candidate", "baseline", "target")} == {
        "candidate": {"variant": "iris/wide", "commit": repo.git("rev-parse", "exp/iris/wide").strip()},
        "baseline": {"variant": "iris/baseline", "commit": repo.git("rev-parse", "exp/iris/baseline").strip()},
        "target": {"branch": "main", "commit": repo.git("rev-parse", "main").strip()},
    }
    assert (told["conflicts"], told["moved"], told["brings"]) == ([], [], [SPEC])
    assert told["comparison"] == found.comparison.as_dict()
    assert replace(found, conflicts=("x",), moved=("y",)).as_dict() != told
