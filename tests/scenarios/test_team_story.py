"""The whole story of a team: two people with keys of their own, one bare remote, a store, a yes and a no; then a third
clone that knows both decisions, and has the approved checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from clones import Team, ok, told
from world import Repo

pytestmark = [
    pytest.mark.tf,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen"),
]


def key(team: Team, name: str) -> Path:
    path = team.root / f"{name}.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def joined(team: Team, name: str, path: Path) -> Repo:
    return team.join(name, gpg_format="ssh", user_signingKey=str(path))


def test_the_story(team: Team) -> None:
    keys = {name: key(team, name) for name in ("ann", "bob")}
    ann = joined(team, "ann", keys["ann"])
    signers = "".join(
        f"{name}@example.com {path.with_suffix('.key.pub').read_text().strip()}\n" for name, path in keys.items()
    )
    ann.write(".expmgr/allowed_signers", signers)
    ann.write("pyproject.toml", f'[tool.expmgr]\nsigning = "require"\nstore = "{team.root / "shared"}"\n')
    ann.commit("The team's rules")
    ann.git("push", "--quiet", "origin", "main")
    bob = joined(team, "bob", keys["bob"])

    # Ann: new, run, push, and a question that is asked too early.
    ok(ann, "new", "iris/baseline", "--set", "train.max_steps=100")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]", "-m", "twice the width")
    ok(ann, "run", "iris/baseline", "--seeds", "0-2")
    ok(ann, "run", "iris/wide", "--seeds", "0-1")
    ok(ann, "review", "open", "iris/wide", "--against", "iris/baseline", "-m", "Is twice the width worth it?")
    early = ann.expmgr("review", "check", "wide")
    assert early.code == 5
    assert "Blocks (few-seeds): iris/wide has 2 seeds" in early.stdout
    ok(ann, "push")

    # Bob sees it, and says so; Ann runs one more.
    ok(bob, "pull")
    assert bob.expmgr("review", "check", "wide", "--no-log").code == 5
    ok(bob, "review", "comment", "wide", "-m", "one more seed, please", "--on", "check:few-seeds")
    ok(bob, "push")
    ok(ann, "pull")
    ok(ann, "run", "iris/wide", "--seeds", "2")
    (comment,) = told(ann, "review", "show", "wide")["comments"]
    ok(ann, "review", "resolve", "wide", comment["id"][:8])
    assert ann.expmgr("review", "check", "wide").code == 0
    assert ann.expmgr("review", "merge", "wide").code == 1  # nobody has approved
    ok(ann, "push")

    # Bob evaluates the candidate's checkpoint himself, approves, and merges.
    ok(bob, "pull")
    ok(bob, "evaluate", "iris/wide", "--seed", "2")
    ok(bob, "review", "approve", "wide", "-m", "I evaluated seed 2 myself")
    merged = told(bob, "review", "merge", "wide")
    bob.git("push", "--quiet", "origin", "main")
    ok(bob, "push")

    # Bob asks for one of his own, and Ann turns it down.
    ok(bob, "new", "iris/deep", "--from", "iris/wide", "--set", "model.hidden_units=[20, 20, 20]")
    ok(bob, "run", "iris/deep", "--seeds", "0-2")
    ok(bob, "review", "open", "iris/deep", "--against", "iris/wide")
    ok(bob, "push")
    ann.git("pull", "--quiet", "origin", "main")
    ok(ann, "pull")
    ok(ann, "review", "close", "deep", "--reason", "no gain", "-m", "a layer for nothing")
    ok(ann, "push")

    # A CI job: a clone with a detached HEAD, and nobody's name.
    job = Repo(team.root / "job")
    subprocess.run(["git", "clone", "--quiet", str(team.hub.path), str(job.path)], check=True)
    ok(job, "pull")
    job.git("switch", "--quiet", "--detach", "origin/exp/iris/deep")
    before = job.git("for-each-ref")
    late = job.expmgr("review", "check", "--base", "origin/main", "--head", "HEAD", "--format", "github")
    assert (late.code, "no open review is of " in late.stderr) == (1, True)  # it was closed
    assert job.git("for-each-ref") == before

    # A third clone, later: branches are gone, history was collected.
    ann.git("push", "--quiet", "origin", "--delete", "exp/iris/deep")
    for repo in (ann, bob):
        repo.git("gc", "--quiet", "--prune=now")
    cleo = team.join("cleo")
    ok(cleo, "pull")
    yes, no = (told(cleo, "review", "show", name) for name in ("iris/wide", "iris/deep"))
    assert (yes["state"], yes["ended"]["merge"], yes["opinions"][0]["by"]["name"]) == (
        "merged",
        merged["commit"],
        "Bob",
    )
    assert (no["state"], no["ended"]["reason"], no["ended"]["by"]["name"]) == ("closed", "no gain", "Ann")
    assert no["sentence"]
    kept = json.loads(cleo.read(f"experiments/iris/reviews/{yes['id'][:12]}.json"))
    assert kept["evidence"]["result_set"] == yes["evidence"]["result_set"]
    trailers = cleo.git("log", "-1", "--format=%(trailers:only,unfold)", merged["commit"])
    assert "Reviewed-by: Bob <bob@example.com>" in trailers
    assert f"Result-Set: {kept['evidence']['result_set']}" in trailers
    # The approved checkpoint, from the store, evaluates to what was recorded.
    ok(cleo, "pull", "iris/wide")
    for seed in range(3):
        record = told(cleo, "show", f"iris/wide:{seed}")
        found = told(cleo, "evaluate", "iris/wide", "--seed", str(seed))
        wanted = record["metrics"]["selected"]["eval"]
        assert {name: found["metrics"][name] for name in wanted} == wanted
        assert wanted["accuracy"] == yes["evidence"]["comparison"]["variants"][1]["values"][str(seed)]


def test_asked_on_fresh_seeds(team: Team) -> None:
    """Both are run on seeds that nothing was chosen by, and these alone count, whatever is run later."""
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline", "--set", "train.max_steps=50")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ok(ann, "run", "iris/baseline", "iris/wide", "--seeds", "0-2")
    opened = ann.expmgr("review", "open", "wide", "--against", "baseline", "--confirm", "--seeds", "10-12")
    assert opened.code == 0, opened.stderr
    assert opened.stderr.startswith("iris/wide and iris/baseline are run on seeds 10-12\n")
    assert "judged by seeds 10-12 alone, which were chosen before any of them had a result\n" in opened.stdout
    before = told(ann, "review", "show", "wide")
    assert (before["seeds"], before["is_confirmed"]) == ([10, 11, 12], True)
    answers = {one["id"]: one["answer"] for one in before["checks"]}
    assert (answers["many-tried"], answers["screening-seeds"], answers["left-out"]) == ("ok", "ok", "ok")
    ok(ann, "run", "iris/wide", "--seeds", "3")
    after = told(ann, "review", "show", "wide")
    assert after["evidence"]["result_set"] == before["evidence"]["result_set"]
