"""What somebody can try who may push to the remote, and what an accident does that looks the same: without TensorFlow."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clones import (
    Team,
    approved,
    asked,
    commit_on,
    forge,
    logs_of,
    meet,
    ok,
    put,
    ran,
    record_of,
    shown,
    state,
    told,
)  # fmt: skip
from expmgr.errors import ExpmgrError
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log.events import (
    LATEST,
    Actor,
    Decided,
    Merged,
    Retracted,
    ReviewOpened,
    RunTold,
    VariantMade,
    Waived,
    canonical,
)
from expmgr.log.logs import Draft
from expmgr.log.refs import OWN
from expmgr.project import Project
from expmgr.runs.origin import ORIGIN
from expmgr.team.publish import tell
from world import Repo

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
SPEC = "experiments/iris/spec.yaml"


def key_of(team: Team, name: str) -> Path:
    path = team.root / f"{name}.key"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def join(team: Team, name: str) -> Repo:
    repo = team.join(name)
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingKey", str(key_of(team, name)))
    return repo


def line_of(team: Team, name: str, whose: str = "") -> str:
    return f"{whose or f'{name}@example.com'} {key_of(team, name).with_suffix('.key.pub').read_text().strip()}\n"


def require(team: Team, *lines: str, rules: str = "") -> None:
    """Say on main that signatures are required, and whose keys sign for whom."""
    repo = team.join("boss")
    repo.write(".expmgr/allowed_signers", "".join(lines))
    repo.write("expmgr.toml", f'signing = "require"\n{rules}')
    repo.commit("signatures bind")
    repo.git("push", "--quiet", "origin", "main")


def open_review(team: Team) -> Repo:
    """Ann signs, has two variants with results, and asks for a review."""
    ann = join(team, "ann")
    ok(ann, "new", "iris/baseline")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ran(ann, "iris/baseline", 0.90, 0.91, 0.93)
    ran(ann, "iris/wide", 0.95, 0.97, 0.96)
    ok(ann, "review", "open", "iris/wide", "--against", "iris/baseline")
    ok(ann, "push")
    return ann


def named(repo: Repo, name: str) -> None:
    """Be called so, by git."""
    repo.git("config", "user.name", name.capitalize())
    repo.git("config", "user.email", f"{name}@example.com")


# What an approval is bound to.


_BESIDES = (
    ".expmgr/allowed_signers", ".github/workflows/ci.yml", "experiments/other/spec.yaml",
    "experiments/iris/reviews/0123456789ab.md", "experiments/iris/reviews/0123456789ab.json", "setup.py",
)  # fmt: skip


@pytest.mark.parametrize("path", ["pyproject.toml", *(pytest.param(one, marks=pytest.mark.wide) for one in _BESIDES)])
def test_what_a_merge_would_bring_besides_expires_an_approval(team: Team, path: str) -> None:
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    approved(ann, bob)
    commit_on(ann, "exp/iris/wide", path, "# mine\n")
    assert "approval expired" in state(ann)[1]
    stale = ann.expmgr("review", "merge", "wide")
    assert (stale.code, "was given for other code or other results" in stale.stderr) == (1, True), stale.stderr
    if not path.startswith("experiments/iris/"):
        assert f"outside of experiments/iris/: {path}\n" in ok(ann, "review", "show", "wide")


def test_nothing_is_judged_where_a_merge_would_delete_the_spec(team: Team) -> None:
    ann = team.join("ann")
    ann.git("branch", "--quiet", "exp/iris/baseline")
    ann.git("branch", "--quiet", "exp/iris/same")
    commit_on(ann, "exp/iris/same", "experiments/iris/NOTES.md", "the same\n")
    for name in ("iris/baseline", "iris/same"):
        ran(ann, name, 0.9, 0.91, 0.92)
    ok(ann, "review", "open", "same", "--against", "baseline")
    ann.git("rm", "-q", "-r", "experiments/iris")
    ann.commit("no iris any more")
    assert "nothing to judge" in state(ann, "same")[1]
    checked = ann.expmgr("review", "check", "same")
    assert (checked.code, f"main has deleted {SPEC}, and a merge would too" in checked.stdout) == (5, True)
    assert ann.expmgr("review", "merge", "same").code == 5
    ok(ann, "push")
    ann.git("push", "--quiet", "origin", "main")
    bob = team.join("bob")
    ok(bob, "pull")
    assert "there is nothing to approve in review " in bob.expmgr("review", "approve", "same").stderr


@pytest.mark.wide
def test_ci_judges_the_commit_that_it_was_given_and_all_that_it_changes(team: Team) -> None:
    ann = asked(team)
    old = ann.git("rev-parse", "exp/iris/wide").strip()
    commit_on(ann, "exp/iris/wide", SPEC, ann.git("show", f"exp/iris/wide:{SPEC}").replace("[20, 20]", "[2, 2]"))
    new = ann.git("rev-parse", "exp/iris/wide").strip()
    codes = [ann.expmgr("review", "check", "--base", "main", "--head", head).code for head in (old, new)]
    assert codes == [0, 1]  # there are results of the one, and none of the other
    # Another experiment beside it, by its spec, or by data that lies outside of its folder.
    ann.write("data/rows.csv", "a,b\n1,2\n")
    ann.write("experiments/other/spec.yaml", ann.read(SPEC).replace("experiment: iris", "experiment: other"))
    spec = ann.read("experiments/other/spec.yaml").replace("train: iris_training.csv", "train: ../../data/rows.csv")
    ann.write("experiments/other/spec.yaml", spec)
    ann.commit("another experiment")
    assert ann.expmgr("review", "check", "--base", "main", "--head", old).code == 0
    for path, text in (("experiments/other/spec.yaml", spec + "# x\n"), ("data/rows.csv", "a,b\n3,4\n"),
                       ("data/rows.csv.dvc", "outs:\n"), ("experiments/other/spec.yaml", None)):  # fmt: skip
        ann.git("branch", "--quiet", "--force", "exp/iris/wide", old)
        ann.git("rebase", "--quiet", "main", "exp/iris/wide")
        ann.git("switch", "--quiet", "main")
        commit_on(ann, "exp/iris/wide", path, text)
        found = ann.expmgr("review", "check", "--base", "main", "--head", "exp/iris/wide")
        assert (found.code, "Error: other would change, and no open review is of" in found.stderr) == (1, True), path


def test_words_in_a_commit_are_no_merge(team: Team) -> None:
    """Nor is a merge of something else, and a file that was there before is no decision."""
    ann = asked(team)
    review = shown(ann)["id"]
    page = json.dumps(shown(ann))
    ann.write(f"experiments/iris/reviews/{review[:12]}.json", page)
    ann.commit(f"Merge iris/wide\n\nExperiment-Review: {review}")
    ann.git("switch", "--quiet", "--create", "other", "HEAD~1")
    ann.write("README.md", "x")
    ann.commit("other")
    ann.git("switch", "--quiet", "main")
    ann.git("merge", "--quiet", "--no-ff", "other", "-m", f"Merge iris/wide\n\nExperiment-Review: {review}")
    assert ann.expmgr("review", "merge", "wide").code == 1
    assert state(ann)[0] == "open"


@pytest.mark.wide
def test_a_veto_outlives_the_review_that_was_closed_over_it(team: Team) -> None:
    ann, bob, cleo = asked(team), team.join("bob"), team.join("cleo")
    for one in (bob, cleo):
        ok(one, "pull")
    ok(cleo, "review", "veto", "wide", "-m", "one day's rows")
    meet(cleo, ann)
    first = shown(ann)["id"]
    ok(ann, "review", "close", "wide", "--reason", "abandoned")
    ok(ann, "review", "open", "wide", "--against", "baseline")
    meet(ann, bob, cleo)
    ok(bob, "review", "approve", "wide")
    meet(bob, ann, cleo)
    assert state(ann) == ("open", ["verdicts contradict each other"])
    refused = ann.expmgr("review", "merge", "wide")
    assert f"Cleo vetoes it in review {first[:12]}, until they lift that: one day's rows" in refused.stderr
    ok(cleo, "review", "lift", "wide")
    meet(cleo, ann)
    assert state(ann)[0] == "approved"


@pytest.mark.wide
def test_a_waiver_is_of_what_the_check_said(team: Team) -> None:
    ann = asked(team)
    ok(ann, "new", "iris/few", "--from", "baseline", "--set", "model.hidden_units=[9, 9]")
    ran(ann, "iris/few", 0.95, 0.97)
    ok(ann, "review", "open", "few", "--against", "baseline")
    bob = team.join("bob")
    meet(ann, bob)
    found = shown(bob, "few")
    bound = {"review": found["id"], "check": "few-seeds", "reason": "x"}
    bound |= {name: found["evidence"][name] for name in ("digests", "result_set")}
    (said,) = [one["told"] for one in found["checks"] if one["id"] == "few-seeds"]
    forge(bob, Waived, **bound, told="something else")
    assert bob.expmgr("review", "check", "few").code == 5
    forge(bob, Waived, **bound, told=said)
    assert bob.expmgr("review", "check", "few").code == 0


# Who says it, where signatures are required.


@pytest.mark.wide
def test_what_a_checkout_says_of_signatures_binds_nobody(team: Team) -> None:
    """Neither `signing`, nor another target, nor another file of signers."""
    require(team, line_of(team, "ann"), line_of(team, "bob"))
    ann = open_review(team)
    named(ann, "bob")
    ok(ann, "review", "approve", "wide")  # with her own key
    named(ann, "ann")
    free = 'signing = "off"\ntarget = "exp/iris/free"\nallowed_signers = "mine"\n[review]\napprovals = 0\nby_others = false\n'
    ann.git("branch", "--quiet", "exp/iris/free", "exp/iris/baseline")
    for path, text in (("expmgr.toml", free), ("mine", line_of(team, "ann", "bob@example.com"))):
        commit_on(ann, "exp/iris/free", path, text)
    ann.git("switch", "--quiet", "exp/iris/free")
    for _ in range(2):
        found = shown(ann)
        assert (found["state"], found["target"], found["opinions"]) == ("open", "main", [])
        assert len(found["unsigned_claims"]) == 1
        assert ann.expmgr("review", "merge", "wide").code == 1
        ann.git("switch", "--quiet", "main")
        ann.write("expmgr.toml", free)
        ann.write("mine", line_of(team, "ann", "bob@example.com"))
    ann.write("expmgr.toml", "")
    ann.git("checkout", "--quiet", "expmgr.toml")
    # A machine may ask for more than the target, never for less.
    ann.write(".git/expmgr/config.toml", 'signing = "off"\n')
    assert state(ann)[0] == "open"


@pytest.mark.wide
def test_one_key_is_one_person(team: Team) -> None:
    require(
        team, line_of(team, "ann", "ann@example.com,anna@example.com"), line_of(team, "bob"),
        line_of(team, "bob", "rob@example.com"), line_of(team, "cleo"), rules="[review]\napprovals = 2\n",
    )  # fmt: skip
    ann = open_review(team)
    named(ann, "anna")
    assert "Anna approves their own work" in ann.expmgr("review", "approve", "wide").stderr
    found = shown(ann)
    bound = {name: found["evidence"][name] for name in ("digests", "result_set")}
    forge(ann, Decided, review=found["id"], verdict="approve", commit=found["events"][0]["commit"], **bound)
    assert [one["because"] for one in shown(ann)["opinions"]] == ["is not somebody else's"]
    bob = join(team, "bob")
    ok(bob, "pull")
    for name in ("bob", "rob"):
        named(bob, name)
        ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    found = shown(ann)
    assert (found["state"], sum(one["counts"] for one in found["opinions"])) == ("open", 1)
    named(bob, "bob")
    ok(bob, "review", "lift", "wide")  # his, under either name
    assert not any(one["counts"] for one in shown(bob)["opinions"])
    ok(bob, "review", "approve", "wide")
    cleo = join(team, "cleo")
    meet(bob, ann)
    ok(cleo, "pull")
    ok(cleo, "review", "approve", "wide")
    meet(cleo, ann)
    assert state(ann)[0] == "approved"


@pytest.mark.wide
def test_nobody_is_made_an_author_by_others(team: Team) -> None:
    require(team, line_of(team, "ann"), line_of(team, "bob"))
    ann = open_review(team)
    bob, eve = join(team, "bob"), join(team, "eve")
    meet(ann, eve)
    named(eve, "bob")
    commit = ann.git("rev-parse", "exp/iris/wide").strip()
    forge(eve, VariantMade, variant="iris/wide", commit=commit, base="main")
    ok(eve, "push")
    ok(bob, "pull")
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    assert state(ann)[0] == "approved"


def test_a_branch_that_somebody_made_with_git_is_not_told_as_ones_own(team: Team) -> None:
    ann, bob = team.join("ann"), team.join("bob")
    ann.git("branch", "--quiet", "exp/iris/bare")
    commit_on(ann, "exp/iris/bare", SPEC, ann.read(SPEC).replace("[10, 10]", "[5, 5]"))
    ann.git("push", "--quiet", "origin", "exp/iris/bare")
    ok(bob, "pull")
    ok(bob, "push")
    assert [one["kind"] for one in told(bob, "log")["events"]] == []
    ok(ann, "push")
    assert [(one["variant"], one["actor"]["email"]) for one in told(ann, "log")["events"]] == [
        ("iris/bare", "ann@example.com")
    ]


@pytest.mark.wide
def test_a_veto_is_taken_back_by_whoever_signed_it_alone(team: Team) -> None:
    require(team, line_of(team, "ann"), line_of(team, "bob"))
    ann = open_review(team)
    bob = join(team, "bob")
    ok(bob, "pull")
    ok(bob, "review", "comment", "wide", "-m", "why?")
    ok(bob, "review", "veto", "wide", "-m", "no")
    ok(bob, "push")
    ok(ann, "pull")
    comment = shown(ann)["comments"][0]["id"]
    veto = shown(ann)["opinions"][0]["id"]
    (log,) = logs_of(bob)
    writer = log.rpartition("/")[2]

    def push_into_bobs_log(*drafts: Draft, sign: bool = True) -> None:
        """Ann writes in Bob's log, with her key."""
        here = f"refs/expmgr/remotes/origin/log/{writer}"
        ann.git("update-ref", log, here)
        project = Project.open(ann.path)
        bobs = Actor(name="Bob", email="bob@example.com")
        project.logs.append(writer, drafts, now=1.0, actor=bobs, sign=sign)
        ann.git("push", "--quiet", "origin", log)
        ann.git("update-ref", here, log)
        ann.git("update-ref", "-d", log)

    push_into_bobs_log(*(Draft(Retracted, {"event": one, "reason": "never mind"}) for one in (comment, veto)))
    # Nor by a dozen of signatures that are none of his.
    lift = {
        "verdict": "lift",
        "review": shown(ann)["id"],
        "commit": "1" * 40,
        "digests": "0" * 64,
        "result_set": "0" * 64,
    }
    for _ in range(12):
        push_into_bobs_log(Draft(Decided, lift))
    push_into_bobs_log(Draft(Decided, lift), sign=False)
    for repo in (ann, team.join("dan")):
        ok(repo, "pull")
        found = shown(repo)
        assert [one["verdict"] for one in found["opinions"]] == ["veto"]
        assert [one["id"] for one in found["comments"]] == [comment]
        assert len(found["unsigned_claims"]) == 13
        assert "not signed by whom they name, and not counted: " in ok(repo, "review", "show", "wide")
    # He can take back his words, and never what he decided.
    forge(bob, Retracted, event=veto, reason="x")
    ok(bob, "retract", comment, "-m", "I see")
    assert (len(shown(bob)["comments"]), len(shown(bob)["opinions"])) == (0, 1)


