"""Reviews between two clones, without TensorFlow: what a decision is bound to, who may take it, and what a merge needs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from clones import Team, approved, asked, at_once, commit_on, forge, logs_of, meet, ok, ran, refuses, shown, state, told
from expmgr.errors import BadArgument, ExpmgrError
from expmgr.log.events import Decided, ReviewOpened, Waived
from expmgr.project import Project
from expmgr.reviews import merging, votes
from expmgr.reviews.standing import EXPIRED
from expmgr.runs.record import DataSplit
from world import Repo

SPEC = "experiments/iris/spec.yaml"


@pytest.fixture
def ann(team: Team) -> Repo:
    return asked(team)


@pytest.fixture
def bob(team: Team, ann: Repo) -> Repo:
    repo = team.join("bob")
    ok(repo, "pull")
    return repo


# What it says.


def test_both_see_the_same(ann: Repo, bob: Repo) -> None:
    mine, theirs = shown(ann), shown(bob)
    for found in (mine, theirs):
        assert (found["state"], found["verdict"], found["author"]["email"]) == ("open", "better", "ann@example.com")
        assert [one["told"] for one in found["missing"]] == ["an approval by somebody whose work it is not"]
    for key in ("id", "sentence", "forest"):
        assert mine[key] == theirs[key]
    assert mine["evidence"]["result_set"] == theirs["evidence"]["result_set"]
    assert mine["evidence"]["digests"] == theirs["evidence"]["digests"]
    listed = ok(bob, "review", "list")
    assert listed.splitlines()[1].split()[:4] == [mine["id"][:12], "iris/wide", "iris/baseline", "open"]
    assert mine["id"] == mine["events"][0]["id"]
    again = ann.expmgr("review", "open", "wide", "--against", "baseline")
    assert (again.code, " of iris/wide against iris/baseline is open\n" in again.stderr) == (1, True)


def test_what_cannot_be_asked(ann: Repo) -> None:
    before = ann.snapshot()
    for argv, words in (
        (("open", "baseline"), "nothing says what iris/baseline is held against"),
        (("open", "wide", "--against", "wide"), "cannot be held against itself"),
        (("open", "nope", "--against", "wide"), "there is no variant nope"),
        (("show", "nope"), "there is no review nope"),
        (("show", "aa"), "there is no review aa"),
        (("comment", "wide", "-m", "x", "--on", "check:nope"), "there is no check nope"),
        (("comment", "wide", "-m", "x", "--on", "run:nope"), "there is no run nope"),
        (("comment", "wide", "-m", "x", "--on", f"{SPEC}:9999"), "no line of iris/wide"),
        (("resolve", "wide", "abc"), "there is no comment abc"),
        (("waive", "wide", "overlap", "-m", "x"), "overlap does not block"),
        (("lift", "wide"), "no verdict in review"),
        (("check", "--base", "nope", "--head", "HEAD"), "there is no commit nope"),
    ):
        result = ann.expmgr("review", *argv)
        assert result.code == 1, argv
        assert words in result.stderr
    refuses(ann, "review", "check", code=2, words="name a REVIEW, or both --base and --head")
    refuses(ann, "review", "comment", "wide", "-m", " ", code=2, words="the message is empty")
    refuses(ann, "review", "close", "wide", "--reason", "bored", code=2, words="'bored' is not")
    assert ann.snapshot() == before


@pytest.mark.parametrize(
    ("say", "command", "message"),
    [
        (lambda project: votes.comment(project, "wide", " "), ("comment", "wide", "-m", " "), "the message is empty"),
        (
            lambda project: votes.waive(project, "wide", "few-seeds", ""),
            ("waive", "wide", "few-seeds", "-m", ""),
            "the message is empty",
        ),
        (
            lambda project: votes.veto(project, "wide", "\n", print),
            ("veto", "wide", "-m", "\n"),
            "the message is empty",
        ),
        (
            lambda project: votes.close(project, "wide", "because", "", print),
            ("close", "wide", "--reason", "because"),
            "'because' is not a reason to close a review: no gain, worse, not comparable, superseded, abandoned",
        ),
    ],
    ids=["comment", "waive", "veto", "close"],
)
def test_what_is_no_message_or_no_reason_is_refused_in_python_and_on_the_terminal(
    ann: Repo, say: Callable[[Project], object], command: tuple[str, ...], message: str
) -> None:
    before = ann.snapshot()
    with pytest.raises(BadArgument) as error:
        say(Project.open(ann.path))
    assert (error.value.message, error.value.left_alone) == (message, "Nothing was changed.")
    result = ann.expmgr("review", *command)
    assert (result.code, result.stdout) == (2, "")
    assert f"Error: Invalid value: {message}" in " ".join(result.stderr.split())
    assert ann.snapshot() == before


def test_too_few_seeds_block_and_no_results_are_no_answer(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ok(ann, "review", "open", "wide", "--against", "baseline")
    result = ann.expmgr("review", "check", "wide")
    assert result.code == 1
    assert "iris/wide has no result for what would be merged: expmgr run iris/wide --seeds 0-2" in result.stdout
    ran(ann, "iris/baseline", 0.90, 0.91, 0.93)
    ran(ann, "iris/wide", 0.95, 0.97)
    result = ann.expmgr("review", "check", "wide")
    assert result.code == 5
    assert (
        "Blocks (few-seeds): iris/wide has 2 seeds; a verdict wants 3: expmgr run iris/wide --seeds 0-2"
        in result.stdout
    )
    assert state(ann)[1] == ["too few seeds"]
    ran(ann, "iris/wide", 0.96, first=2)
    assert ann.expmgr("review", "check", "wide").code == 0
    kinds = [one["kind"] for one in told(ann, "log")["events"] if one["kind"] == "check"]
    assert len(kinds) == 3
    ok(ann, "review", "check", "wide")  # the same again is not said again
    ok(ann, "review", "check", "wide", "--no-log")
    assert [one["kind"] for one in told(ann, "log")["events"] if one["kind"] == "check"] == kinds


@pytest.mark.wide
def test_words_are_on_something_and_settled(ann: Repo, bob: Repo) -> None:
    run = told(bob, "show", "iris/wide:0")["run_id"]
    for on in ("check:evaluation-noise", f"run:{run}", f"{SPEC}:3"):
        ok(bob, "review", "comment", "wide", "-m", f"about {on}", "--on", on)
    ok(bob, "review", "comment", "wide", "-m", "in general")
    meet(bob, ann)
    found = shown(ann)
    assert [one["on"] for one in found["comments"]] == ["check:evaluation-noise", f"run:{run}", f"{SPEC}:3", None]
    assert found["remarks"] == ["4 open comments"]
    for one in found["comments"][1:]:
        ok(ann, "review", "resolve", "wide", one["id"][:12])
    assert shown(ann)["remarks"] == ["1 open comment"]
    assert "(resolved by Ann): in general\n" in ok(ann, "review", "show", "wide")
    # What was said too quickly is taken back by who said it.
    first = found["comments"][0]["id"]
    refuses(ann, "retract", first, "-m", "no", code=1, words="Bob")
    ok(bob, "retract", first, "-m", "never mind")
    assert len(shown(bob)["comments"]) == 3


# Who decides.


def test_nobody_approves_their_own_work(ann: Repo, bob: Repo) -> None:
    before = ann.snapshot()
    refused = ann.expmgr("review", "approve", "wide")
    assert refused.code == 1
    assert refused.stderr.startswith("Error: Ann approves their own work: it takes somebody else\n")
    assert ann.snapshot() == before
    # Nor who wrote one of its commits.
    commit_on(bob, "exp/iris/wide", "experiments/iris/README.md", "wider\n")
    assert "Bob approves their own work" in bob.expmgr("review", "approve", "wide").stderr
    # Nor somebody without a name.
    bob.git("branch", "--quiet", "--force", "exp/iris/wide", "exp/iris/wide~1")
    bob.write(".git/expmgr/config.toml", "record_user = false\n")
    assert "nobody approves a review without a name" in bob.expmgr("review", "approve", "wide").stderr


@pytest.mark.wide
def test_the_rules_are_those_of_the_target_branch(ann: Repo, bob: Repo) -> None:
    """On the variant's branch, and in one's own checkout, they bind nobody."""
    free = "[tool.expmgr.review]\napprovals = 0\nby_others = false\n"
    commit_on(ann, "exp/iris/wide", "pyproject.toml", free)
    ann.write("pyproject.toml", free)
    assert ann.expmgr("review", "merge", "wide").code == 1
    assert ann.expmgr("review", "approve", "wide").code == 1
    (ann.path / "pyproject.toml").unlink()
    commit_on(ann, "exp/iris/wide", "pyproject.toml", None)
    ann.write("pyproject.toml", "[tool.expmgr.review]\napprovals = 2\n")
    ann.commit("two of us")
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    assert (state(ann)[0], state(bob)[0]) == ("open", "approved")  # Bob does not know the rule yet
    ann.write("pyproject.toml", "[tool.expmgr.review]\napprovals = 1\nby_others = false\n")
    ann.commit("one is enough")
    ok(ann, "review", "approve", "wide")
    assert [one["counts"] for one in shown(ann)["opinions"]] == [True, True]
    ok(ann, "review", "merge", "wide")


def test_a_setting_that_is_misspelt_is_said(ann: Repo) -> None:
    ann.write("pyproject.toml", "[tool.expmgr.review]\napproval = 2\n")
    ann.commit("a rule")
    result = ann.expmgr("review", "show", "wide")
    assert result.code == 1
    assert "unknown setting review.approval" in result.stderr
    assert "did you mean approvals?" in result.stderr


def test_an_approval_expires_with_what_it_was_given_for(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    # Prose and a rebase change nothing.
    commit_on(ann, "exp/iris/wide", "experiments/iris/NOTES.md", "typo\n")
    ann.write("README.md", "the team's\n")
    ann.commit("prose on main")
    before = ann.git("rev-parse", "exp/iris/wide")
    ann.git("rebase", "--quiet", "main", "exp/iris/wide")
    ann.git("switch", "--quiet", "main")
    assert ann.git("rev-parse", "exp/iris/wide") != before
    assert state(ann)[0] == "approved"
    # A new result does.
    ran(ann, "iris/wide", 0.5, first=3)
    assert state(ann) == ("open", ["approval expired"])
    (opinion,) = shown(ann)["opinions"]
    assert (opinion["counts"], opinion["because"]) == (False, "was given for other code or other results")
    refused = ann.expmgr("review", "merge", "wide")
    assert refused.code == 1
    assert "Bob's was given for other code or other results" in refused.stderr
    ann.git("push", "--quiet", "--force", "origin", "exp/iris/wide")
    bob.git("fetch", "--quiet", "origin")
    bob.git("branch", "--quiet", "--force", "exp/iris/wide", "origin/exp/iris/wide")
    meet(ann, bob)
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    assert state(ann)[0] == "approved"
    # And so does other code.
    commit_on(ann, "exp/iris/wide", SPEC, ann.git("show", f"exp/iris/wide:{SPEC}").replace("[20, 20]", "[21, 20]"))
    assert state(ann) == ("open", ["no results for what would be merged", "stale", "approval expired"])


@pytest.mark.wide
def test_a_veto_holds_until_its_author_lifts_it(ann: Repo, bob: Repo, team: Team) -> None:
    cleo = team.join("cleo")
    ok(cleo, "pull")
    ok(cleo, "review", "veto", "wide", "-m", "the rows are of one day")
    ok(bob, "review", "approve", "wide")
    meet(bob, cleo, ann)
    meet(bob, cleo, ann)
    assert state(ann) == ("open", ["verdicts contradict each other"])
    ran(ann, "iris/wide", 0.96, first=3)  # nor does a new result end it
    meet(ann, bob)
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, "Cleo vetoes it, until they lift that: the rows are of one day" in refused.stderr) == (
        1,
        True,
    )
    assert ann.expmgr("review", "lift", "wide").code == 1
    ok(cleo, "review", "lift", "wide", "-m", "they are not")
    meet(cleo, ann)
    assert state(ann)[0] == "approved"
    # Whoever approves has lifted, too; who lifts an approval has none.
    ok(bob, "review", "lift", "wide")
    meet(bob, ann)
    assert state(ann)[0] == "open"


@pytest.mark.wide
def test_a_block_is_waived_by_somebody_else_and_for_these_results(ann: Repo, bob: Repo) -> None:
    ok(ann, "new", "iris/few", "--from", "baseline", "--set", "model.hidden_units=[9, 9]")
    ran(ann, "iris/few", 0.95, 0.97)
    ok(ann, "review", "open", "few", "--against", "baseline")
    assert "Ann waives a check of their own work" in ann.expmgr("review", "waive", "few", "few-seeds", "-m", "x").stderr
    meet(ann, bob)
    ok(bob, "review", "waive", "few", "few-seeds", "-m", "one run takes a week")
    ok(bob, "review", "approve", "few")
    assert bob.expmgr("review", "check", "few").code == 0
    meet(bob, ann)
    found = shown(ann, "few")
    (check,) = [one for one in found["checks"] if one["id"] == "few-seeds"]
    assert (check["answer"], check["waived"]["text"], found["state"]) == ("block", "one run takes a week", "approved")
    assert "Waived by Bob, one run takes a week (few-seeds): " in ok(ann, "review", "show", "few")
    ran(ann, "iris/few", 0.95, tell=True, first=0)  # the same seed once more: another result set
    assert ann.expmgr("review", "check", "few").code == 5
    refused = ann.expmgr("review", "merge", "few")
    assert (refused.code, "few-seeds: iris/few has 2 seeds" in refused.stderr) == (5, True)


# What would be merged.


def test_a_change_on_the_target_that_reaches_it_makes_results_stale(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    path = "experiments/iris/iris_training.csv"
    rows = ann.read(path).splitlines()
    ann.write(path, "\n".join(rows[:-9]) + "\n")
    ann.commit("fewer rows on main")
    found = shown(ann)
    assert found["remarks"][:2] == ["no results for what would be merged", "the target changes what it is made of"]
    assert found["evidence"]["moved"] == [path]
    result = ann.expmgr("review", "check", "wide")
    assert result.code == 1
    assert f"iris/wide has no result for what would be merged, with {path} as main has it" in result.stdout
    refused = ann.expmgr("review", "merge", "wide")
    assert refused.code == 5
    assert ann.git("log", "--format=%s", "-1").strip() == "fewer rows on main"


@pytest.mark.wide
def test_data_outside_of_the_experiments_folder_counts_too(team: Team) -> None:
    ann = team.join("ann")
    ann.write("data/train.csv", ann.read("experiments/iris/iris_training.csv"))
    ann.write(SPEC, ann.read(SPEC).replace("train: iris_training.csv", "train: ../../data/train.csv"))
    ann.commit("data for all")
    ok(ann, "new", "iris/baseline")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    data = {
        "train": DataSplit(path="data/train.csv", rows=2000, sha256="a" * 64),
        "eval": DataSplit(path="experiments/iris/iris_test.csv", rows=50_000, sha256="b" * 64, also_in_train=0),
    }
    ran(ann, "iris/baseline", 0.90, 0.91, 0.93, data=data)
    ran(ann, "iris/wide", 0.95, 0.97, 0.96, data=data)
    ok(ann, "review", "open", "wide", "--against", "baseline")
    assert ann.expmgr("review", "check", "wide").code == 0
    ann.write("data/train.csv", "\n".join(ann.read("data/train.csv").splitlines()[:-5]) + "\n")
    ann.commit("fewer rows")
    assert shown(ann)["evidence"]["moved"] == ["data/train.csv"]
    assert ann.expmgr("review", "check", "wide").code == 1


@pytest.mark.parametrize("pointer", ["data/train.csv.dvc", "data.dvc"])
def test_what_dvc_keeps_counts_by_its_pointer(team: Team, pointer: str) -> None:
    ann = team.join("ann")
    ann.write(pointer, "outs:\n- md5: aaa\n")
    ann.commit("a pointer")
    ok(ann, "new", "iris/baseline")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    data = {
        "train": DataSplit(path="data/train.csv", rows=2000, sha256="a" * 64),
        "eval": DataSplit(path="eval.csv", rows=50_000, sha256="b" * 64, also_in_train=0),
    }
    ran(ann, "iris/baseline", 0.90, 0.91, 0.93, data=data)
    ran(ann, "iris/wide", 0.95, 0.97, 0.96, data=data)
    ok(ann, "review", "open", "wide", "--against", "baseline")
    assert ann.expmgr("review", "check", "wide").code == 0
    ann.write(pointer, "outs:\n- md5: bbb\n")
    ann.commit("other data")
    assert shown(ann)["evidence"]["moved"] == [pointer]


def test_a_conflict_is_refused_with_the_files(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    ann.write(SPEC, ann.read(SPEC).replace("[10, 10]", "[30, 30]"))
    ann.commit("wider on main")
    before = ann.snapshot()
    refused = ann.expmgr("review", "merge", "wide")
    assert refused.code == 5
    assert f"it conflicts with main in {SPEC}: git switch exp/iris/wide; git merge main" in refused.stderr
    assert ann.snapshot() == before
    assert "conflicts with the target" in state(ann)[1]


def test_merged_where_the_target_is_checked_out(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    review = shown(ann)["id"]
    ann.write("data.txt", "not mine to touch\n")  # untracked
    ann.write(SPEC, ann.read(SPEC) + "# a change\n")
    before = ann.snapshot()
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, ann.snapshot()) == (1, before)
    assert refused.stderr == (
        f"Error: main is checked out in {ann.path}, with changes that are not committed\n  {SPEC}\nNothing was changed.\n"
        f"Hint: git -C {ann.path} stash; expmgr review merge {review[:12]}; git -C {ann.path} stash pop\n"
    )
    ann.git("checkout", "--quiet", SPEC)
    done = told(ann, "review", "merge", "wide")
    assert done["commit"] == ann.git("rev-parse", "main").strip()
    assert ann.git("status", "--porcelain") == "?? data.txt\n"
    assert "hidden_units: [20, 20]" in ann.read(SPEC)
    message = ann.git("log", "-1", "--format=%B", "main")
    found = shown(ann)
    assert message.startswith("Merge iris/wide: better by ")
    assert message.rstrip().splitlines()[-4:] == [
        "Experiment: iris/wide",
        f"Experiment-Review: {review}",
        f"Result-Set: {found['evidence']['result_set']}",
        "Reviewed-by: Bob <bob@example.com>",
    ]
    kept = json.loads(ann.read(f"experiments/iris/reviews/{review[:12]}.json"))
    assert (kept["id"], kept["sentence"], kept["state"]) == (review, found["sentence"], "approved")
    assert kept["evidence"]["comparison"]["variants"][1]["values"] == {"0": 0.95, "1": 0.97, "2": 0.96}
    assert [one["kind"] for one in kept["events"]] == ["review.open", "verdict"]
    assert ann.read(f"experiments/iris/reviews/{review[:12]}.md").startswith(f"<!-- expmgr-review: {review} -->\n")
    # What was decided is no code: nobody's results are stale for it.
    assert told(ann, "compare", "baseline", "wide")["variants"][1]["left_aside"] == {}
    again = ann.expmgr("review", "merge", "wide")
    assert (again.code, f"review {review[:12]} of iris/wide is merged" in again.stderr) == (1, True)


def test_merged_where_it_is_not_checked_out(ann: Repo, bob: Repo) -> None:
    """Neither checkout, index nor HEAD move, whatever lies there."""
    approved(ann, bob)
    ann.git("switch", "--quiet", "exp/iris/baseline")
    ann.write(SPEC, "half an edit")
    ann.write("staged.txt", "staged")
    ann.git("add", "staged.txt")
    before = ann.snapshot()
    ok(ann, "review", "merge", "wide")
    after = ann.snapshot()
    assert {key for key in before if before[key] != after[key]} == {"refs"}
    assert "hidden_units: [20, 20]" in ann.git("show", f"main:{SPEC}")
    assert len(ann.git("rev-list", "--parents", "-1", "main").split()) == 3


def test_what_would_be_overwritten_stays(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    name = f"experiments/iris/reviews/{shown(ann)['id'][:12]}.md"
    ann.write(name, "mine, untracked")
    before = ann.snapshot()
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, ann.snapshot()) == (1, before)
    assert "git cannot move it on" in refused.stderr
    assert "would be overwritten" in refused.stderr


def test_a_merge_that_the_log_does_not_know_is_told_later(
    ann: Repo, bob: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(ann, bob)

    def fails(*_: object, **__: object) -> None:
        raise ExpmgrError("the disk is full")

    monkeypatch.setattr(merging, "tell", fails)
    ok(ann, "review", "merge", "wide")
    monkeypatch.undo()
    tip = ann.git("rev-parse", "main")
    assert state(ann)[0] != "merged"
    assert "was merged into main before" in ok(ann, "review", "merge", "wide")
    assert (state(ann)[0], ann.git("rev-parse", "main")) == ("merged", tip)


def test_a_target_that_moves_meanwhile_is_never_moved_back(
    ann: Repo, bob: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(ann, bob)
    ann.git("switch", "--quiet", "exp/iris/baseline")
    real = merging.write_merge

    def slow(*args: object) -> object:
        commit_on(ann, "main", "README.md", "somebody was quicker\n")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(merging, "write_merge", slow)
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, "main was moved by something else meanwhile" in refused.stderr) == (1, True)
    assert ann.git("show", "main:README.md") == "somebody was quicker\n"
    monkeypatch.undo()
    ok(ann, "review", "merge", "wide")
    assert ann.git("show", "main:README.md") == "somebody was quicker\n"


def test_a_merge_goes_on_from_what_the_remote_has(ann: Repo, bob: Repo) -> None:
    """A local main that lags behind is moved on to the remote's first, so that it can be pushed."""
    approved(ann, bob)
    bob.write("README.md", "by Bob\n")
    bob.commit("prose")
    bob.git("push", "--quiet", "origin", "main")
    ann.git("fetch", "--quiet", "origin")
    ok(ann, "review", "merge", "wide")
    ann.git("push", "--quiet", "origin", "main")
    assert ann.read("README.md") == "by Bob\n"


