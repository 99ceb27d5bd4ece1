"""What commands say when something goes wrong, and the exit code that they end with."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

import expmgr
from clones import Team, asked, ok, ran, saved, told
from expmgr.comparison.differences import differences_of
from expmgr.errors import WORST_FIRST, ExitCode, ExpmgrError, did_you_mean, worst
from expmgr.launch.detached import DetachedFailed
from expmgr.project import Project
from world import ROOT, Repo


def test_the_worst_of_several_exit_codes() -> None:
    assert sorted(WORST_FIRST) == sorted(ExitCode)
    for code in ExitCode:
        assert worst([code, 0]) == worst([0, code]) == code
    for one, two in permutations(ExitCode, 2):
        assert worst([one, two]) == min(one, two, key=WORST_FIRST.index)
    assert worst([]) == ExitCode.DONE
    # What no table has, such as the number of a signal, is never taken for well.
    assert worst([-9, 0]) == worst([0, 137]) == worst([64]) == ExitCode.BUG


def test_what_was_done_before_is_left_out_of_what_was_left_alone() -> None:
    error = ExpmgrError("no", left_alone="Nothing was changed on disk.")
    error.after([])
    assert error.left_alone == "Nothing was changed on disk."
    error.after(["the commit", "what was fetched"])
    assert error.left_alone == "Apart from the commit and what was fetched, nothing was changed on disk."
    silent = ExpmgrError("no")
    silent.after(["the commit"])
    assert silent.left_alone is None


def test_what_a_command_in_the_background_left_alone_is_told_without_what_was_done_before_it() -> None:
    lines = ["Nothing here is an error yet", "Error: no", "Nothing was changed on disk.", "Hint: start over"]
    error = DetachedFailed("no run has begun", details=lines)
    error.after([])
    assert (error.details, error.left_alone) == (tuple(lines), None)
    error.after(["the commit 0a1b2c3d4e5f"])
    assert error.lines() == [
        "Error: no run has begun",
        "  Nothing here is an error yet",
        "  Error: no",
        "  Apart from the commit 0a1b2c3d4e5f, nothing was changed on disk.",
        "  Hint: start over",
    ]
    killed = DetachedFailed("no run has begun", details=["waiting"])
    killed.after(["the commit 0a1b2c3d4e5f", "what was fetched"])
    assert killed.lines()[1:] == ["  waiting", "The commit 0a1b2c3d4e5f and what was fetched stay as they are."]


#: Placeholders in what is printed, whose value only a person knows: module to what follows or precedes it.
_ASKED_OF_A_PERSON = {
    "api/doctor.py": {"git remote add origin URL"},
    "api/repository.py": {"VARIANT"},  # what no variant was named for
    "cli/output.py": {"-C DIR"},
    "cli/options.py": {"--map takes OLD=NEW"},
    "cli/adopt.py": {"--max-steps N"},
    "cli/init.py": {"--csv FILE", "--label COLUMN", "--experiment NAME"},
    "cli/log.py": {"VARIANT"},  # an event of a kind that a newer expmgr knows
    "cli/push_pull.py": {"need a VARIANT"},
    "cli/review/check.py": {"name a REVIEW"},
    "cli/show.py": {"expmgr new EXPERIMENT/VARIANT"},
    "cli/tensorboard.py": {"expmgr new EXPERIMENT/VARIANT"},
    "git/repo.py": {"NEW-NAME"},
    "guard/warm_start.py": {"--map OLD=NEW", "--only PATTERN", "--allow RULE"},
    "guard/adoption.py": {"--map OLD=NEW"},
    "launch/arguments.py": {"OLD=NEW", "OLD/*=NEW/*"},
    "launch/call.py": {"VARIANT[:SEED][@STEP]"},
    "paths.py": {"EXPERIMENT/VARIANT"},
    "reviews/current.py": {"/VARIANT", " --against BASELINE"},
    "reviews/merging.py": {"ANOTHER-NAME"},
    "reviews/opening.py": {"--against VARIANT"},
    "team/remote.py": {"git remote add origin URL", " URL"},
    "train/inference.py": {"--data FILE", "--output FILE"},
    "train/job.py": {"--max-steps N, above"},
    "variants/variants.py": {"expmgr new EXPERIMENT/VARIANT"},
}
_PLACEHOLDER = re.compile(
    r"(?<![A-Za-z_.`-])(EXPERIMENT|VARIANT|BASELINE|SEEDS?|RUN|STEP|REVIEW|EVENT|[A-Z-]*NAME|FILE|DIR|N|ID|MSG|RULE|COLUMN"
    r"|URL|OLD|NEW|PATTERN)(?![A-Za-z_.`])"
)


def _printed(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring, no help and no name of an option's value."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            hidden.add(id(node.value))
        if isinstance(node, ast.keyword) and node.arg in ("help", "metavar", "epilog", "description"):
            hidden |= {id(one) for one in ast.walk(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def test_no_hint_has_a_placeholder_whose_value_is_known() -> None:
    found = []
    for path in sorted((ROOT / "expmgr").rglob("*.py")):
        name = path.relative_to(ROOT / "expmgr").as_posix()
        for line, text in _printed(path):
            rest = text
            for known in _ASKED_OF_A_PERSON.get(name, set()):
                rest = rest.replace(known, "")
            if "expmgr" in text or "--" in text or " " in text.strip():
                found += [f"{name}:{line}: {match[0]} in {text!r}" for match in _PLACEHOLDER.finditer(rest)]
    assert found == []


def test_a_record_of_a_newer_expmgr(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    (old,) = ran(ann, "iris/baseline", 0.9)
    (new,) = ran(ann, "iris/baseline", 0.91, first=1, tell=False)
    path = ann.path / ".git/expmgr/runs" / new.run_id / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    before = ann.snapshot()
    result = ann.expmgr("show", new.run_id)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: the record {path} has format 2, this expmgr reads format 1\n"
        "Nothing was changed.\n"
        "Hint: a newer expmgr than 0.1.0 wrote it: install that version\n"
    )
    listed = ann.expmgr("list")
    assert (listed.code, "1 finished" in listed.stdout) == (0, True)
    assert listed.stderr == (
        f"Note: run {new.run_id} was skipped: the record {path} has format 2, this expmgr reads format 1\n"
    )
    assert ann.expmgr("show", old.run_id).code == 0
    assert ann.snapshot() == before


def test_every_way_to_read_records_notes_one_of_a_newer_expmgr(team: Team, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands and the methods, of reviews too; a method notes it once per repository that was opened."""
    ann = asked(team)
    (run,) = ran(ann, "iris/wide", 0.97, first=3, tell=False)
    newest = run.run_id
    path = ann.path / ".git/expmgr/runs" / newest / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    reason = f"the record {path} has format 2, this expmgr reads format 1"
    note = f"Note: run {newest} was skipped: {reason}\n"
    for command in (
        ["list"], ["show", "iris/wide"], ["compare", "iris/baseline", "iris/wide"], ["diff", "iris/baseline", "iris/wide"],
        ["review", "list"], ["review", "show", "wide"], ["review", "check", "wide"],
    ):  # fmt: skip
        assert ann.expmgr(*command).stderr.count(note) == 1, command
    for call in (
        lambda of: of.list(), lambda of: of.runs("iris/wide"), lambda of: of.show("iris/wide"),
        lambda of: of.compare("iris/baseline", "iris/wide"), lambda of: of.diff("iris/baseline", "iris/wide"),
        lambda of: of.reviews(), lambda of: of.review("wide"),
    ):  # fmt: skip
        repository = expmgr.open(ann.path)
        capsys.readouterr()
        call(repository)
        assert capsys.readouterr().err.count(note) == 1
        call(repository)
        assert note not in capsys.readouterr().err
    named = ann.expmgr("show", "iris/wide:3")
    assert (named.code, named.stderr.startswith(f"{note}Error: {reason}\n")) == (1, True)
    assert "install that version" in named.stderr


