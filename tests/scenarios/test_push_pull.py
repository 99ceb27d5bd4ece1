"""Logs and variants through a bare remote: nothing is lost, nothing is forced, nobody's configuration is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clones import Team, logs_of, ok, put, ran, record_of, told
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log.events import Noted
from expmgr.log.logs import Draft
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.team.publish import tell, tell_runs
from world import Repo, sealed


@pytest.fixture
def ann(team: Team) -> Repo:
    """Ann has two variants with results, and has pushed them."""
    repo = team.join("ann")
    ok(repo, "new", "iris/baseline")
    ok(repo, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ran(repo, "iris/baseline", 0.90, 0.91, 0.92)
    ran(repo, "iris/wide", 0.95, 0.96, 0.97)
    ok(repo, "push")
    return repo


@pytest.fixture
def bob(team: Team, ann: Repo) -> Repo:
    """Bob has pulled."""
    repo = team.join("bob")
    ok(repo, "pull")
    return repo


def titles(repo: Repo) -> list[str]:
    return [
        f"{one['kind']} {one.get('text', one.get('run_id', one.get('variant')))}" for one in told(repo, "log")["events"]
    ]


def test_a_teammate_sees_variants_runs_and_verdicts(ann: Repo, team: Team) -> None:
    bob = team.join("bob")
    config = (bob.path / ".git/config").read_bytes()
    pulled = bob.expmgr("pull")
    assert pulled.code == 0
    assert pulled.stdout.splitlines() == [
        "pulled from origin: 8 events, 6 runs",
        "  exp/iris/baseline: new here",
        "  exp/iris/wide: new here",
    ]
    assert titles(bob) == titles(ann)
    here, there = (told(one, "compare", "baseline", "wide") for one in (bob, ann))
    assert here["variants"][1]["result"]["verdict"] == there["variants"][1]["result"]["verdict"] == "better"
    assert here["variants"][1]["values"] == there["variants"][1]["values"]
    assert (bob.path / ".git/config").read_bytes() == config
    assert bob.git("status", "--porcelain") == ""
    assert logs_of(bob) == []  # who has said nothing has no log
    assert ok(bob, "pull") == "nothing new at origin\n"
    assert ok(bob, "push") == "origin has everything already\n"


def test_both_ways_and_their_runs_are_not_trained_on(ann: Repo, bob: Repo) -> None:
    ran(bob, "iris/wide", 0.99, first=7)
    ok(bob, "note", "iris/wide", "-m", "one more seed")
    assert ok(bob, "push") == "pushed to origin: 2 events\n"
    assert ok(ann, "pull") == "pulled from origin: 2 events, 1 run\n  Bob: note on iris/wide: one more seed\n"
    assert titles(ann) == titles(bob)
    project = Project.open(ann.path)
    wide = VariantName("iris", "wide")
    assert project.records.newest(wide, 7) is None  # `run --seeds 7` would begin one of its own
    assert project.records.newest(wide, 7, foreign=True) is not None
    checks = told(ann, "compare", "baseline", "wide")["variants"][1]["result"]["checks"]
    (found,) = (one for one in checks if one["id"] == "checkpoint")
    assert found["answer"] == "warn"  # its own are made up; of Bob's it is said that they are with him
    assert "its checkpoint is in the clone of Bob" in json.dumps(checks)


def test_a_further_attempt_replaces_what_was_known(ann: Repo, bob: Repo) -> None:
    project = Project.open(ann.path)
    first = record_of(project, "iris/wide", 9, 0.5, status="preempted", step=400)
    first.attempts[-1].status = "preempted"
    put(project, first)
    tell_runs(project)
    ok(ann, "push")
    ok(bob, "pull")
    assert told(bob, "show", first.run_id)["status"] == "preempted"
    second = first.model_copy(
        update={"status": "finished", "step": 1000, "attempts": [*first.attempts, first.attempts[0]]}
    )
    shutil.rmtree(project.records.run_dir(first.run_id).path)
    put(project, second)
    tell_runs(project)
    ok(ann, "push")
    assert ok(bob, "pull") == "pulled from origin: 1 event, 1 run\n"
    assert told(bob, "show", first.run_id)["status"] == "finished"
    assert ok(bob, "pull") == "nothing new at origin\n"


def test_records_come_back_from_the_log(ann: Repo) -> None:
    before = told(ann, "compare", "baseline", "wide")["variants"]
    shutil.rmtree(ann.path / ".git/expmgr/runs")
    assert told(ann, "list")["variants"][1]["current"] == []
    ok(ann, "pull")
    assert told(ann, "compare", "baseline", "wide")["variants"] == before
    assert not list(ann.path.glob(".git/expmgr/runs/*/origin.json"))  # one's own


def test_branches_are_moved_where_that_loses_nothing(ann: Repo, bob: Repo) -> None:
    def change(repo: Repo, variant: str, text: str) -> None:
        repo.git("switch", "--quiet", f"exp/iris/{variant}")
        repo.write("experiments/iris/notes.md", text)
        repo.commit(text)
        repo.git("switch", "--quiet", "main")

    change(ann, "wide", "by Ann")
    ok(ann, "push")
    assert "  exp/iris/wide: moved on\n" in ok(bob, "pull")
    change(bob, "wide", "by Bob")
    change(ann, "wide", "by Ann again")
    ok(ann, "push")
    before = bob.git("rev-parse", "exp/iris/wide")
    left = bob.expmgr("pull")
    assert left.code == 0
    assert left.stderr == (
        "Note: exp/iris/wide was left where it is: it went another way here: git switch exp/iris/wide; "
        "git merge origin/exp/iris/wide\n"
    )
    assert bob.git("rev-parse", "exp/iris/wide") == before
    there = ann.git("rev-parse", "exp/iris/wide")
    refused = bob.expmgr("push")
    assert refused.code == 1
    assert refused.stderr.splitlines() == [
        "Error: exp/iris/wide was not pushed: origin has commits of it that this clone has not",
        "Hint: expmgr pull; git switch exp/iris/wide; git merge origin/exp/iris/wide; then expmgr push",
    ]
    assert ann.git("ls-remote", "origin", "refs/heads/exp/iris/wide").split()[0] == there.strip()
    # A branch that is checked out is the person's to move.
    bob.git("switch", "--quiet", "exp/iris/baseline")
    change(ann, "baseline", "more")
    ok(ann, "push")
    left = bob.expmgr("pull")
    assert (
        f"exp/iris/baseline was left where it is: it is checked out in {bob.path}: git merge --ff-only" in left.stderr
    )
    assert bob.git("status", "--porcelain") == ""


def test_everything_is_there_after_rebase_squash_deletion_and_gc(ann: Repo, bob: Repo) -> None:
    commits = {one["commit"] for one in told(ann, "log")["events"] if "commit" in one}
    before = titles(ann)
    for repo in (ann, bob):
        repo.git("merge", "--squash", "exp/iris/wide")
        repo.commit("squashed")
        repo.git("branch", "-D", "exp/iris/wide", "exp/iris/baseline")
        repo.git("push", "--quiet", "--delete", "origin", "exp/iris/wide", "exp/iris/baseline") if repo is ann else None
        repo.git("fetch", "--quiet", "--prune")
        repo.git("reflog", "expire", "--expire=now", "--all")
        repo.git("gc", "--quiet", "--prune=now")
        assert titles(repo) == before
        for commit in commits:
            assert repo.git("cat-file", "-t", commit) == "commit\n"
    assert ok(bob, "pull") == "nothing new at origin\n"


def test_a_pruning_fetch_configuration_deletes_nothing(ann: Repo, bob: Repo) -> None:
    bob.git("config", "fetch.prune", "true")
    bob.git("config", "remote.origin.prune", "true")
    ok(bob, "note", "iris/wide", "-m", "not pushed yet")
    hub = Repo(ann.path.parent / "hub.git")
    (log,) = (ref for ref in hub.git("for-each-ref", "--format=%(refname)", "refs/expmgr/").split())
    hub.git("update-ref", "-d", log)
    ok(bob, "pull")
    bob.git("fetch", "--quiet")
    assert len(titles(bob)) == 9
    ok(bob, "push")
    ok(ann, "push")
    assert len(hub.git("for-each-ref", "refs/expmgr/").splitlines()) == 2


def test_a_rewritten_log_is_refused_with_words(ann: Repo, bob: Repo) -> None:
    (log,) = logs_of(ann)
    hub = Repo(ann.path.parent / "hub.git")
    ok(ann, "note", "iris/wide", "-m", "kept")
    ok(ann, "push")
    ok(bob, "pull")
    before, seen = titles(bob), bob.git("for-each-ref", "refs/expmgr/")
    hub.git("update-ref", log, f"{log}~4")
    git = GitRepo.discover(hub.path)
    tip = git.refs(log)[log]
    extend_ref(git, log, tip, [NewCommit({"event.json": b"{}"}, "another history\n")], "forced")
    refused = bob.expmgr("pull")
    writer = log.rpartition("/")[2]
    assert refused.code == 1
    assert refused.stderr.splitlines() == [
        f"Error: origin has another history of what {writer} said than was here before",
        "  a log is only ever added to: somebody forced a push over it, or it was taken back from a backup",
        "What was here before was kept; all else was taken over.",
        f"Hint: ask who it was; if the new one is right: git update-ref -d refs/expmgr/remotes/origin/log/{writer}, "
        "then expmgr pull",
    ]
    assert (titles(bob), bob.git("for-each-ref", "refs/expmgr/")) == (before, seen)
    assert json.loads(bob.expmgr("pull", "--json").stdout)["error"] == "LogRewritten"


def test_a_copied_clone_becomes_a_writer_of_its_own(ann: Repo, bob: Repo) -> None:
    copy = Repo(ann.path.parent / "copy")
    shutil.copytree(ann.path, copy.path, symlinks=True)
    ok(copy, "note", "iris/wide", "-m", "from the copy")
    ok(ann, "note", "iris/wide", "-m", "from the first")
    assert len(logs_of(copy)) == 2
    ok(copy, "push")
    ok(ann, "push")
    ok(copy, "push")
    ok(bob, "pull")
    assert {"note from the copy", "note from the first"} <= set(titles(bob))


def test_a_clone_brought_back_from_a_backup_goes_on_as_another_writer(ann: Repo, bob: Repo) -> None:
    (log,) = logs_of(ann)
    old = ann.git("rev-parse", log).strip()
    ok(ann, "note", "iris/wide", "-m", "pushed, then forgotten")
    ok(ann, "push")
    ann.git("update-ref", log, old)
    ann.git("update-ref", "-d", f"refs/expmgr/remotes/origin/log/{log.rpartition('/')[2]}")
    ran(ann, "iris/wide", 0.5, first=20)
    ok(ann, "note", "iris/wide", "-m", "after the backup")
    pushed = ann.expmgr("push")
    assert pushed.code == 0
    assert pushed.stderr.startswith("Note: origin has events of this clone that it does not know")
    assert logs_of(ann) != [log]
    pulled = bob.expmgr("pull")
    assert pulled.stdout.splitlines() == [
        "pulled from origin: 3 events, 1 run",
        "  Ann: note on iris/wide: pushed, then forgotten",
        "  Ann: note on iris/wide: after the backup",
    ]
    assert titles(bob)[-3:] == ["note pushed, then forgotten", *titles(bob)[-2:]]
    assert set(titles(ann)) == set(titles(bob))
    assert ok(ann, "push") == "origin has everything already\n"


def hooked(team: Team, script: str) -> Path:
    hook = team.hub.path / "hooks/update"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    return hook


def test_a_branch_that_the_remote_declines_has_its_words(ann: Repo, team: Team) -> None:
    hook = hooked(team, 'case "$1" in refs/heads/exp/*) echo "policy: ask Cleo" >&2; exit 1;; esac')
    ok(ann, "new", "iris/deep")
    ok(ann, "note", "iris/wide", "-m", "goes all the same")
    declined = ann.expmgr("push")
    assert declined.code == 1
    assert declined.stdout == "pushed to origin: 2 events\n"
    assert declined.stderr.splitlines() == [
        "Error: exp/iris/deep was not pushed: origin declined it: hook declined",
        "  remote: policy: ask Cleo",
        "  remote: error: hook declined to update refs/heads/exp/iris/deep",
        "Hint: fix that at origin, then expmgr push",
    ]
    again = ann.expmgr("push", "--json")
    assert json.loads(again.stdout)["declined"] == {"exp/iris/deep": "hook declined"}
    assert "policy: ask Cleo" in again.stderr
    hook.unlink()
    ok(ann, "push")


def test_a_branch_that_is_locked_at_the_remote(ann: Repo, bob: Repo, team: Team) -> None:
    """Of one that the remote has other commits of, that is said."""
    for repo, variant in ((bob, "baseline"), (ann, "baseline"), (ann, "wide")):
        repo.git("switch", "--quiet", f"exp/iris/{variant}")
        repo.write("experiments/iris/notes.md", f"{repo.path}")
        repo.commit("more")
    ok(bob, "push")
    path = team.hub.path / "refs/heads/exp/iris/wide.lock"
    path.touch()
    declined = ann.expmgr("push")
    assert declined.code == 1
    lines = declined.stderr.splitlines()
    assert lines[0] == "Error: exp/iris/wide was not pushed: origin declined it: failed to update ref"
    assert any("wide.lock': File exists" in line for line in lines)
    assert lines[-3:-1] == [
        "Hint: fix that at origin, then expmgr push",
        "Error: exp/iris/baseline was not pushed: origin has commits of it that this clone has not",
    ]
    path.unlink()
    assert "wide" not in ann.expmgr("push").stderr


def test_a_log_that_is_locked_at_the_remote(ann: Repo, team: Team) -> None:
    ok(ann, "note", "iris/wide", "-m", "more")
    (log,) = logs_of(ann)
    path = team.hub.path / f"{log}.lock"
    path.touch()
    refused = ann.expmgr("push")
    lines = refused.stderr.splitlines()
    assert refused.code == 1
    assert lines[:2] == ["Error: origin refuses the log of this clone", "  failed to update ref"]
    assert any(".lock': File exists" in line for line in lines)
    assert lines[-1] == "Hint: remove what is in the way at origin, then expmgr push"
    path.unlink()
    ok(ann, "push")


def test_a_target_branch_that_cannot_be_fetched_fails_the_pull(ann: Repo, bob: Repo) -> None:
    ann.write("more", "more")
    ann.commit("more")
    ann.git("push", "--quiet", "origin", "HEAD:main")
    path = bob.write(".git/refs/remotes/origin/main.lock", "")
    os.utime(path, (1e9, 1e9))
    pulled = bob.expmgr("pull")
    assert (pulled.code, pulled.stdout) == (4, "")
    assert "main.lock': File exists" in pulled.stderr
    assert pulled.stderr.splitlines()[-1].endswith(f"then remove the lock: rm {path}")
    path.unlink()
    ok(bob, "pull")
    assert bob.git("rev-parse", "origin/main") == ann.git("rev-parse", "main")
    ann.git("push", "--quiet", "origin", "main:refs/heads/other")
    bob.write(".git/expmgr/config.toml", 'target = "mine"\n')
    bob.git("branch", "mine")
    assert ok(bob, "pull") == "nothing new at origin\n"  # the remote has no such branch


def test_a_host_that_takes_only_branches(team: Team) -> None:
    hook = team.hub.path / "hooks/update"
    hook.write_text('#!/bin/sh\ncase "$1" in refs/heads/*) ;; *) echo "no such refs here" >&2; exit 1;; esac\n')
    hook.chmod(0o755)
    ann, bob = team.join("ann"), team.join("bob")
    ok(ann, "new", "iris/wide")
    refused = ann.expmgr("push")
    assert refused.code == 1
    assert refused.stderr.splitlines()[0] == "Error: origin refuses the log of this clone"
    assert (
        'Hint: where a host takes only branches: log_prefix = "refs/heads/expmgr/log" in [tool.expmgr]\n'
        in refused.stderr
    )
    for one in (ann, bob):
        one.write(".git/expmgr/config.toml", 'log_prefix = "refs/heads/expmgr/log"\n')
    ok(ann, "push")
    ok(bob, "pull")
    assert titles(bob) == ["variant iris/wide"]
    ok(bob, "note", "iris/wide", "-m", "seen")
    ok(bob, "push")
    ok(ann, "pull")
    assert titles(ann) == ["variant iris/wide", "note seen"]


def test_the_users_pre_push_hook_runs(ann: Repo) -> None:
    hook = ann.path / ".git/hooks/pre-push"
    hook.write_text("#!/bin/sh\necho ran > ../hook-ran\nexit 0\n")
    hook.chmod(0o755)
    ok(ann, "note", "iris/wide", "-m", "x")
    ok(ann, "push")
    assert (ann.path.parent / "hook-ran").exists()


def test_what_is_wrong_with_a_remote_is_said(iris: Repo, tmp_path: Path) -> None:
    assert iris.expmgr("push").stderr.splitlines() == [
        "Error: this repository has no remote",
        "Nothing was changed.",
        "Hint: git remote add origin URL",
    ]
    iris.git("remote", "add", "one", "https://me:secret@127.0.0.1:1/x.git")
    iris.git("remote", "add", "two", str(tmp_path / "nowhere"))
    assert iris.expmgr("pull").stderr.splitlines()[0] == "Error: several remotes, and none is called origin: one, two"
    assert iris.expmgr("pull", "--remote", "three").stderr.splitlines()[0] == "Error: there is no remote three"
    ok(iris, "new", "iris/wide")
    for command in ("push", "pull"):
        for remote in ("one", "two"):
            failed = iris.expmgr(command, "--remote", remote)
            assert failed.code == 1
            assert failed.stderr.startswith(
                f"Error: git could not {'push to' if command == 'push' else 'fetch from'} {remote}\n"
            )
            assert "secret" not in failed.stderr
    assert [one["kind"] for one in told(iris, "log")["events"]] == ["variant"]


def test_runs_that_are_not_what_their_events_say(ann: Repo, bob: Repo, team: Team) -> None:
    """Eve's log tells of one of Ann's runs as her own, of one with another record beside it, and of another run's record."""
    eve = team.join("eve")
    ok(eve, "pull")
    project = Project.open(eve.path)
    theirs = project.logs.events("run")[0]
    values = {**json.loads(theirs.content), "value": 0.1}
    values = {
        key: value for key, value in values.items() if key not in ("writer", "time", "at", "actor", "kind", "format")
    }
    kind = type(theirs.event)
    tell(project, [Draft(kind, values, {"record.json": b"{}"})])  # Ann's run, with another record
    tell(project, [Draft(kind, {**values, "run_id": "20260101-000000000-00000a"}, {"record.json": b"{}"})])
    (content,) = project.logs.beside([theirs], "record.json")
    assert content is not None
    fit = {**values, "run_id": "20260101-000000000-00000b", "record": hashlib.sha256(content).hexdigest()}
    tell(project, [Draft(kind, fit, {"record.json": content})])
    tell(project, [Draft(Noted, {"variant": "iris/wide", "text": "said by Eve"})])
    ok(eve, "push")
    before = told(bob, "compare", "baseline", "wide")["variants"]
    pulled = bob.expmgr("pull")
    assert pulled.code == 0
    words = {line.partition("was skipped: ")[2] for line in pulled.stderr.splitlines()}
    writer = logs_of(eve)[0].rpartition("/")[2]
    first = logs_of(ann)[0].rpartition("/")[2]
    assert words == {
        f"the record of {writer} is of another run than its event says",
        f"what lies beside the event of {writer} is not the record that it names",
        f"{writer} tells of it, and so does {first}, whose it is here",
    }
    assert told(bob, "compare", "baseline", "wide")["variants"] == before
    ok(ann, "pull")
    assert "note said by Eve" in titles(ann)


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from clones import ok
from world import Repo
repo = Repo(Path(sys.argv[2]))
for number in range(8):
    ok(repo, "note", "iris/wide", "-m", f"{repo.path.name}-{number}")
    print(ok(repo, "push"), end="")