# A no is kept, too.


def test_a_candidate_that_is_turned_down_is_kept(ann: Repo, bob: Repo, team: Team) -> None:
    sentence = shown(bob)["sentence"]
    ok(bob, "review", "close", "wide", "--reason", "no gain", "-m", "twice the parameters for nothing")
    refuses(bob, "review", "approve", "wide", code=1, words="of iris/wide is closed")
    meet(bob, ann)
    ok(ann, "push")
    ann.git("push", "--quiet", "origin", "--delete", "exp/iris/wide")
    cleo = team.join("cleo")
    ok(cleo, "pull")
    found = shown(cleo)
    assert (found["state"], found["remarks"], found["sentence"]) == ("closed", ["no gain"], sentence)
    assert found["evidence"]["comparison"]["variants"][1]["values"] == {"0": 0.95, "1": 0.97, "2": 0.96}
    assert "closed (no gain) by Bob, " in ok(cleo, "review", "show", "wide")
    assert ok(cleo, "review", "list", "--all").splitlines()[1].split()[3] == "closed"
    assert cleo.expmgr("review", "list").stderr == "no review is open; --all shows those that were decided\n"
    # Asked again it is another review.
    ok(ann, "review", "open", "wide", "--against", "baseline")
    assert len(told(ann, "review", "list", "--all")["reviews"]) == 2
    assert shown(ann)["state"] == "open"