@pytest.mark.wide
def test_a_signed_commit_of_code_signs_no_event(team: Team) -> None:
    """Bob signs a merge of a branch of hers; its history, put where a log lies, says nothing in his name."""
    require(team, line_of(team, "ann"), line_of(team, "bob"))
    ann, bob = open_review(team), join(team, "bob")
    meet(ann, bob)
    found = shown(ann)
    about = {name: found["evidence"][name] for name in ("digests", "result_set")}
    writer = "eve-00000009"
    values = {
        "format": 1, "kind": "verdict", "writer": writer, "time": 900, "at": 1.0, "review": found["id"],
        "actor": {"name": "Bob", "email": "bob@example.com"}, "verdict": "approve", "text": "", "reason": "",
        "commit": found["events"][0]["commit"], **about,
    }  # fmt: skip
    for begin in ({}, {"log.json": canonical({"format": 1, "writer": writer})}):
        git = GitRepo.discover(bob.path)
        commits = [NewCommit(begin, "begin\n")] if begin else []
        files = {"event.json": canonical(values), **({} if begin else {"README.md": b"# code"})}
        tip = extend_ref(git, "refs/heads/hers", None, [*commits, NewCommit(files, "a change\n")], "x")
        assert tip is not None
        bob.git("switch", "--quiet", "hers")
        bob.write("README.md", "mine\n")
        bob.git("add", "README.md")
        bob.git("commit", "--quiet", "-S", "-m", "signed by Bob")
        bob.git("update-ref", f"{OWN}{writer}", "hers")
        bob.git("switch", "--quiet", "main")
        assert (state(bob)[0], shown(bob)["opinions"]) == ("open", [])
        bob.git("update-ref", "-d", f"{OWN}{writer}")
        bob.git("branch", "--quiet", "-D", "hers")


