"""What somebody pushes to fill the memory of others: records, specs and messages that are small in git and large out of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from clones import Team, ok, ran
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log.events import RunTold, canonical
from expmgr.project import Project
from expmgr.runs.record import new_run_id
from world import Repo

pytestmark = pytest.mark.slow
SPEC = "experiments/iris/spec.yaml"
MOST_MB = 400

MEASURE = """
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run([sys.executable, "-m", "expmgr", *sys.argv[1:]], capture_output=True, text=True)
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)
print(json.dumps([done.returncode, done.stdout, done.stderr, most, time.monotonic() - began]))
"""


def measured(repo: Repo, *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, none of whose processes may need more than `MOST_MB`."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *argv], cwd=repo.path, capture_output=True, text=True, check=True
    )
    code, out, err, most, _ = json.loads(done.stdout)
    assert most < MOST_MB, (argv, most)
    return code, out, err


def large_log(team: Team, name: str, contents: Sequence[bytes], text: str = "") -> Path:
    """Somebody pushes a log of runs whose records are `contents`; the folder of the hub."""
    repo = team.join(name)
    writer = f"{name}-{'0' * 8}"
    commit = repo.git("rev-parse", "HEAD").strip()
    commits = [NewCommit({"log.json": canonical({"format": 1, "writer": writer})}, "log\n")]
    for number, content in enumerate(contents):
        values = {
            "format": 1, "kind": "run", "writer": writer, "time": number + 1, "at": 1.0, "actor": None,
            "run_id": new_run_id(1e9 + number), "variant": "iris/wide", "seed": 0, "commit": commit, "attempt": 1,
            "status": "finished", "step": 1, "record": "0" * 64, "metric": None, "split": None, "value": None,
        }  # fmt: skip
        files = {"event.json": RunTold.model_validate(values).content, "record.json": content}
        commits.append(NewCommit(files, "run\n" + text))
    assert extend_ref(GitRepo.discover(repo.path), f"refs/expmgr/log/{writer}", None, commits, "test")
    repo.git("push", "--quiet", "origin", f"refs/expmgr/log/{writer}")
    return team.hub.path


@pytest.mark.parametrize(
    ("count", "size"),
    [(40, 50_000_000), (150, 7_500_000)],
    ids=["too large", "many"],
)
def test_records_of_blanks(team: Team, count: int, size: int) -> None:
    large_log(team, "eve", [b" " * (size + number % 7) for number in range(count)])
    bob = team.join("bob")
    ok(bob, "new", "iris/wide")
    code, out, err = measured(bob, "pull")
    assert (code, out) == (0, f"pulled from origin: {count} events, 0 runs\n")
    assert err.count("was skipped") == count
    if size > 16_000_000:
        assert "the record of eve-00000000 has 50,000,000 bytes; a record has 16,000,000 at most" in err
    again = measured(bob, "pull")
    assert again == (0, "nothing new at origin\n", err)  # what was wrong is remembered
    assert len(Project.open(bob.path).logs.rejected()) == count


def pushed_branch(team: Team, path: str, content: bytes, message: str = "large") -> Repo:
    """Eve pushes a variant that holds `content`; Bob, who has pulled it."""
    eve = team.join("eve")
    ok(eve, "new", "iris/large")
    eve.git("switch", "--quiet", "exp/iris/large")
    eve.write(path, content)
    eve.git("add", "--all")
    subprocess.run(["git", "commit", "--quiet", "-F", "-"], cwd=eve.path, input=message.encode(), check=True)
    eve.git("push", "--quiet", "origin", "exp/iris/large")
    bob = team.join("bob")
    ok(bob, "new", "iris/wide")
    ran(bob, "iris/wide", 0.9)
    assert measured(bob, "pull")[0] == 0
    return bob


def test_a_spec_of_sixty_megabytes(team: Team) -> None:
    bob = pushed_branch(team, SPEC, b"# blanks\n" * 7_000_000)
    code, out, err = measured(bob, "list")
    assert (code, "iris/large" in out, "iris/wide" in out) == (0, True, True), err
    for command in (
        ["show", "iris/large"],
        ["compare", "iris/wide", "iris/large"],
        ["new", "iris/x", "--from", "iris/large"],
    ):
        code, _, err = measured(bob, *command)
        assert code == 1, command
        assert re.search(rf"Error: (exp/iris/large:)?{re.escape(SPEC)} ", err), err
        assert "bytes" in err


@pytest.mark.parametrize("subject", [True, False])
def test_a_message_of_sixty_megabytes(team: Team, subject: bool) -> None:
    bob = pushed_branch(team, "x.txt", b"x", ("s" if subject else "t\n\n") + "x" * 60_000_000)
    for command in (["list"], ["show", "iris/wide"], ["log"]):
        code, _, err = measured(bob, *command)
        assert code == 0, err


@pytest.mark.parametrize("subject", [True, False])
def test_a_large_message_costs_no_other_variant_its_origin(team: Team, subject: bool) -> None:
    ann, bob = team.join("ann"), team.join("bob")
    ok(ann, "new", "iris/wide", "--set", "train.max_steps=300", "-m", "why wide")
    ok(ann, "new", "iris/deep", "--from", "iris/wide", "--set", "train.max_steps=301", "-m", "why deep")
    ok(ann, "push")
    ok(bob, "pull")
    before = json.loads(ok(bob, "list", "--json"))["variants"]
    assert [(one["from"], one["why"]) for one in before] == [("iris/wide", "why deep"), ("main", "why wide")]
    large = ("s" if subject else "t\n\n") + "x" * 17_000_000 + "\n\nExpmgr-Variant: iris/evil\nExpmgr-From: main\n"
    tree = ann.git("rev-parse", "exp/iris/wide^{tree}").strip()
    (ann.path / "message").write_text(large, encoding="utf-8")
    commit = ann.git("commit-tree", tree, "-p", "exp/iris/wide", "-F", "message").strip()
    ann.git("push", "--quiet", "origin", f"{commit}:refs/heads/exp/iris/evil")
    ok(bob, "pull")
    code, out, err = measured(bob, "list", "--json")
    after = [one for one in json.loads(out)["variants"] if one["variant"] != "iris/evil"]
    assert (code, after) == (0, before)
    told = f"Note: the message of commit {commit[:12]} on exp/iris/evil is not read: the commit has 17,000,"
    # Of a long text nothing is printed but the trailers, which are read as ever.
    assert err.count(told) == err.count("is not read") == int(subject), err
    assert "iris/wide" in ok(bob, "show", "iris/deep")


def test_a_module_of_sixty_megabytes(team: Team) -> None:
    bob = pushed_branch(team, "experiments/iris/model.py", b"x = 1\n" * 10_000_000)
    code, _, err = measured(bob, "list")
    assert code == 0, err


def test_settings_and_signers_of_sixty_megabytes(team: Team) -> None:
    eve = team.join("eve")
    eve.write("expmgr.toml", 'signing = "warn"\nallowed_signers = "signers"\n')
    eve.write("signers", b"x\n" * 30_000_000)
    eve.commit("large")
    eve.git("push", "--quiet", "origin", "main")
    large_log(team, "ann", [b"{}"])
    bob = team.join("bob")
    code, _, err = measured(bob, "pull")
    assert code in (0, 1), err
    assert "Traceback" not in err
    assert "signers at commit" in err or code == 0


@pytest.mark.nightly
def test_a_tree_of_a_million_files(team: Team) -> None:
    eve = team.join("eve")
    ok(eve, "new", "iris/large")
    eve.git("switch", "--quiet", "exp/iris/large")
    eve.write("experiments/iris/model.py", "x = 1\n")
    eve.commit("code")
    blob = eve.git("rev-parse", f"HEAD:{SPEC}").strip()

    def tree(lines: str) -> str:
        done = subprocess.run(["git", "mktree"], cwd=eve.path, input=lines.encode(), capture_output=True, check=True)
        return done.stdout.decode().strip()

    many = tree("".join(f"100644 blob {blob}\tfile{number:07d}.txt\n" for number in range(1_000_000)))
    whole = tree(eve.git("ls-tree", "HEAD") + f"040000 tree {many}\tmillion\n")
    commit = eve.git("commit-tree", whole, "-p", "HEAD", "-m", "million").strip()
    eve.git("push", "--quiet", "origin", f"{commit}:refs/heads/exp/iris/large")
    bob = team.join("bob")
    assert measured(bob, "pull")[0] == 0
    ran(bob, "iris/large", 0.9)
    for command in (["list"], ["show", "iris/large"], ["pull"]):
        code, _, err = measured(bob, *command)
        assert code == 0, err