"""


HOSTILE = [
    "exp/a", "exp/A/b", "exp/a.x/b/c", "exp/b/-rf", "exp/b/--upload-pack=x", "exp/b/$(id)", "exp/b/\u202eevil",
    "exp/b/a\u200bb", "exp/b/" + "x" * 200, "exp/" + "y" * 200, "exp/b/@", "exp/B/HEAD", "exp/b/a'b",
]  # fmt: skip


def pushed_as(team: Team, commit: str, names: list[str]) -> None:
    """The remote gets branches of these names, whoever pushed them."""
    lines = "".join(f"create refs/heads/{name} {commit}\n" for name in names)
    subprocess.run(["git", "update-ref", "--stdin"], cwd=team.hub.path, input=lines.encode(), check=True)


def heads(repo: Repo) -> list[str]:
    return sorted(repo.git("for-each-ref", "--format=%(refname)", "refs/heads").split("\n")[:-1])


def test_branches_that_are_no_variants_are_not_made(bob: Repo, team: Team) -> None:
    commit = bob.git("rev-parse", "main").strip()
    pushed_as(team, commit, [*HOSTILE, "exp/iris/fourth"])
    before = heads(bob)
    pulled = bob.expmgr("pull")
    assert (pulled.code, pulled.stdout) == (0, "pulled from origin: 0 events, 0 runs\n  exp/iris/fourth: new here\n")
    (line,) = pulled.stderr.splitlines()
    assert line.startswith(f"Note: {len(HOSTILE)} branches were skipped: their names are no variants (exp/EXPERIMENT/")
    assert line.endswith(f" and {len(HOSTILE) - 3} more")
    assert len(line) < 400
    assert "\u202e" not in line
    assert heads(bob) == sorted([*before, "refs/heads/exp/iris/fourth"])
    assert sorted(told(bob, "pull")["not_variants"]) == sorted(HOSTILE)
    # Nor does a branch go to the remote that only begins like one.
    bob.git("branch", "exp/mine", "main")
    ok(bob, "push")
    assert "refs/heads/exp/mine" not in heads(team.hub)


def test_a_name_that_is_too_long_for_this_disk_keeps_nothing_else_away(ann: Repo, bob: Repo, team: Team) -> None:
    commit = bob.git("rev-parse", "main").strip()
    ok(ann, "note", "iris/wide", "-m", "news")
    ok(ann, "push")
    packed = f"# pack-refs with: peeled fully-peeled sorted \n{commit} refs/heads/exp/iris/fourth\n"
    (team.hub.path / "packed-refs").write_text(packed + f"{commit} refs/heads/exp/long/{'x' * 300}\n")
    pulled = bob.expmgr("pull")
    assert pulled.code == 0, pulled.stderr
    assert "  exp/iris/fourth: new here" in pulled.stdout.splitlines()
    assert "note on iris/wide: news" in pulled.stdout


def test_branches_in_each_others_way(bob: Repo, team: Team) -> None:
    """A folder where the other has a branch: here, and at the remote since the last time."""
    commit = bob.git("rev-parse", "main").strip()
    bob.git("branch", "exp/mine", "main")
    pushed_as(team, commit, ["exp/mine/x", "exp/other"])
    pulled = bob.expmgr("pull")
    assert pulled.code == 0
    assert (
        "Note: exp/mine/x was left where it is: your branch exp/mine is in its way: git branch -m exp/mine NEW-NAME"
        in pulled.stderr.splitlines()
    )
    bob.git("branch", "-m", "exp/mine", "mine")
    assert "  exp/mine/x: new here" in ok(bob, "pull")
    team.hub.git("update-ref", "-d", "refs/heads/exp/other")
    pushed_as(team, commit, ["exp/other/y"])
    pulled = bob.expmgr("pull")
    assert pulled.code == 0, pulled.stderr
    assert (
        "Note: exp/other/y was left where it is: a branch that origin had is in its way: git remote prune origin"
        in pulled.stderr.splitlines()
    )
    bob.git("remote", "prune", "origin")
    assert "  exp/other/y: new here" in ok(bob, "pull")


def at_once(repo: Repo, *commands: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of commands that run side by side, each in a process of its own."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "expmgr", *one],
            cwd=repo.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in commands
    ]
    said = [one.communicate() for one in started]
    return [(one.returncode, *words) for one, words in zip(started, said, strict=True)]


def test_pushes_of_one_clone_at_once(ann: Repo, bob: Repo, team: Team) -> None:
    """Each takes a second at the remote, beside a pull and a note: all end well, and the remote has everything."""
    hook = team.hub.path / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\ncat > /dev/null\nsleep 1\n")
    hook.chmod(0o755)
    ok(bob, "note", "iris/wide", "-m", "of Bob")
    ok(bob, "push")
    ok(ann, "note", "iris/wide", "-m", "first")
    ok(ann, "new", "iris/third", "--from", "exp/iris/wide")
    pushes = [("push",)] * 3
    said = at_once(ann, *pushes, ("pull",), ("note", "iris/wide", "-m", "beside"))
    assert [code for code, _, _ in said] == [0] * 5, said
    assert any("exp/iris/third" in out for _, out, _ in said[:3])
    ok(ann, "push")
    assert ok(ann, "push") == "origin has everything already\n"
    assert sorted(team.hub.git("for-each-ref", "--format=%(objectname)", "refs/expmgr/log/").split()) == sorted(
        {*ann.git("for-each-ref", "--format=%(objectname)", "refs/expmgr/").split()}
    )
    assert [one for one in titles(ann) if one.startswith("variant")].count("variant iris/third") == 1


def test_what_another_clone_has_pushed_already_is_not_refused(ann: Repo, bob: Repo, team: Team) -> None:
    """Both push one new branch at once: the slower one is refused by the remote, which has that commit."""
    ok(ann, "new", "iris/third", "--from", "exp/iris/wide")
    bob.git("fetch", "--quiet", str(ann.path), "exp/iris/third:exp/iris/third")
    hook = bob.path / ".git/hooks/pre-push"  # between what Bob's git asked the remote and what it sends
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec env -u GIT_DIR git -C {ann.path} push --quiet origin exp/iris/third\n")
    hook.chmod(0o755)
    pushed = bob.expmgr("push")
    assert (pushed.code, pushed.stderr) == (0, "")


@pytest.mark.wide
def test_six_writers_at_once_lose_nothing(ann: Repo, team: Team) -> None:
    """Each says and pushes eight times: no push is refused, so none is tried twice."""
    clones = [team.join(f"clone-{number}") for number in range(6)]
    for one in clones:
        ok(one, "pull")
    here = str(Path(__file__).parents[1])
    env = sealed(Path(os.environ["HOME"]), os.environ)
    writing = [
        subprocess.Popen([sys.executable, "-c", WRITE, here, str(one.path)], stdout=subprocess.PIPE, text=True, env=env)
        for one in clones
    ]
    assert [one.communicate()[0].count("pushed to origin: 1 event\n") for one in writing] == [8] * 6
    assert [one.returncode for one in writing] == [0] * 6
    ok(ann, "pull")
    notes = [one["text"] for one in told(ann, "log", "--limit", "1000")["events"] if one["kind"] == "note"]
    assert sorted(notes) == sorted(f"clone-{one}-{number}" for one in range(6) for number in range(8))