# Logs.


def plant(repo: Repo, writer: str, *events: dict[str, Any]) -> None:
    """A log of somebody else's, as `pull` would have fetched it."""
    commits = [NewCommit({"log.json": canonical({"format": 1, "writer": writer})}, "a log\n")]
    commits += [
        NewCommit({"event.json": canonical({"format": 1, "writer": writer, "at": 1.0, **one})}, "x\n") for one in events
    ]
    assert extend_ref(GitRepo.discover(repo.path), f"refs/expmgr/remotes/origin/log/{writer}", None, commits, "test")


@pytest.mark.wide
def test_a_time_of_fantasy_takes_nobodys_order(team: Team) -> None:
    ann = asked(team)
    note = {"kind": "note", "variant": "iris/wide", "text": "from the future"}
    plant(ann, "eve-00000001", {**note, "time": LATEST})
    plant(ann, "eve-00000002", {**note, "time": 2**40})
    bob = team.join("bob")
    bob.git("fetch", "--quiet", str(ann.path), "refs/expmgr/remotes/*:refs/expmgr/remotes/*")
    ok(bob, "pull")
    for _ in range(2):
        ok(bob, "review", "approve", "wide")
        assert [one["verdict"] for one in shown(bob)["opinions"]] == ["approve"]
        ok(bob, "review", "lift", "wide")
        assert shown(bob)["opinions"] == []
    assert max(one["time"] for one in told(bob, "log")["events"] if one["writer"].startswith("eve") is False) < 1000


