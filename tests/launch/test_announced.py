"""Before another author's code runs for the first time in a clone, it is said whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

import expmgr
from clones import Team, ok
from expmgr.launch.announce import announce
from expmgr.launch.plan import plan_tasks
from expmgr.project import Project
from world import Repo

SPEC = """
experiment: own
data: {kind: python, train: "data:train", eval: "data:train"}
model: {kind: python, build: "model:build_model"}
train: {max_steps: 5}
"""


@pytest.fixture
def people(team: Team) -> tuple[Repo, Repo]:
    """Ann, who wrote main with the experiment `own`, and Bo, who has a variant of it in both clones."""
    ann = team.join("ann")
    ann.write("experiments/own/spec.yaml", SPEC)
    ann.write("experiments/own/model.py", "def build_model():\n    raise RuntimeError('no model')\n")
    ann.write("experiments/own/data.py", "import shared\ndef train():\n    raise RuntimeError('no data')\n")
    ann.write("shared.py", "")
    ann.write("other.py", "")
    ann.commit("own")
    ann.git("push", "--quiet", "origin", "main")
    bo = team.join("bo")
    bo.git("config", "user.name", "Bo Example")
    ok(bo, "new", "own/wide", "--set", "optimizer={kind: sgd, learning_rate: 0.1}")
    return ann, bo


def change(repo: Repo, path: str, text: str) -> str:
    """A commit on own/wide, which the clone has checked out."""
    repo.git("switch", "--quiet", "exp/own/wide")
    repo.write(path, text)
    return repo.commit()


def hand_over(bo: Repo, ann: Repo) -> None:
    bo.git("push", "--quiet", "origin", "exp/own/wide")
    ann.git("fetch", "--quiet", "origin", "+exp/own/wide:exp/own/wide")


def notes(repo: Repo, variant: str = "own/wide") -> list[str]:
    """What is said before a run of `variant`."""
    told: list[str] = []
    project = Project.open(repo.path, told.append)
    announce(project, plan_tasks(project, [variant], None)[0])
    return told


def test_code_of_others_is_announced_once_and_again_when_they_change_it(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    hand_over(bo, ann)
    assert notes(ann) == []  # he changed the spec alone: the code is that of main
    first = change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    main = ann.git("rev-parse", "main")[:12]
    told = (
        "running code of Bo Example <bo@example.com> for the first time here: exp/own/wide at {} "
        f"(git diff {main}...exp/own/wide shows what it changes)"
    )
    assert notes(ann) == [told.format(first[:12])]
    assert notes(ann) == []
    ok(ann, "new", "own/mine", "--from", "own/wide", "--set", "train.max_steps=7")
    assert notes(ann, "own/mine") == []  # the same code
    change(bo, "other.py", "not reached\n")
    hand_over(bo, ann)
    assert notes(ann) == []
    second = change(bo, "experiments/own/model.py", "def build_model(): ...\n")
    hand_over(bo, ann)
    assert notes(ann) == [told.format(second[:12])]
    change(bo, "experiments/own/model.py", "def build_model():\n    raise RuntimeError('no model')\n")
    hand_over(bo, ann)
    assert notes(ann) == []  # what ran before
    assert notes(bo) == []  # his own


def test_a_variant_of_a_variant_is_shown_by_diff_and_all_authors_are_named(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    ok(ann, "new", "own/base")
    ann.git("push", "--quiet", "origin", "exp/own/base")
    bo.git("fetch", "--quiet", "origin", "exp/own/base:exp/own/base")
    ok(bo, "new", "own/deep", "--from", "own/base", "--switch")
    bo.write("shared.py", "x = 1\n")
    bo.commit()
    bo.write("shared.py", "x = 2\n")
    bo.git("-c", "user.name=Cy", "-c", "user.email=cy@x", "commit", "--quiet", "-a", "-m", "more")
    bo.git("push", "--quiet", "origin", "exp/own/deep")
    ann.git("fetch", "--quiet", "origin", "exp/own/deep:exp/own/deep")
    (told,) = notes(ann, "own/deep")
    assert told.startswith(
        "running code of Cy <cy@x> and Bo Example <bo@example.com> for the first time here: exp/own/deep"
    )
    bo.write("shared.py", "x = 3\n")
    last = bo.commit()
    bo.git("push", "--quiet", "origin", "exp/own/deep")
    ann.git("fetch", "--quiet", "origin", "exp/own/deep:exp/own/deep")
    (later,) = notes(ann, "own/deep")  # what ran before is none of it
    assert later.startswith(
        f"running code of Bo Example <bo@example.com> for the first time here: exp/own/deep at {last[:12]}"
    )
    command = told.partition("(expmgr ")[2].partition(" shows")[0]
    assert command == "diff own/base own/deep"
    assert "shared.py" in ok(ann, *command.split())


def test_what_one_wrote_oneself_or_merged_needs_no_note(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    change(ann, "shared.py", "x = 2\n")
    assert notes(ann) == []  # her commit is the newest
    ann.git("push", "--quiet", "origin", "exp/own/wide")
    ann.git("switch", "--quiet", "main")
    bo.git("fetch", "--quiet", "origin")
    bo.git("reset", "--quiet", "--hard", "origin/exp/own/wide")
    change(bo, "shared.py", "x = 3\n")
    hand_over(bo, ann)
    ann.git("merge", "--quiet", "exp/own/wide")
    assert notes(ann) == []


def test_a_premade_model_runs_nobodys_code(team: Team) -> None:
    ann, bo = team.join("ann"), team.join("bo")
    ok(bo, "new", "iris/wide", "--switch")
    bo.write("experiments/iris/iris_test.csv", bo.read("experiments/iris/iris_test.csv") + "\n")
    bo.commit()
    bo.git("push", "--quiet", "origin", "exp/iris/wide")
    ann.git("fetch", "--quiet", "origin", "exp/iris/wide:exp/iris/wide")
    assert notes(ann, "iris/wide") == []


@pytest.mark.tf
def test_a_command_and_a_method_say_it_before_code_runs(
    people: tuple[Repo, Repo], capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bo = people
    first = change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    told = f"Note: running code of Bo Example <bo@example.com> for the first time here: exp/own/wide at {first[:12]} ("
    done = ann.expmgr("run", "own/wide")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(told)
    assert "RuntimeError: no data" in done.stderr
    assert "Note: running" not in ann.expmgr("run", "own/wide").stderr
    change(bo, "shared.py", "x = 2\n")
    hand_over(bo, ann)
    with pytest.raises(expmgr.ExpmgrError):
        expmgr.open(ann.path).run("own/wide", quiet=True)
    assert capsys.readouterr().err.count("Note: running code of Bo Example") == 1


@pytest.mark.tf
def test_a_run_refuses_code_from_elsewhere_and_takes_no_leave_from_the_variant(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, "pyproject.toml", '[tool.expmgr]\ncode_packages = ["typer", "os"]\n')
    hidden = {"os:getcwd": "os", "typer:echo": "typer"}
    for reference, package in hidden.items():
        change(bo, "experiments/own/spec.yaml", SPEC.replace('train: "data:train"', f'train: "{reference}"', 1))
        hand_over(bo, ann)
        done = ann.expmgr("run", "own/wide")
        told = (
            f"Error: experiments/own/spec.yaml: data.train: {reference} is code of {package}, not of the repository, Keras, "
            "TensorFlow or NumPy\nNothing was changed.\n"
        )
        assert (done.code, told in done.stderr, "no data" in done.stderr) == (1, True, False), done.stderr


@pytest.mark.tf
@pytest.mark.slow
def test_detached_it_is_said_where_somebody_reads_it(people: tuple[Repo, Repo], tmp_path: Path) -> None:
    ann, bo = people
    change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    done = ann.expmgr("run", "own/wide", "--detach")
    assert done.stderr.count("Note: running code of Bo Example") == 1