@pytest.mark.wide
def test_it_is_there_after_rebase_squash_deletion_and_gc(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    before = shown(ann)
    ok(ann, "review", "merge", "wide")
    meet(ann, bob)
    for repo in (ann, bob):
        repo.git("switch", "--quiet", "main")
        repo.git("branch", "--quiet", "-D", "exp/iris/wide")
        if repo is ann:  # the merge is squashed away
            repo.git("reset", "--quiet", "--hard", "HEAD~1")
        repo.git("reflog", "expire", "--expire=all", "--all")
        repo.git("gc", "--quiet", "--prune=now")
        found = shown(repo)
        assert (found["state"], found["sentence"], found["id"]) == ("merged", before["sentence"], before["id"])
        assert repo.git("cat-file", "-t", found["ended"]["merge"]).strip() == "commit"


def test_a_branch_that_is_gone_is_looked_at_as_it_was(ann: Repo, bob: Repo) -> None:
    approved(ann, bob)
    ann.git("branch", "--quiet", "-D", "exp/iris/wide")
    found = shown(ann)
    assert found["verdict"] == "better"
    refused = ann.expmgr("review", "merge", "wide")
    assert (refused.code, "the branch exp/iris/wide is not here: expmgr pull" in refused.stderr) == (1, True)


# For CI.


def test_ci_finds_the_review_of_what_would_be_merged(
    ann: Repo, bob: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*argv: str, head: str = "exp/iris/wide") -> tuple[int, str]:
        result = bob.expmgr("review", "check", "--base", "main", "--head", head, *argv)
        return result.code, result.stdout

    refs = bob.git("for-each-ref")
    assert check()[0] == 0
    found = json.loads(check("--format", "json")[1])
    assert (found["exit_code"], [one["candidate"] for one in found["reviews"]]) == (0, ["iris/wide"])
    suites = xml.fromstring(check("--format", "junit")[1].encode())
    (suite,) = suites
    assert (suite.get("tests"), suite.get("failures")) == ("24", "0")
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    text = check("--format", "github")[1]
    assert "::notice file=experiments/iris/spec.yaml,title=iris/wide%3A checkpoint::" in text
    assert summary.read_text().startswith(f"<!-- expmgr-review: {found['reviews'][0]['id']} -->\n# iris/wide")
    ok(
        bob,
        "review",
        "check",
        "--base",
        "main",
        "--head",
        "exp/iris/wide",
        "--format",
        "gitlab",
        "-o",
        str(tmp_path / "x.xml"),
    )
    assert xml.parse(tmp_path / "x.xml").getroot().tag == "testsuites"
    assert bob.git("for-each-ref") == refs  # it only looks
    # No review is of this; and nothing of an experiment changes there.
    commit_on(bob, "exp/iris/baseline", SPEC, bob.git("show", f"exp/iris/baseline:{SPEC}").replace("0.1", "0.2"))
    lost = bob.expmgr("review", "check", "--base", "main", "--head", "exp/iris/baseline")
    assert (lost.code, "iris would change, and no open review is of " in lost.stderr) == (1, True)
    bob.git("branch", "--quiet", "prose", "main")
    commit_on(bob, "prose", "README.md", "words\n")
    assert check(head="prose") == (0, "no experiment would change\n")
    # A block is a failure.
    bob.git("branch", "--quiet", "--force", "exp/iris/baseline", "exp/iris/baseline~1")
    rows = DataSplit(path="eval.csv", rows=9, sha256="c" * 64)
    ran(bob, "iris/wide", 0.95, 0.96, 0.97, data={"train": rows, "eval": rows})
    code, text = check("--format", "junit")
    failures = [one.get("type") for one in xml.fromstring(text.encode()).findall(".//failure")]
    assert (code, "evaluated-rows" in failures) == (5, True)
    assert (
        "::error file=experiments/iris/spec.yaml,title=iris/wide%3A evaluated-rows::" in check("--format", "github")[1]
    )


HOSTILE = "**bold** <img src=x onerror=alert(1)> `x` | @everyone #1\n::error::no\n```\n# heading\x1b[31m\u202e"


def test_what_people_write_is_never_markup(ann: Repo, bob: Repo) -> None:
    bob.git("config", "user.name", "Bob **b** @bob <i>")
    ok(bob, "review", "comment", "wide", "-m", HOSTILE, "--on", f"{SPEC}:1")
    ok(bob, "review", "veto", "wide", "-m", HOSTILE)
    page = ok(bob, "review", "show", "wide", "--md")
    outside, is_inside = [], ""
    for line in page.splitlines():
        fence = line[: len(line) - len(line.lstrip("`"))]
        if not is_inside and len(fence) >= 3:
            is_inside = fence
        elif is_inside and line == is_inside:
            is_inside = ""
        elif not is_inside:
            outside.append(line)
    assert is_inside == ""
    said = "\n".join(outside)
    assert "<img" not in said
    assert "@everyone" not in said
    assert "@bob" not in said
    assert "<i>" not in said
    assert "Bob \\*\\*b\\*\\* @<!-- -->bob" in said
    text = ok(bob, "review", "show", "wide")
    for where in (page, text, bob.expmgr("review", "show", "wide", "--json").stdout):
        assert "\x1b" not in where
        assert "\u202e" not in where
    assert [line for line in text.splitlines() if line.startswith("::")] == []
    github = bob.expmgr("review", "check", "wide", "--format", "github").stdout
    assert [line for line in github.splitlines() if line.startswith("::error::")] == []
    xml.fromstring(bob.expmgr("review", "check", "wide", "--format", "junit").stdout.encode())


# Who says it.


@pytest.mark.wide
def test_what_a_hostile_hand_writes_breaks_nothing(ann: Repo, bob: Repo) -> None:
    opened = told(ann, "review", "show", "wide")
    bound = {"digests": "0" * 64, "result_set": "0" * 64}
    good = opened["evidence"]["digests"], opened["evidence"]["result_set"]
    about = {
        "candidate": "iris/wide", "baseline": "iris/baseline", "metric": "accuracy", "split": "eval",
        "commit": opened["events"][0]["commit"], "base_commit": opened["events"][0]["base_commit"], **bound,
    }  # fmt: skip
    # A review into a branch whose rules its author wrote, one of a commit that nobody has, one by a metric of fantasy.
    commit_on(bob, "exp/iris/baseline", "pyproject.toml", "[tool.expmgr.review]\napprovals = 0\nby_others = false\n")
    mine = forge(bob, ReviewOpened, **{**about, "target": "exp/iris/baseline"})
    forge(bob, ReviewOpened, **{**about, "target": "main", "candidate": "iris/none", "commit": "1" * 40})
    forge(bob, ReviewOpened, **{**about, "target": "main", "metric": "fantasy"})
    refused = bob.expmgr("review", "merge", mine)
    assert "it was opened for exp/iris/baseline, and variants are merged into main" in refused.stderr
    for target in ("main~1", "../main", "-x", "a b", "HEAD.lock", "a..b", ""):
        with pytest.raises(ExpmgrError):
            forge(bob, ReviewOpened, **{**about, "target": target})
    # Verdicts on other digests, on reviews that are not there; an end with nonsense beside it.
    verdict = {"verdict": "approve", "commit": about["commit"], **bound}
    forge(bob, Decided, review=opened["id"], **verdict)
    forge(bob, Decided, review="f" * 64, **verdict)
    forge(bob, Waived, review=opened["id"], check="nope", told="", reason="x", digests=good[0], result_set=good[1])
    for content in (b"no JSON", b"[]", b'{"id": 7}', json.dumps({"id": mine, "checks": [1], "forest": "x"}).encode()):
        forge(bob, Decided, {"review.json": content}, review=mine, **{**verdict, "verdict": "close", "reason": "worse"})
        ok(bob, "review", "show", mine)
    with pytest.raises(ExpmgrError):
        forge(bob, Decided, review=mine, **{**verdict, "commit": "--upload-pack=x"})
    ok(bob, "push")
    ok(ann, "pull")
    listed = ann.expmgr("review", "list", "--all")
    assert (listed.code, len(listed.stdout.splitlines())) == (0, 3), listed.stderr
    assert listed.stderr.count(" was skipped: ") == 2
    found = shown(ann, opened["id"])
    assert (found["state"], [one["because"] for one in found["opinions"]]) == ("open", [EXPIRED])
    assert ann.expmgr("review", "merge", opened["id"]).code == 1
    ok(ann, "log", "--limit", "99")


@pytest.mark.wide
def test_a_forged_approval_does_not_count_where_signatures_are_required(team: Team) -> None:
    keys = {}
    for name in ("ann", "bob"):
        keys[name] = team.root / f"{name}.key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys[name])], check=True)
    ann = team.join("ann", gpg_format="ssh", user_signingKey=str(keys["ann"]))
    lines = [f"{name}@example.com {keys[name].with_suffix('.key.pub').read_text().strip()}\n" for name in keys]
    ann.write(".expmgr/allowed_signers", "".join(lines))
    ann.write("expmgr.toml", 'signing = "require"\n')
    ann.commit("signers")
    ann.git("push", "--quiet", "origin", "main")
    ok(ann, "new", "iris/baseline")
    ok(ann, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ran(ann, "iris/baseline", 0.90, 0.91, 0.93)
    ran(ann, "iris/wide", 0.95, 0.97, 0.96)
    ok(ann, "review", "open", "wide", "--against", "baseline")
    # Ann says that she is Bob. It is signed with her key; and no setting of hers makes it count.
    ann.git("config", "user.email", "bob@example.com")
    ok(ann, "review", "approve", "wide")
    ann.git("config", "user.email", "ann@example.com")
    assert (state(ann)[0], shown(ann)["opinions"]) == ("open", [])
    ann.write(".git/expmgr/config.toml", 'signing = "off"\n')
    assert state(ann)[0] == "open"
    assert ann.expmgr("review", "merge", "wide").code == 1
    (ann.path / ".git/expmgr/config.toml").unlink()
    # With `warn` it is shown as what it is.
    ann.write("expmgr.toml", 'signing = "warn"\n')
    ann.commit("we trust each other")
    found = shown(ann)
    assert found["unsigned_claims"] == [found["opinions"][0]["id"]]
    assert "not signed by whom they name: " in ok(ann, "review", "show", "wide")
    ann.write("expmgr.toml", 'signing = "require"\n')
    ann.commit("not that much")
    ok(ann, "push")
    ann.git("push", "--quiet", "origin", "main")
    bob = team.join("bob", gpg_format="ssh", user_signingKey=str(keys["bob"]))
    ok(bob, "pull")
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    ok(ann, "review", "merge", "wide")


@pytest.mark.wide
def test_two_who_decide_at_once_lose_nothing(ann: Repo, bob: Repo, team: Team) -> None:
    """Three clones, and three processes in one of them; then all push in the same moment."""
    cleo = team.join("cleo")
    ok(cleo, "pull")
    said = at_once(
        (bob, ("review", "approve", "wide")),
        (cleo, ("review", "veto", "wide", "-m", "no")),
        *((ann, ("review", "comment", "wide", "-m", f"and {number}?")) for number in range(3)),
    )
    assert [(one.code, one.stderr) for one in said] == [(0, "Next: expmgr push\n")] * 5
    assert len(shown(ann)["comments"]) == 3
    pushed = at_once(*((repo, ("push",)) for repo in (ann, bob, cleo)))
    assert [one.code for one in pushed] == [0] * 3, pushed
    assert ["pushed to origin: " in one.stdout for one in pushed] == [True] * 3, pushed
    for one in (ann, bob, cleo):
        ok(one, "pull")
    found = [shown(one) for one in (ann, bob, cleo)]
    assert [one["events"] for one in found[1:]] == [found[0]["events"]] * 2
    assert sorted(one["text"] for one in found[0]["comments"]) == ["and 0?", "and 1?", "and 2?"]
    assert {(one["verdict"], one["by"]["name"]) for one in found[0]["opinions"]} == {
        ("approve", "Bob"),
        ("veto", "Cleo"),
    }
    assert len({tuple(logs_of(one)) for one in (ann, bob, cleo)}) == 3


@pytest.mark.wide
def test_of_three_who_merge_at_once_one_does(ann: Repo, bob: Repo) -> None:
    """In one clone: the target gets one merge, and the other process says what became of it."""
    approved(ann, bob)
    before = ann.git("rev-list", "--count", "--first-parent", "main").strip()
    done = at_once(*((ann, ("review", "merge", "wide")) for _ in range(3)))
    codes = [one.code for one in done]
    assert codes.count(0) >= 1, done
    assert set(codes) <= {0, 1}, done
    assert [one.stderr for one in done if one.code and not one.stderr.startswith("Error: ")] == []
    assert int(ann.git("rev-list", "--count", "--first-parent", "main")) == int(before) + 1
    assert state(ann)[0] == "merged"
    assert ann.git("status", "--porcelain") == ""
    assert ann.git("fsck", "--strict", "--no-dangling") == ""


# What came up when others tried it.


@pytest.mark.wide
def test_a_merge_that_the_target_lost_is_said_and_made_again(ann: Repo, bob: Repo) -> None:
    """The push of main was refused, and a rebase dropped the merge; the log says merged all the same."""
    approved(ann, bob)
    first = told(ann, "review", "merge", "wide")["commit"]
    bob.write("README.md", "somebody was quicker\n")
    bob.commit("quicker")
    bob.git("push", "--quiet", "origin", "main")
    meet(ann, bob)
    assert state(bob) == ("merged", ["main here does not have it"])
    ann.git("pull", "--quiet", "--rebase", "origin", "main")
    assert ann.git("log", "-1", "--format=%s").strip() != "quicker"  # the candidate's commits came along, the merge not
    ann.git("reset", "--quiet", "--hard", "origin/main")
    text = ok(ann, "review", "show", "wide")
    assert (
        f"missing: main here does not have the merge {first[:12]}: git pull, if it was pushed; else expmgr review"
        in text
    )
    again = told(ann, "review", "merge", "wide")["commit"]
    assert again != first
    ann.git("push", "--quiet", "origin", "main")
    meet(ann, bob)
    bob.git("pull", "--quiet")
    for repo in (ann, bob):
        assert (state(repo), shown(repo)["ended"]["merge"]) == (("merged", []), again)
    assert ann.expmgr("review", "merge", "wide").code == 1


def test_a_list_says_who_vetoed_and_what_nobody_approved(ann: Repo, bob: Repo) -> None:
    assert "not approved" in ok(ann, "review", "list")
    ok(bob, "review", "veto", "wide", "-m", "no")
    assert ",vetoed by Bob," in ok(bob, "review", "list", "--csv")


@pytest.mark.wide
def test_pull_shows_what_others_said(ann: Repo, bob: Repo) -> None:
    ok(bob, "review", "approve", "wide", "-m", "fine")
    ok(bob, "push")
    review = shown(ann)["id"]
    assert ok(ann, "pull").splitlines()[1] == f"  Bob: approve review {review[:12]}: fine"
    refused = bob.expmgr("review", "open", "wide", "--against", "baseline")
    assert refused.stderr.splitlines()[-1] == (
        f"Hint: expmgr review show {review[:12]}; to ask otherwise: expmgr review close {review[:12]} --reason superseded"
    )
    # What was said of a variant is in its log, reviews too.
    assert "approve review" in ok(ann, "log", "iris/wide")
    assert "approve review" in ok(ann, "log", "iris/baseline")


@pytest.mark.wide
def test_twice_is_said(ann: Repo, bob: Repo) -> None:
    ok(bob, "review", "comment", "wide", "-m", "why?", "--on", "run:iris/wide:1")
    (comment,) = shown(bob)["comments"]
    assert comment["on"] == f"run:{told(bob, 'show', 'iris/wide:1')['run_id']}"
    ok(bob, "review", "resolve", "wide", comment["id"])
    assert "Error: Bob has settled " in bob.expmgr("review", "resolve", "wide", comment["id"]).stderr
    ok(bob, "retract", comment["id"], "-m", "x")
    assert " was taken back before\n" in bob.expmgr("retract", comment["id"], "-m", "x").stderr


def test_what_the_log_cannot_say_is_said(team: Team) -> None:
    ann = team.join("ann", gpg_format="ssh", user_signingKey="/nowhere/key")
    ann.write("expmgr.toml", 'signing = "require"\n')
    ann.commit("signatures bind")
    made = ann.expmgr("new", "iris/wide")
    assert made.code == 0
    assert "Note: the log does not say it yet: git could not sign with your key; push says it, once that is mended" in (
        made.stderr.splitlines()
    )