def test_times_rise_within_a_log(team: Team) -> None:
    ann = team.join("ann")
    note = {"kind": "note", "variant": "iris/wide"}
    times = (3, 3, 2, 9)
    plant(ann, "eve-00000001", *({**note, "text": f"{number}", "time": time} for number, time in enumerate(times)))
    for _ in range(2):  # from git, and from the cache
        found = ann.expmgr("log", "--json")
        assert [one["text"] for one in json.loads(found.stdout)["events"]] == ["0", "3"]
        assert found.stderr.count("is not later than that of the event before it") == 2
    assert ann.expmgr("log").stderr.count("is not later than that of the event before it") == 2


def test_a_run_that_two_tell_of_is_nobodys(team: Team) -> None:
    """Unless it was here before the second one told of it."""
    ann, eve, old = team.join("ann"), team.join("eve"), team.join("old")
    ok(ann, "new", "iris/wide")
    (record,) = ran(ann, "iris/wide", 0.9)
    ok(ann, "push")
    ok(old, "pull")
    ok(eve, "pull")
    shutil.rmtree(eve.path / ".git/expmgr/runs")
    project = Project.open(eve.path)
    put(project, record.model_copy(update={"metrics": {"selected": {"eval": {"accuracy": 0.1}}}}))
    ok(eve, "push")
    pulled = old.expmgr("pull")
    assert f"run {record.run_id} was skipped: " in pulled.stderr
    assert told(old, "show", record.run_id)["metrics"]["selected"]["eval"]["accuracy"] == 0.9
    fresh = team.join("fresh")
    pulled = fresh.expmgr("pull")
    writers = sorted(logs_of(one)[0].rpartition("/")[2] for one in (ann, eve))
    assert pulled.stderr.endswith(
        f"run {record.run_id} was skipped: {' and '.join(writers)} tell of it: nobody can say whose it is\n"
    )
    assert fresh.expmgr("show", record.run_id).code == 1
    assert told(ann, "show", record.run_id)["metrics"]["selected"]["eval"]["accuracy"] == 0.9


