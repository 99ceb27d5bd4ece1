"""Checkpoints that come from the store when they are asked for: the guard stands at their door as at every other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clones import Team, ok, told
from world import Repo

pytestmark = pytest.mark.tf


def settled(repo: Repo, store: Path) -> Repo:
    (repo.path / "pyproject.toml").write_text(f'[tool.expmgr]\nstore = "{store}"\n')
    return repo


@pytest.fixture
def ann(team: Team) -> Repo:
    """Ann has trained to step 200, and pushed."""
    repo = settled(team.join("ann"), team.root / "shared")
    ok(repo, "new", "iris/baseline")
    ok(repo, "run", "iris/baseline", "--max-steps", "200")
    ok(repo, "push")
    return repo


@pytest.fixture
def bob(team: Team, ann: Repo) -> Repo:
    repo = settled(team.join("bob"), team.root / "shared")
    ok(repo, "pull")
    return repo


@pytest.mark.wide
def test_a_teammate_evaluates_compares_and_goes_on(ann: Repo, bob: Repo) -> None:
    (recorded,) = told(ann, "show", "iris/baseline:0")["metrics"]["selected"].items()
    result = bob.expmgr("evaluate", "iris/baseline")
    assert result.code == 0, result.stderr
    assert "Note: models/iris/baseline/seed-0/model.ckpt-200 was fetched from " in result.stderr
    again = told(bob, "evaluate", "iris/baseline")
    assert {name: again["metrics"][name] for name in recorded[1]} == recorded[1]
    assert "was fetched" not in bob.expmgr("evaluate", "iris/baseline").stderr
    # It goes on from there, as a run of Bob's with Ann's as its parent.
    ran = bob.expmgr("run", "iris/baseline", "--max-steps", "300")
    assert ran.code == 0, ran.stderr
    assert "resumes at step 200, to step 300" in ran.stderr
    theirs = told(ann, "show", "iris/baseline:0")["run_id"]
    mine = told(bob, "show", "iris/baseline:0")
    assert (mine["parent_run"], mine["step"], mine["run_id"] != theirs) == (theirs, 300, True)
    # Ann goes on too, for as many steps: bit for bit the same weights.
    ok(ann, "run", "iris/baseline", "--max-steps", "300")
    data = "models/iris/baseline/seed-0/model.ckpt-300.data-00000-of-00001"
    metrics = [told(one, "show", "iris/baseline:0")["metrics"]["selected"] for one in (ann, bob)]
    assert metrics[0] == metrics[1]
    assert (bob.path / data).stat().st_size == (ann.path / data).stat().st_size


@pytest.mark.wide
def test_the_guard_stands_at_the_door_of_what_was_fetched(ann: Repo, bob: Repo) -> None:
    bob.git("switch", "--quiet", "exp/iris/baseline")
    spec = bob.read("experiments/iris/spec.yaml")
    bob.write("experiments/iris/spec.yaml", spec.replace("[10, 10]", "[20, 20]"))
    bob.git("commit", "--quiet", "-am", "wider")
    for argv in (("evaluate", "iris/baseline"), ("run", "iris/baseline")):
        refused = bob.expmgr(*argv)
        assert refused.code == 3, refused.stderr
        assert "hidden_0/kernel   saved float32 (4, 10)" in refused.stderr
        assert "(4, 20)" in refused.stderr
        is_fetched = argv[0] == "evaluate"  # the second finds it here
        assert ("was fetched from" in refused.stderr) is is_fetched
        left = "Apart from what was fetched, nothing" if is_fetched else "Nothing"
        assert f"\n{left} was changed on disk.\n" in refused.stderr


@pytest.mark.slow
def test_what_one_lost_oneself_comes_back(ann: Repo) -> None:
    shutil.rmtree(ann.path / "models")
    result = ann.expmgr("run", "iris/baseline", "--max-steps", "250")
    assert result.code == 0, result.stderr
    assert "was fetched from" in result.stderr
    assert "resumes at step 200, to step 250" in result.stderr
    assert told(ann, "show", "iris/baseline:0")["parent_run"] is None


@pytest.mark.slow
def test_after_a_fresh_pull_a_run_goes_on_from_what_was_fetched(ann: Repo, bob: Repo) -> None:
    """Bob has a run of the seed himself; its record stays as it is."""
    ok(bob, "run", "iris/baseline", "--max-steps", "100")
    own = told(bob, "show", "iris/baseline:0")
    theirs = told(ann, "show", "iris/baseline:0")["run_id"]
    ok(bob, "pull", "iris/baseline", "--fresh")
    ran = bob.expmgr("run", "iris/baseline", "--max-steps", "300")
    assert ran.code == 0, ran.stderr
    assert "resumes at step 200, to step 300" in ran.stderr
    mine = told(bob, "show", "iris/baseline:0")
    assert (mine["parent_run"], mine["step"], len(mine["attempts"])) == (theirs, 300, 1)
    assert told(bob, "show", own["run_id"]) == own
    # From now on it is Bob's: another attempt goes into the same record.
    ok(bob, "run", "iris/baseline", "--max-steps", "350")
    again = told(bob, "show", "iris/baseline:0")
    assert (again["run_id"], again["parent_run"], len(again["attempts"])) == (mine["run_id"], theirs, 2)


@pytest.mark.slow
def test_a_warm_start_from_what_another_trained(bob: Repo) -> None:
    ok(bob, "new", "iris/adam", "--from", "baseline", "--set", "optimizer={kind: adam, learning_rate: 0.01}")
    result = bob.expmgr("run", "iris/adam", "--warm-start-from", "iris/baseline", "--max-steps", "50")
    assert result.code == 0, result.stderr
    assert "Note: models/iris/baseline/seed-0/model.ckpt-200 was fetched from " in result.stderr
    assert told(bob, "show", "iris/adam:0")["warm_start"]["variant"] == "iris/baseline"


@pytest.mark.slow
def test_compare_knows_that_a_checkpoint_is_in_the_store(ann: Repo, bob: Repo) -> None:
    ok(bob, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ok(bob, "run", "iris/wide", "--max-steps", "200")
    (check,) = [
        one
        for one in told(bob, "compare", "iris/baseline", "iris/wide")["variants"][1]["result"]["checks"]
        if one["id"] == "checkpoint"
    ]
    assert check["answer"] == "ok"