def test_a_variant_whose_only_run_cannot_be_read_has_no_run_that_can(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    (run,) = ran(ann, "iris/baseline", 0.9, tell=False)
    path = ann.path / ".git/expmgr/runs" / run.run_id / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    shown = ann.expmgr("show", "iris/baseline")
    assert shown.stdout.endswith("\nno run that can be read: expmgr run iris/baseline\n")
    missing = ann.expmgr("show", "iris/baseline:7")
    assert "Error: iris/baseline has no run with seed 7\n" in missing.stderr
    assert expmgr.open(ann.path).show("iris/baseline").skipped[0].run_id == run.run_id  # type: ignore[union-attr]


def test_a_method_notes_what_its_command_does(
    team: Team, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    ran(ann, "iris/baseline", 0.9)
    ann.git("branch", "-D", "exp/iris/baseline")
    expmgr.open(ann.path).new("iris/baseline")
    assert "Note: a variant iris/baseline existed before: 1 run is on record; to start over" in capsys.readouterr().err
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("expmgr.api.repository.run_tasks", lambda *_, **__: [])
    assert len(expmgr.open(ann.path).run("iris/baseline", quiet=True)) == 0
    assert "Note: KERAS_BACKEND is jax; " in capsys.readouterr().err


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_time_that_is_shown_is_utc(team: Team, zone: str) -> None:
    ann = asked(team)
    ok(ann, "note", "iris/wide", "-m", "a note")
    ok(ann, "review", "comment", "wide", "-m", "why?")
    run_id = json.loads(ok(ann, "show", "iris/wide:0", "--json"))["run_id"]  # begins with the time, UTC
    hour = f"{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]} {run_id[9:11]}:"
    commands = (
        ["list"], ["show", "iris/wide"], ["show", "iris/wide:0"], ["log"], ["log", "--md"],
        ["review", "list"], ["review", "show", "wide"],
    )  # fmt: skip
    for command in commands:
        result = ann.expmgr_process(*command, env={"TZ": zone})
        assert result.code == 0, result.stderr
        times = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d.{0,4}", result.stdout)
        assert times, command
        assert all(one.endswith(" UTC") for one in times), (command, times)
        assert any(one.startswith(hour) for one in times), (command, times)


def test_a_name_that_is_nearly_one_of_those_there_are() -> None:
    names = ["accuracy", "loss", "auc"]
    assert did_you_mean("acuracy", names) == "did you mean accuracy?"
    assert did_you_mean("acuracy", names, "one of ...", typed="metrics.{}".format) == "did you mean metrics.accuracy?"


def test_a_name_like_none_of_them() -> None:
    assert did_you_mean("recall", ["accuracy"]) is None
    assert did_you_mean("recall", ["accuracy"], "it has accuracy") == "it has accuracy"
    assert did_you_mean("recall", []) is None


def test_a_diff_of_one_variant(iris: Repo) -> None:
    ok(iris, "new", "iris/wide")
    result = iris.expmgr("diff", "iris/wide")
    assert (result.code, result.stdout) == (2, "")
    assert "two variants or more are compared with each other" in " ".join(result.stderr.split())


def test_a_traceback_shows_the_whole_story_and_a_command_shows_it_once(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    story = "there is no variant iris/basline\nNothing was changed.\nHint: did you mean iris/baseline?"
    with pytest.raises(expmgr.ExpmgrError) as raised:
        expmgr.open(ann.path).runs("iris/basline")
    assert str(raised.value) == story
    assert ann.expmgr("run", "iris/basline").stderr == f"Error: {story}\n"
    assert str(expmgr.ExpmgrError("a", details=["b"])) == "a\n  b"


def test_a_run_of_another_clone_says_what_is_here_and_where_the_rest_is(team: Team) -> None:
    ann, bob = team.join("ann"), team.join("bob")
    for repo in (ann, bob):
        (repo.path / "expmgr.toml").write_text(f'store = "{team.root / "shared"}"\n')
    ok(ann, "new", "iris/baseline")
    run = saved(ann, "iris/baseline", 0, b"weights")
    ok(ann, "push", "--checkpoints", "none")
    ok(bob, "pull")
    told = [
        f"run {run.run_id} (iris/baseline seed 0) was trained by Ann",
        "here: its record, with metrics and curves",
        "there: its log, and its model_dir models/iris/baseline/seed-0/",
        "in the store: nothing; ask Ann to type: expmgr push --checkpoints all",
    ]
    logs = bob.expmgr("logs", "iris/baseline")
    assert (logs.code, logs.stdout) == (1, "")
    assert logs.stderr.endswith(
        f"Error: the log of run {run.run_id} is not here\n  "
        + "\n  ".join(told)
        + f"\nHint: see what is here of it: expmgr show {run.run_id}\n"
    )
    assert ok(bob, "show", run.run_id).splitlines()[-4:] == told
    assert bob.expmgr("checkpoints", "iris/baseline").stderr.splitlines() == ["No checkpoint is here.", *told]
    assert "trained by" not in ok(ann, "show", run.run_id)
    ok(ann, "push", "--checkpoints", "all")
    ok(bob, "pull")
    last = ok(bob, "show", run.run_id).splitlines()[-1]
    assert last.startswith("in the store: the checkpoint of step "), last
    ok(bob, *last.partition("expmgr ")[2].split())


def test_a_seed_that_nobody_trained_is_told_beside_those_that_are_there(team: Team) -> None:
    ann = team.join("ann")
    ok(ann, "new", "iris/baseline")
    for seed in (0, 2):
        saved(ann, "iris/baseline", seed, b"weights")
    missing = ann.expmgr("show", "iris/baseline:9")
    assert (
        missing.stderr
        == "Error: iris/baseline has no run with seed 9; it has seeds 0,2\nHint: expmgr show iris/baseline\n"
    )
    wanted = (
        "Error: iris/baseline has no checkpoint of seed 9; it has checkpoints of seeds 0,2\nNothing was changed.\n"
        "Hint: name one of these seeds, as in --seed 0; or train this one: expmgr run iris/baseline --seeds 9\n"
    )
    (ann.path / "x.csv").write_text("petal_length\n1.0\n")
    for command in (["evaluate"], ["predict", "--data", "x.csv", "-o", "y.csv"], ["export", "-o", "served"]):
        done = ann.expmgr(command[0], "iris/baseline", "--seed", "9", *command[1:])
        assert (done.code, done.stderr) == (1, wanted)
    listed = ann.expmgr("checkpoints", "iris/baseline", "--seeds", "9")
    told = "No checkpoint of seed 9 yet; seeds with checkpoints: 0,2. Hint: expmgr run iris/baseline --seeds 9\n"
    assert (listed.code, listed.stderr) == (0, told)


def test_adopt_says_how_to_make_the_variant(iris: Repo) -> None:
    assert iris.expmgr("new", "iris/baseline").code == 0
    done = iris.expmgr("adopt", "nowhere", "--as", "iris/old")
    command = "expmgr new iris/old"
    assert (done.code, done.stderr) == (
        1,
        "Error: there is no variant iris/old\nNothing was changed.\n"
        f"Hint: make it first, with the model of the checkpoint: {command}\n",
    )
    near = iris.expmgr("adopt", "nowhere", "--as", "iris/basline")
    assert near.stderr.endswith("Hint: did you mean iris/baseline; or make it first, with the model of the checkpoint: "
                                "expmgr new iris/basline\n")  # fmt: skip
    assert iris.expmgr(*command.split()[1:]).code == 0


def test_differences_have_a_short_repr(team: Team) -> None:
    ann = asked(team)
    found = differences_of(Project.open(ann.path), ["iris/baseline", "iris/wide"])
    assert repr(found).startswith("<differences of iris/baseline, iris/wide: spec (1)")
    assert len(repr(found)) < 250


def test_no_check_is_right_where_nothing_was_run(team: Team) -> None:
    ann = team.join("ann")
    for name in ("baseline", "wide"):
        ok(ann, "new", f"iris/{name}")
    compared = told(ann, "compare", "iris/baseline", "iris/wide")
    checks = compared["variants"][1]["result"]["checks"]
    assert {one["answer"] for one in checks} == {"unknown"}


def test_an_author_who_may_not_approve_is_not_sent_to_approve(team: Team) -> None:
    ann = asked(team)
    shown = ok(ann, "review", "show", "wide")
    assert "review approve" not in shown
    assert (
        "work it is not: ask somebody else, for it is your own work; or, if you work alone, set by_others = false"
        in shown
    )
    ok(ann, "push")
    bob = team.join("bob")
    ok(bob, "pull")
    command = next(line for line in ok(bob, "review", "show", "wide").splitlines() if "review approve" in line)
    ok(bob, *command.partition("expmgr ")[2].split())