@pytest.mark.wide
def test_what_is_told_again_refers_to_itself(team: Team) -> None:
    """A clone that goes on as another writer: its review, its words in it and what lay beside them stay together."""
    ann = asked(team)
    log = logs_of(ann)[0]
    old = ann.git("rev-parse", log).strip()
    ok(ann, "note", "iris/wide", "-m", "pushed, then forgotten")
    ok(ann, "push")
    ann.git("update-ref", log, old)  # a backup was brought back
    ann.git("update-ref", "-d", f"refs/expmgr/remotes/origin/log/{log.rpartition('/')[2]}")
    other = ann
    ok(other, "new", "iris/more", "--from", "baseline", "--set", "model.hidden_units=[7, 7]")
    ran(other, "iris/more", 0.5, 0.6, 0.7)
    ok(other, "review", "open", "more", "--against", "baseline")
    ok(other, "review", "comment", "more", "-m", "hm")
    before = shown(other, "more")
    ok(other, "review", "resolve", "more", before["comments"][0]["id"])
    ok(other, "review", "close", "more", "--reason", "worse", "-m", "no")
    named(other, "somebody")
    assert "It goes on as" in other.expmgr("push").stderr
    assert logs_of(other) != [log]
    bob = team.join("bob")
    ok(bob, "pull")
    for repo in (other, bob):
        found = shown(repo, "more")
        assert (found["state"], found["author"]["email"]) == ("closed", "ann@example.com")
        assert found["evidence"]["result_set"] == before["evidence"]["result_set"]
        assert [one["resolved_by"]["name"] for one in found["comments"]] == ["Ann"]
        assert found["opened_at"] == before["opened_at"]
    assert len(told(bob, "list")["variants"]) >= 3


