"""Before another author's code runs for the first time in a clone, it is said whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

import expmgr
from clones import Team, ok
from expmgr.errors import SpecProblem
from expmgr.launch.announce import announce, remember
from expmgr.launch.plan import plan_tasks
from expmgr.project import Project
from expmgr.variants.code_lookup import check_packages
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


def notes(repo: Repo, variant: str = "own/wide", runs: bool = True) -> list[str]:
    """What is said before a run of `variant`, whose code then `runs`."""
    told: list[str] = []
    project = Project.open(repo.path, told.append)
    (task, *_) = plan_tasks(project, [variant], None)
    if announce(project, task) is not None and runs:
        remember(project, task)
    return told


def shown(repo: Repo, told: str) -> str:
    """What the command prints that a note names."""
    command = told.rpartition("(git ")[2].removesuffix(" shows what it changes)")
    return repo.git(*command.split())


def test_code_of_others_is_announced_once_and_again_when_they_change_it(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    hand_over(bo, ann)
    assert notes(ann) == []  # he changed the spec alone: the code is that of main
    first = change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    before = ann.git("rev-parse", "main")[:12]
    told = (
        "running code of Bo Example <bo@example.com> for the first time here: exp/own/wide at {} "
        "(git diff {}...{} shows what it changes)"
    )
    assert notes(ann, runs=False) == [told.format(first[:12], before, first[:12])]
    assert notes(ann) == [told.format(first[:12], before, first[:12])]  # it did not run yet
    assert notes(ann) == []
    ok(ann, "new", "own/mine", "--from", "own/wide", "--set", "train.max_steps=7")
    assert notes(ann, "own/mine") == []  # the same code
    change(bo, "other.py", "not reached\n")
    hand_over(bo, ann)
    assert notes(ann) == []
    second = change(bo, "experiments/own/model.py", "def build_model(): ...\n")
    hand_over(bo, ann)
    assert notes(ann) == [told.format(second[:12], first[:12], second[:12])]
    change(bo, "experiments/own/model.py", "def build_model():\n    raise RuntimeError('no model')\n")
    hand_over(bo, ann)
    assert notes(ann) == []  # what ran before
    assert notes(bo) == []  # his own


def test_all_authors_are_named_and_the_command_shows_their_code(people: tuple[Repo, Repo]) -> None:
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
    assert "+x = 2" in shown(ann, told)
    assert ("-x = 2" in shown(ann, later), "+x = 3" in shown(ann, later)) == (True, True)


def test_ones_own_commit_on_top_hides_nobodys_code(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, "shared.py", "evil = 1\n")
    hand_over(bo, ann)
    ok(ann, "new", "own/mine", "--from", "own/wide", "--set", "train.max_steps=8", "--switch")
    (told,) = notes(ann, "own/mine", runs=False)
    assert "code of Bo Example" in told
    assert "+evil = 1" in shown(ann, told)
    ann.write("experiments/own/README.txt", "notes")
    ann.commit()
    ann.write("experiments/own/data.py", "import shared\ndef train(): ...\n")
    ann.commit()
    (told,) = notes(ann, "own/mine")
    assert ("code of Bo Example <bo@example.com> for" in told, "Ann" in told) == (True, False)
    assert "+evil = 1" in shown(ann, told)
    ann.write("experiments/own/data.py", "import shared\ndef train(): pass\n")
    ann.commit()
    assert notes(ann, "own/mine") == []  # his ran, and what is new is hers


def test_what_a_run_did_not_reach_is_new_to_the_next(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, "other.py", "evil = 1\n")
    hand_over(bo, ann)
    change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    assert len(notes(ann)) == 1
    change(ann, "experiments/own/model.py", "import other\ndef build_model(): ...\n")
    (told,) = notes(ann)
    assert "code of Bo Example <bo@example.com> for" in told
    assert "+evil = 1" in shown(ann, told)


@pytest.mark.parametrize("file", ["evil.so", "evil.cpython-312-x86_64-linux-gnu.so", "evil.pyc"])
def test_compiled_code_is_announced_and_may_not_be_named(people: tuple[Repo, Repo], file: str) -> None:
    ann, bo = people
    for folder in ("experiments/own", "", "src"):
        path = f"{folder}/{file}".lstrip("/")
        change(bo, "experiments/own/spec.yaml", SPEC.replace("model:build_model", "evil:build_model"))
        change(bo, path, "x")
        hand_over(bo, ann)
        assert len(notes(ann, runs=False)) == 1
        task = plan_tasks(project := Project.open(ann.path), ["own/wide"], None)[0]
        for beside in (False, True):  # Python prefers a .so to a source, and a source to a .pyc
            if beside:
                change(bo, f"{folder}/evil.py".lstrip("/"), "def build_model(): ...\n")
                hand_over(bo, ann)
                task = plan_tasks(project, ["own/wide"], None)[0]
            if beside and file.endswith(".pyc"):
                check_packages(project.repo, task.commit, task.name, task.spec, ())
                continue
            with pytest.raises(SpecProblem) as caught:
                check_packages(project.repo, task.commit, task.name, task.spec, ())
            told = f"experiments/own/spec.yaml: model.build: evil:build_model is in {path}, which is compiled; "
            assert caught.value.message.startswith(told)
            assert caught.value.hint == f"git rm {path}, and commit the source as {folder}/evil.py".replace(" /", " ")
        bo.git("rm", "--quiet", "--force", path, f"{folder}/evil.py".lstrip("/"))
        bo.commit()


@pytest.mark.parametrize(
    "file", ["shared.so", "shared.cpython-312-x86_64-linux-gnu.so", "__pycache__/shared.cpython-312.pyc"]
)
def test_compiled_code_that_a_module_imports_is_announced(people: tuple[Repo, Repo], file: str) -> None:
    ann, bo = people
    change(bo, file, "x")
    hand_over(bo, ann)
    (told,) = notes(ann)
    assert "code of Bo Example" in told
    change(bo, file, "y")
    hand_over(bo, ann)
    assert len(notes(ann)) == 1


def test_what_one_wrote_oneself_or_merged_needs_no_note(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, "shared.py", "x = 1\n")
    hand_over(bo, ann)
    assert len(notes(ann)) == 1
    change(ann, "shared.py", "x = 2\n")
    assert notes(ann) == []  # hers
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
def test_a_run_that_did_not_begin_is_announced_again(people: tuple[Repo, Repo]) -> None:
    ann, bo = people
    change(bo, ".gitattributes", "*.bin filter=lfs -text\n")
    change(bo, "shared.py", "x = 1\n")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4\n"
    change(bo, "experiments/own/rows.bin", pointer)
    hand_over(bo, ann)
    for _ in range(2):
        done = ann.expmgr("run", "own/wide", "--seeds", "0-1")
        assert (done.code, "No run was started." in done.stderr) == (1, True), done.stderr
        assert done.stderr.count("Note: running code of Bo Example") == 1


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