# Records.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 2**40}, "seed: Input should be less than"),
        ({"created_at": 1e300}, "created_at: "),
        ({"train_s": -1.0}, "train_s: "),
        ({"environment": {"lock": 5}}, "environment.lock: "),
        ({"warm_start": {"variant": 3}}, "warm_start.variant: "),
        ({"by_hand": {"script": "x"}}, "by_hand.head: "),
        ({"spec": {}}, "spec.experiment: "),
        ({"spec": {"compare": []}}, "spec."),
        ({"metrics": {"selected": {"eval": {"accuracy": "0.9"}}}}, "metrics.selected.eval.accuracy: "),
        ({"metrics": {"selected": {"eval": {"accuracy": float("nan")}}}}, "it has the number nan"),
        ({"params": {"model": {"x": 10**100}}}, "it has an integer of 333 bits"),
        ({"params": {"model": "\ud800"}}, "Invalid JSON: "),
    ],
)
def test_a_record_that_breaks_things_is_passed_over(team: Team, change: dict[str, Any], words: str) -> None:
    ann, eve = team.join("ann"), team.join("eve")
    ok(eve, "new", "iris/wide")
    (good,) = ran(eve, "iris/wide", 0.9)
    project = Project.open(eve.path)
    record = record_of(project, "iris/wide", 1, 0.9).model_copy(update=change)
    content = (json.dumps({**record.model_dump(mode="json", exclude=set(change)), **change}) + "\n").encode()
    values = {
        "run_id": record.run_id, "variant": "iris/wide", "seed": record.seed, "commit": record.commit, "attempt": 1,
        "status": "finished", "step": 1, "record": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    tell(project, [Draft(RunTold, values, {"record.json": content})])
    ok(eve, "push")
    pulled = ann.expmgr("pull")
    assert pulled.code == 0
    assert f"run {record.run_id} was skipped: the record of " in pulled.stderr
    assert re.search(f" cannot be (used|read): {re.escape(words)}", pulled.stderr)
    for argv in (("list",), ("show", "iris/wide"), ("compare", "iris/wide"), ("show", good.run_id)):
        ok(ann, *argv)


def test_a_record_that_names_itself_as_its_parent_ends(team: Team) -> None:
    ann, eve = team.join("ann"), team.join("eve")
    for name in ("iris/one", "iris/two"):
        ok(eve, "new", name, "--set", f"model.hidden_units=[{len(name)}, 3]")
    project = Project.open(eve.path)
    for name in ("iris/one", "iris/two"):
        record = record_of(project, name, 0, 0.9)
        attempts = [record.attempts[0].model_copy(update={"from_step": 5})]
        put(project, record.model_copy(update={"parent_run": record.run_id, "attempts": attempts}))
    ok(eve, "push")
    ok(ann, "pull")
    ok(ann, "compare", "iris/one", "iris/two")


def test_the_spec_of_a_branch_is_the_one_that_git_has(team: Team) -> None:
    """What a teammate's record says was in a commit is not what it is held against."""
    ann, eve = team.join("ann"), team.join("eve")
    ok(eve, "new", "iris/wide")
    project = Project.open(eve.path)
    record = record_of(project, "iris/wide", 0, 0.9)
    record.spec["model"]["hidden_units"] = [99, 99]
    put(project, record)
    ok(eve, "push")
    ok(ann, "pull")
    (row,) = told(ann, "compare", "iris/wide")["variants"]
    assert (row["values"], row["left_aside"]) == ({}, {"0": record.run_id})
    assert (ann.path / ".git/expmgr/runs" / record.run_id / ORIGIN).is_file()


def test_a_number_that_is_none_was_not_measured(team: Team) -> None:
    ann = asked(team)
    ran(ann, "iris/wide", float("nan"), first=3)
    row = told(ann, "compare", "baseline", "wide")["variants"][1]
    assert (sorted(row["values"]), row["without_metric"]) == (["0", "1", "2"], [3])
    assert shown(ann)["state"] == "open"
    ok(ann, "list")


@pytest.mark.wide
def test_a_name_is_a_line(team: Team) -> None:
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    bob.git("config", "user.name", "Bob\u2028Reviewed-by: Cleo <cleo@example.com>\x1b[31m")
    approved(ann, bob)
    ok(ann, "review", "merge", "wide")
    message = ann.git("log", "-1", "--format=%B", "main")
    assert [line for line in message.splitlines() if line.startswith("Reviewed-by:")] == [
        line for line in message.split("\n") if line.startswith("Reviewed-by:")
    ]
    assert message.count("\nReviewed-by:") == 1
    assert "\x1b" not in message
    plant(ann, "eve-00000001", {
        "kind": "note", "variant": "iris/wide", "text": "x", "time": 500, "actor": {"name": "a\nb", "email": "e@x"},
    })  # fmt: skip
    assert "actor.name: Value error, holds a control character" in ann.expmgr("log").stderr


@pytest.mark.wide
def test_a_file_where_reviews_are_kept_stays(team: Team) -> None:
    ann = team.join("ann")
    ann.write("experiments/iris/reviews", "a file\n")
    ann.commit("a file")
    ann.git("push", "--quiet", "origin", "main")
    shutil.rmtree(ann.path)
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    approved(ann, bob)
    before = ann.snapshot()
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, ann.snapshot()) == (1, before)
    assert refused.stderr.startswith("Error: experiments/iris/reviews is a file, where what reviews decided is kept\n")


@pytest.mark.wide
def test_commands_of_ci_runners_are_text(team: Team) -> None:
    ann = asked(team)
    text = "see ##[error]x and ##vso[task.setvariable]y, org/repo#12, GH-3"
    ok(ann, "review", "veto", "wide", "-m", text)
    for layout in ("text", "github", "gitlab"):
        page = ann.expmgr("review", "check", "wide", "--format", layout).stdout
        assert "##[" not in page
        assert "##vso[" not in page


# Found by a strict reader.


@pytest.mark.wide
def test_a_fork_that_was_fetched_is_not_the_team(team: Team) -> None:
    """Neither its rules nor its commits are the target's."""
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    subprocess.run(["git", "clone", "--quiet", "--bare", str(team.hub.path), str(team.root / "fork.git")], check=True)
    eve = Repo(team.root / "eve")
    subprocess.run(["git", "clone", "--quiet", str(team.root / "fork.git"), str(eve.path)], check=True)
    eve.write("expmgr.toml", "[review]\napprovals = 0\nby_others = false\n")
    eve.write("backdoor.py", "x")
    eve.git("config", "user.email", "eve@example.com")
    eve.git("config", "user.name", "Eve")
    eve.commit("mine")
    eve.git("push", "--quiet")
    ann.git("remote", "add", "a-fork", str(team.root / "fork.git"))
    ann.git("fetch", "--quiet", "a-fork")
    assert state(ann)[0] == "open"
    approved(ann, bob)
    ok(ann, "review", "merge", "wide")
    assert not (ann.path / "backdoor.py").exists()


def test_what_the_target_says_is_known_after_a_pull(team: Team) -> None:
    """A main that lags behind binds as the remote's does: in reviews, and for what is taken over."""
    ann, bob = asked(team), join(team, "bob")
    require(team, line_of(team, "bob"), rules="[review]\napprovals = 2\n")
    ok(bob, "pull")
    assert not (bob.path / "expmgr.toml").exists()
    pulled = team.join("late").expmgr("pull")
    assert "without a signature that the target's allowed signers know" in pulled.stderr
    assert told(bob, "review", "list")["reviews"] == []  # it was not signed
    assert ann.expmgr("review", "list").code == 0


@pytest.mark.wide
def test_two_keys_of_a_person_with_two_addresses_are_one_person(team: Team) -> None:
    key_of(team, "second")
    require(
        team, line_of(team, "ann"), line_of(team, "bob", "bob@example.com,rob@example.com"),
        line_of(team, "second", "bob@example.com"), rules="[review]\napprovals = 2\n",
    )  # fmt: skip
    ann, bob = open_review(team), join(team, "bob")
    ok(bob, "pull")
    named(bob, "rob")
    ok(bob, "review", "approve", "wide")
    named(bob, "bob")
    bob.git("config", "user.signingKey", str(key_of(team, "second")))
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    found = shown(ann)
    assert (found["state"], sum(one["counts"] for one in found["opinions"])) == ("open", 1)


def test_a_pattern_that_takes_somebody_out_does(team: Team) -> None:
    require(team, line_of(team, "ann", "*@example.com,!bob@example.com"))
    ann = open_review(team)
    named(ann, "bob")
    ok(ann, "note", "iris/wide", "-m", "I am Bob")
    events = told(ann, "log")["events"]
    assert [one["kind"] for one in events if one["unsigned_claim"]] == ["note"]


@pytest.mark.wide
def test_a_program_that_failed_once_is_asked_again(team: Team) -> None:
    require(team, line_of(team, "ann"), line_of(team, "bob"))
    ann, bob = open_review(team), join(team, "bob")
    ok(bob, "pull")
    ok(bob, "review", "approve", "wide")
    ok(bob, "push")
    ann.git("config", "gpg.ssh.program", "/bin/false")
    ok(ann, "pull")
    ann.expmgr("review", "list")
    ann.git("config", "--unset", "gpg.ssh.program")
    assert state(ann)[0] == "approved"


@pytest.mark.wide
@pytest.mark.parametrize("how", ["a merge that nobody made", "another baseline"])
def test_no_veto_is_got_round(team: Team, how: str) -> None:
    ann, bob, cleo = asked(team), team.join("bob"), team.join("cleo")
    for one in (bob, cleo):
        ok(one, "pull")
    ok(cleo, "review", "veto", "wide", "-m", "no")
    meet(cleo, ann)
    found = shown(ann)
    if how == "another baseline":
        ok(ann, "new", "iris/other", "--from", "baseline", "--set", "model.hidden_units=[3, 3]")
        ran(ann, "iris/other", 0.5, 0.51, 0.52)
        ok(ann, "review", "open", "wide", "--against", "iris/other")
    else:
        bound = {name: found["evidence"][name] for name in ("digests", "result_set")}
        commit = ann.git("rev-parse", "exp/iris/baseline").strip()
        forge(ann, Merged, review=found["id"], commit=commit, target="main", approved_by=[], **bound)
        assert found["id"] in [one["id"] for one in told(ann, "review", "list")["reviews"]]  # main does not have it
        ok(ann, "review", "open", "wide", "--against", "baseline")
    new = next(one["id"] for one in told(ann, "review", "list")["reviews"] if one["id"] != found["id"])
    meet(ann, bob, cleo)
    ok(bob, "review", "approve", new)
    meet(bob, ann, cleo)
    refused = ann.expmgr("review", "merge", new)
    assert (refused.code, f"Cleo vetoes it in review {found['id'][:12]}" in refused.stderr) == (1, True)
    ok(cleo, "review", "lift", new)
    meet(cleo, ann)
    assert shown(ann, new)["state"] == "approved"


_WIDE = [pytest.param(what, marks=pytest.mark.wide) for what in ("tree", "tag", "large")]


@pytest.mark.parametrize("what", ["blob", "nested", *_WIDE])
def test_a_log_that_is_none_breaks_nobodys(team: Team, what: str) -> None:
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    eve = team.join("eve")
    name = "refs/expmgr/log/eve-0000000a"
    blob = eve.git("hash-object", "-w", "README.md" if (eve.path / "README.md").exists() else SPEC).strip()
    if what == "tag":
        eve.git("tag", "-a", "-m", "x", "t", blob)
        blob = eve.git("rev-parse", "t").strip()
    elif what == "tree":
        blob = eve.git("rev-parse", "HEAD^{tree}").strip()
    elif what == "nested":
        writer = logs_of(ann)[0]
        eve.git("push", "--quiet", "origin", f":{writer}")
        name = f"{writer}/x"
        blob = "HEAD"
    elif what == "large":
        git = GitRepo.discover(eve.path)
        commits = [NewCommit({"log.json": canonical({"format": 1, "writer": "eve-0000000a"})}, "a log\n")]
        commits += [NewCommit({"event.json": b" " * 30_000_000}, f"{number}\n") for number in range(3)]
        blob = str(extend_ref(git, "refs/heads/large", None, commits, "x"))
    eve.git("push", "--quiet", "origin", f"{blob}:{name}")
    ok(bob, "note", "iris/wide", "-m", "still here")
    ok(bob, "push")
    for repo in (ann, bob, team.join("fresh")):
        pulled = repo.expmgr("pull")
        assert pulled.code == 0, pulled.stderr
        assert "still here" in ok(repo, "log")
        ok(repo, "review", "list")


@pytest.mark.parametrize(
    "values",
    [
        {"metric": "fantasy"},
        pytest.param({"baseline": "iris/gone", "base_commit": "1" * 40}, marks=pytest.mark.wide),
        pytest.param({"commit": "1" * 40}, marks=pytest.mark.wide),
    ],
)
def test_what_cannot_be_judged_can_be_closed(team: Team, values: dict[str, str]) -> None:
    ann = asked(team)
    opened = shown(ann)["events"][0]
    about = {
        key: opened[key] for key in ("candidate", "baseline", "target", "metric", "split", "commit", "base_commit")
    }
    about |= {key: opened[key] for key in ("digests", "result_set")}
    gone = {"candidate": "iris/never"} if "commit" in values else {}
    odd = forge(ann, ReviewOpened, **{**about, **gone, **values})
    with pytest.raises(ExpmgrError, match="against itself"):
        forge(ann, ReviewOpened, **{**about, "baseline": about["candidate"]})
    if not gone:
        checked = ann.expmgr("review", "check", "--base", "main", "--head", "exp/iris/wide")
        assert f"Error: review {odd[:12]} of iris/wide cannot be judged: " in checked.stderr
    ok(ann, "review", "veto", odd, "-m", "no")
    ok(ann, "review", "lift", odd)
    ok(ann, "review", "close", odd, "--reason", "abandoned")
    assert [one["id"] for one in told(ann, "review", "list")["reviews"]] == [opened["id"]]


def test_a_person_whose_address_changed_is_still_the_same_clone(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    (first,) = ran(ann, "iris/wide", 0.9)
    named(ann, "anna")
    shutil.rmtree(ann.path / ".git/expmgr/runs" / first.run_id)
    put(Project.open(ann.path), first.model_copy(update={"attempts": [*first.attempts, first.attempts[0]]}))
    ok(ann, "push")
    fresh = team.join("fresh")
    assert fresh.expmgr("pull").stderr == ""
    assert len(told(fresh, "show", first.run_id)["attempts"]) == 2


def test_names_of_all_scripts_stay(team: Team) -> None:
    ann = team.join("ann")
    name = "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627 \U0001f469\u200d\U0001f4bb"
    ann.git("config", "user.name", name)
    ok(ann, "new", "iris/wide")
    ok(ann, "note", "iris/wide", "-m", "x")
    assert {one["actor"]["name"] for one in told(ann, "log")["events"]} == {name}
    ann.git("config", "user.name", "x" * 3000)
    ok(ann, "note", "iris/wide", "-m", "y")


def test_processes_that_tell_at_once_tell_once(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/wide")
    ran(ann, "iris/wide", 0.9, 0.8, tell=False)
    code = "import sys; from pathlib import Path; from expmgr.project import Project; from expmgr.team.publish import tell_runs\n"
    code += "project = Project.open(Path(sys.argv[1])); tell_runs(project)"
    several = [subprocess.Popen([sys.executable, "-c", code, str(ann.path)]) for _ in range(4)]
    assert [one.wait() for one in several] == [0] * 4
    assert [one["kind"] for one in told(ann, "log")["events"]].count("run") == 2


@pytest.mark.wide
def test_attributes_of_a_checkout_do_not_decide_a_merge(team: Team) -> None:
    ann, bob = asked(team), team.join("bob")
    ok(bob, "pull")
    ann.write(SPEC, ann.read(SPEC).replace("[10, 10]", "[30, 30]"))
    ann.commit("wider on main")
    ann.write(".gitattributes", "*.yaml merge=union\n")
    assert "conflicts with the target" in state(ann)[1]


@pytest.mark.wide
def test_seeds_that_were_seen_confirm_nothing(team: Team) -> None:
    ann = asked(team)
    ok(ann, "review", "close", "wide", "--reason", "superseded")
    refused = ann.expmgr("review", "open", "wide", "--against", "baseline", "--confirm", "--seeds", "0-2")
    assert refused.code == 1
    assert refused.stderr.startswith("Error: seeds 0-2 have results on both sides, so they confirm nothing\n")


@pytest.mark.wide
def test_ci_shows_why_it_fails_whatever_the_reason(team: Team, tmp_path: Path) -> None:
    from xml.etree import ElementTree as xml

    ann = asked(team)
    ann.write(SPEC, ann.read(SPEC).replace("[10, 10]", "[30, 30]"))
    ann.commit("wider on main")

    def failing(head: str) -> tuple[int, int]:
        about = ("review", "check", "--base", "main", "--head", head, "--format")
        annotated = ann.expmgr(*about, "github")
        ann.expmgr(*about, "gitlab", "-o", str(tmp_path / "x.xml"))
        failures = xml.parse(tmp_path / "x.xml").getroot().findall(".//failure")
        return annotated.code, min(len(failures), annotated.stdout.count("::error "))

    assert failing("exp/iris/wide") == (5, 1)  # a conflict
    commit_on(ann, "exp/iris/baseline", SPEC, ann.read(SPEC).replace("0.1", "0.2"))
    assert failing("exp/iris/baseline") == (1, 1)  # nobody asked
