"""expmgr without TensorFlow: what looks, compares and decides works whole; what needs a model says what to install."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clones import Team, ok, ran, saved
from light import Light
from world import Repo, Result

from .conftest import pip

#: Where a process writes down which others it starts.
_SPY = """
import os, sys
def hook(event, args):
    if event == "subprocess.Popen":
        with open(os.environ["STARTED"], "a") as file:
            print(*map(str, args[1]), file=file)
sys.addaudithook(hook)
"""


def missing(light: Light) -> list[str]:
    """What a command that needs a model says."""
    return [
        f"Error: expmgr's own environment ({light.python}) has no TensorFlow, which this needs",
        "Nothing was started.",
        f"Hint: install it: {light.python} -m pip install 'expmgr[tensorflow]'",
    ]


@pytest.fixture
def ann(team: Team) -> Repo:
    """A variant with a checkpoint of another model, and one that nobody has trained."""
    repo = team.join("ann")
    ok(repo, "new", "iris/baseline")
    ok(repo, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    saved(repo, "iris/baseline", 0, b"weights", steps=2)
    ok(repo, "list")
    return repo


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment that tells which processes a command starts; the command leaves no temporary file."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(_SPY)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    yield {"PYTHONPATH": str(tmp_path / "spy"), "STARTED": str(tmp_path / "started"), "TMPDIR": str(temporary)}
    assert os.listdir(temporary) == []
    started = (tmp_path / "started").read_text().splitlines()
    assert started
    assert [line for line in started if "git" not in line.split()[0]] == []


COMMANDS = (
    ("run", "iris/baseline"),
    ("run", "iris/baseline", "iris/wide", "--seeds", "0-2", "--jobs", "2"),
    ("run", "iris/wide", "--detach"),
    ("run", "iris/wide", "--scratch"),
    ("run", "iris/baseline", "--fresh"),
    ("run", "iris/baseline", "--from-step", "0"),
    ("run", "iris/wide", "--warm-start-from", "iris/baseline"),
    ("check", "iris/baseline"),
    ("check", "iris/baseline", "--against", "iris/wide"),
    ("evaluate", "iris/baseline"),
    ("predict", "iris/baseline", "--data", "experiments/iris/iris_test.csv", "-o", "predicted.csv"),
    ("export", "iris/baseline", "-o", "served"),
    ("adopt", "models/iris/baseline/seed-0", "--as", "iris/wide", "--vouch", "Ann"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_needs_a_model_says_what_to_install(
    ann: Repo, hidden_tensorflow: Light, watched: dict[str, str], command: tuple[str, ...]
) -> None:
    """Before anything is written, and without a process beside git's."""
    before = ann.snapshot()
    result = hidden_tensorflow.expmgr(ann, *command, env=watched)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == missing(hidden_tensorflow)
    assert ann.snapshot() == before


def test_nothing_is_committed_for_a_run_that_cannot_be(ann: Repo, hidden_tensorflow: Light) -> None:
    ann.git("switch", "--quiet", "exp/iris/wide")
    spec = ann.read("experiments/iris/spec.yaml")
    ann.write("experiments/iris/spec.yaml", spec.replace("[20, 20]", "[30, 30]"))
    before = ann.snapshot()
    result = hidden_tensorflow.expmgr(ann, "run", "iris/wide", "--commit", "wider", "--json")
    assert result.stderr.splitlines() == missing(hidden_tensorflow)
    told = json.loads(result.stdout)
    assert (result.code, told["error"], told["exit_code"]) == (1, "NoTensorFlow", 1)
    assert ann.snapshot() == before


def test_nothing_is_fetched_for_a_model_that_cannot_be_built(ann: Repo, team: Team, hidden_tensorflow: Light) -> None:
    for repo in (ann, bob := team.join("bob")):
        (repo.path / "pyproject.toml").write_text(f'[tool.expmgr]\nstore = "{team.root / "shared"}"\n')
    ok(ann, "push", "--checkpoints", "all")
    ok(bob, "pull")
    before = bob.snapshot()
    for command in (["evaluate", "iris/baseline"], ["run", "iris/wide", "--warm-start-from", "iris/baseline"]):
        result = hidden_tensorflow.expmgr(bob, *command)
        assert (result.code, result.stderr.splitlines()) == (1, missing(hidden_tensorflow))
        assert bob.snapshot() == before


def test_nothing_is_confirmed_without_a_model(ann: Repo, hidden_tensorflow: Light) -> None:
    """And no line says that something is run."""
    for variant, values in (("iris/baseline", (0.90, 0.91, 0.93)), ("iris/wide", (0.95, 0.97, 0.96))):
        ran(ann, variant, *values)
    before = ann.snapshot()
    for command in (
        ("compare", "iris/baseline", "iris/wide", "--confirm"),
        ("review", "open", "iris/wide", "--against", "iris/baseline", "--confirm"),
    ):
        result = hidden_tensorflow.expmgr(ann, *command)
        assert (result.code, result.stdout, result.stderr.splitlines()) == (1, "", missing(hidden_tensorflow))
        assert ann.snapshot() == before


def test_checkpoints_are_listed_though_nobody_can_ask_the_guard(ann: Repo, hidden_tensorflow: Light) -> None:
    result = hidden_tensorflow.expmgr(ann, "checkpoints", "iris/baseline", "--json")
    assert (result.code, result.stderr.splitlines()) == (1, missing(hidden_tensorflow))
    rows = json.loads(result.stdout)["checkpoints"]
    assert [(one["step"], one["verdict"]) for one in rows] == [(999, "unknown"), (1000, "unknown")]
    empty = hidden_tensorflow.expmgr(ann, "checkpoints", "iris/wide")
    assert (empty.code, empty.stderr) == (0, "No checkpoint yet. Hint: expmgr run iris/wide\n")
    none = hidden_tensorflow.expmgr(ann, "check", "iris/wide")
    assert (none.code, none.stdout) == (0, "iris/wide seed 0: no checkpoint yet, training starts at step 0\n")


@pytest.mark.parametrize("name", ["save", "restore"])
def test_save_and_restore_say_it_when_they_are_called(hidden_tensorflow: Light, tmp_path: Path, name: str) -> None:
    text = f"from expmgr import {name}; print({name}.__module__, {name}.__name__); {name}(None, 'model.ckpt-0')"
    result = hidden_tensorflow.run_python(tmp_path, text)
    error, _, hint = missing(hidden_tensorflow)
    sentence = f"{error.removeprefix('Error: ')}; {hint.removeprefix('Hint: ')}"
    assert (result.code, result.stdout) == (1, f"expmgr {name}\n")
    assert result.stderr.splitlines()[-2:] == [f"expmgr.errors.NoTensorFlow: {sentence}", "Nothing was changed."]
    assert os.listdir(tmp_path) == []
    caught = f"import expmgr\ntry:\n    expmgr.{name}()\nexcept ImportError as error:\n    print(type(error).__name__)"
    assert hidden_tensorflow.run_python(tmp_path, caught).stdout == "NoTensorFlow\n"


@pytest.mark.parametrize(
    "text",
    [
        "import expmgr; print(expmgr.open, expmgr.compare, expmgr.fit, expmgr.params, expmgr.log_metrics)",
        "from expmgr import *; print(Repository, ExperimentSpec, save, restore)",
        "import expmgr, inspect; names = dict(inspect.getmembers(expmgr)); assert {'open', *expmgr.__all__} <= {*names}",
        "import expmgr; assert {'open', *expmgr.__all__} <= {*dir(expmgr)}",
        "import expmgr; assert callable(expmgr.save) and not hasattr(expmgr, 'sav')",
    ],
)
def test_every_name_can_be_imported_and_looked_at(hidden_tensorflow: Light, tmp_path: Path, text: str) -> None:
    result = hidden_tensorflow.run_python(tmp_path, text)
    assert (result.code, result.stderr) == (0, "")


def test_a_folder_of_that_name_is_no_tensorflow(ann: Repo, hidden_tensorflow: Light) -> None:
    (ann.path / "tensorflow").mkdir()  # the current directory is on the path of `python -m`
    result = hidden_tensorflow.expmgr(ann, "run", "iris/baseline")
    assert (result.code, result.stderr.splitlines()) == (1, missing(hidden_tensorflow))


def test_new_does_not_ask_for_what_only_a_run_needs(ann: Repo, hidden_tensorflow: Light) -> None:
    """What `keras` has is known where it is installed; what the commit has is known everywhere."""
    add = "callbacks=[{use: 'keras.callbacks:TerminateOnNaN'}]"
    made = hidden_tensorflow.expmgr(ann, "new", "iris/watched", "--from", "iris/baseline", "--set", add)
    assert made.code == 0, made.stderr
    ann.git("switch", "--quiet", "main")
    ann.write("experiments/iris/watch.py", "class Watch: ...\n")
    ann.commit("code")
    wrong = "callbacks=[{use: 'wathc:Watch'}]"
    before = ann.snapshot()
    refused = hidden_tensorflow.expmgr(ann, "new", "iris/wrong", "--set", wrong)
    assert (refused.code, "did you mean watch?" in refused.stderr) == (1, True)
    assert ann.snapshot() == before


@pytest.mark.tf
def test_an_experiment_that_names_an_environment_runs_as_ever(ann: Repo, hidden_tensorflow: Light) -> None:
    """expmgr's own environment has no TensorFlow, the one of the spec has."""
    (ann.path / "pyproject.toml").write_text(f'[tool.expmgr.environments]\nfull = "{sys.executable}"\n')
    assert hidden_tensorflow.expmgr(ann, "new", "iris/full", "--set", "environment=full").code == 0
    result = hidden_tensorflow.expmgr(ann, "run", "iris/full", "--max-steps", "20")
    assert result.code == 0, result.stderr
    for command in (["check", "iris/full"], ["evaluate", "iris/full"], ["export", "iris/full", "-o", "served"]):
        result = hidden_tensorflow.expmgr(ann, *command)
        assert result.code == 0, result.stderr
    assert hidden_tensorflow.expmgr(ann, "check", "iris/full").stdout.startswith("iris/full seed 0: same (")
    # One of several that cannot be run: nothing of the call is done.
    before = ann.snapshot()
    both = hidden_tensorflow.expmgr(ann, "run", "iris/full", "iris/wide", "--max-steps", "30")
    assert (both.code, both.stderr.splitlines()) == (1, missing(hidden_tensorflow))
    assert ann.snapshot() == before


def test_an_environment_without_tensorflow_is_named(ann: Repo, hidden_tensorflow: Light) -> None:
    text = f'[tool.expmgr.environments]\nbare = "{hidden_tensorflow.python}"\n'
    (ann.path / "pyproject.toml").write_text(text)
    ok(ann, "new", "iris/bare", "--set", "environment=bare")
    before = ann.snapshot()
    result = ann.expmgr("run", "iris/bare")
    assert (result.code, result.stderr.splitlines()) == (
        1,
        [
            f"Error: environment bare ({hidden_tensorflow.python}) lacks TensorFlow",
            "Nothing was started.",
            f"Hint: {hidden_tensorflow.python} -m pip install tensorflow",
        ],
    )
    assert ann.snapshot() == before


def test_an_estimator_needs_a_tensorflow_of_its_own(ann: Repo, hidden_tensorflow: Light) -> None:
    spec = ann.read("experiments/iris/spec.yaml")
    model = "model: {kind: estimator, build: 'model:build_v2', params: {hidden_units: [10, 10]}}"
    lines = [model if line.startswith("model:") else line for line in spec.splitlines()]
    kept = [line for line in lines if not line.startswith("optimizer:")]
    ann.write("experiments/iris/spec.yaml", "\n".join(kept).replace("batch_size", "labels: [a, b, c], batch_size"))
    ann.write("experiments/iris/model.py", "def build_v2(config, params): ...\n")
    ann.commit("an Estimator")
    assert hidden_tensorflow.expmgr(ann, "new", "iris/old").code == 0
    before = ann.snapshot()
    wanted = {
        "run": ["Error: model.kind estimator needs TensorFlow 2.14 or 2.15; expmgr's own environment has none",
                "Nothing was started."],
        "evaluate": ["Error: iris/old has no checkpoint yet", "Hint: expmgr run iris/old"],
    }  # fmt: skip
    for command, lines in wanted.items():
        result = hidden_tensorflow.expmgr(ann, command, "iris/old")
        assert (result.code, result.stderr.splitlines()[:2]) == (1, lines)
        assert ann.snapshot() == before


# From the wheel.


@pytest.fixture
def typed(light: Light) -> Typed:
    return Typed(light)


class Typed:
    """Commands of the light install that have to succeed."""

    def __init__(self, light: Light) -> None:
        self._light = light

    def __call__(self, repo: Repo, *argv: str, code: int = 0) -> str:
        result: Result = self._light.expmgr(repo, *argv)
        assert result.code == code, (argv, result.stdout, result.stderr)
        return result.stdout

    def told(self, repo: Repo, *argv: str) -> Any:
        return json.loads(self(repo, *argv, "--json"))


@pytest.mark.slow
def test_what_the_wheel_installs(light: Light) -> None:
    """No TensorFlow, nothing of this checkout, and few packages."""
    names = {one["name"].lower() for one in json.loads(pip(light.python, "list", "--format", "json"))}
    assert {"expmgr", "gitpython", "pydantic", "rich", "ruamel.yaml", "scipy", "typer"} <= names
    assert [one for one in names if one.startswith(("tensorflow", "keras", "tf-", "tf_"))] == []
    assert len(names) <= 30
    where = light.run_python(
        Path("/"), "import expmgr, importlib.util as u; print(expmgr.__file__, u.find_spec('tensorflow'))"
    )
    assert where.stdout.split() == [
        str(next(light.python.parents[1].glob("lib/*/site-packages/expmgr/__init__.py"))),
        "None",
    ]


@pytest.mark.slow
@pytest.mark.tf
def test_a_light_install_looks_compares_and_decides(team: Team, typed: Typed) -> None:
    """Ann trains, with TensorFlow; all else that a team does is typed in environments that have none."""
    ann, bob = team.join("ann"), team.join("bob")
    typed(ann, "new", "iris/baseline", "-m", "as in the guide")
    typed(ann, "new", "iris/wide", "--from", "iris/baseline", "--set", "model.hidden_units=[20, 20]")
    ok(ann, "run", "iris/baseline", "iris/wide", "--seeds", "0-2", "--max-steps", "200")
    run_id = typed.told(ann, "show", "iris/wide:0")["run_id"]
    typed(ann, "push")
    assert "iris/wide" in typed(bob, "pull")
    # Looking.
    rows = {one["variant"]: one for one in typed.told(bob, "list")["variants"]}
    assert set(rows) == {"iris/baseline", "iris/wide"}
    assert typed(bob, "list").splitlines()[0].split()[:2] == ["variant", "from"]
    for name in ("iris/wide:0", run_id[:22]):
        assert typed.told(bob, "show", name)["run_id"] == run_id
    assert typed(bob, "show", "iris/wide").count("  finished  ") == 3
    assert "hidden_units" in typed(bob, "diff", "iris/baseline", "iris/wide")
    assert typed(bob, "log").count("\n") > 6
    typed(bob, "status")
    # Comparing: the numbers are those of the environment that trained, to the last digit.
    command = ("compare", "iris/baseline", "iris/wide")
    full = json.loads(ann.expmgr(*command, "--json").stdout)
    assert typed.told(ann, *command) == full
    assert [one["mean"] for one in typed.told(bob, *command)["variants"]] == [one["mean"] for one in full["variants"]]
    for form in ("--csv", "--md"):
        assert typed(ann, *command, form) == ann.expmgr(*command, form).stdout
    assert "iris/wide" in typed(bob, *command, "--all")
    # Saying.
    typed(bob, "note", "iris/wide", "-m", "seed 2 is odd")
    note = typed.told(bob, "log", "iris/wide")["events"][-1]
    typed(bob, "note", "iris/baseline", "-m", "wrong place")
    wrong = typed.told(bob, "log", "iris/baseline")["events"][-1]["id"]
    typed(bob, "retract", wrong, "-m", "it was")
    assert "seed 2 is odd" in str(note)
    # Deciding.
    typed(ann, "review", "open", "iris/wide", "--against", "iris/baseline", "-m", "Is it worth it?")
    typed(ann, "push")
    typed(bob, "pull")
    assert "iris/wide" in typed(bob, "review", "list")
    checked = typed.told(bob, "review", "check", "wide")
    assert checked["exit_code"] == 0
    typed(bob, "review", "comment", "wide", "-m", "why this width?", "--on", "experiments/iris/spec.yaml:5")
    comment = typed.told(bob, "review", "show", "wide")["comments"][0]["id"]
    typed(bob, "review", "resolve", "wide", comment)
    typed(bob, "review", "veto", "wide", "-m", "wait")
    typed(bob, "review", "lift", "wide")
    typed(bob, "review", "approve", "wide", "-m", "fine")
    assert typed.told(bob, "review", "show", "wide")["state"] == "approved"
    assert typed(bob, "review", "show", "wide", "--md").startswith("<!--")
    for form in ("text", "json", "junit", "github"):
        typed(bob, "review", "check", "--base", "origin/main", "--head", "exp/iris/wide", "--format", form)
    typed(bob, "push")
    typed(ann, "pull")
    typed(ann, "review", "merge", "wide")
    assert "20" in ann.git("show", "main:experiments/iris/spec.yaml")
    typed(ann, "new", "iris/deep", "--from", "iris/baseline", "--set", "model.hidden_units=[10, 10, 10]")
    typed(ann, "review", "open", "iris/deep", "--against", "iris/baseline")
    typed(ann, "review", "close", "deep", "--reason", "abandoned", "-m", "no time")
    typed(ann, "push")


@pytest.mark.slow
def test_a_repository_of_ones_own_in_a_light_install(empty: Repo, typed: Typed) -> None:
    """Every example comes along in the wheel, and a first spec is made for a table."""
    for name in ("iris", "digits", "messages", "houses", "bars-vae"):
        typed(empty, "init", "--example", name, "--commit")
        typed(empty, "new", f"{name}/first")
    rows = [f"{number / 3:.3f},{('red', 'green')[number % 2]},{('cat', 'dog')[number % 2]}" for number in range(50)]
    empty.write("my.csv", "\n".join(["weight_g,colour,kind", *rows, ""]))
    typed(empty, "init", "--experiment", "mine", "--csv", "my.csv", "--label", "kind", "--commit")
    typed(empty, "new", "mine/first")
    assert len(typed.told(empty, "list")["variants"]) == 6
    before = empty.snapshot()
    typed(empty, "run", "mine/first", code=1)
    assert empty.snapshot() == before


@pytest.mark.parametrize(
    ("command", "code", "story"),
    [
        (("run", "iris/basline"), 1, "there is no variant iris/basline"),
        pytest.param(
            ("run", "iris/wide", "iris/basline"), 1, "there is no variant iris/basline", marks=pytest.mark.wide
        ),
        (("run", "iris/wide", "--sceds", "0-2"), 2, "No such option: --sceds"),
        pytest.param(("run", "iris/wide", "--seeds", "x"), 2, "seed", marks=pytest.mark.wide),
        pytest.param(("run", "iris/wide", "--allow", "nonsense"), 2, "nonsense", marks=pytest.mark.wide),
        pytest.param(
            ("run", "iris/wide", "--warm-start-from", "iris/basline"),
            1,
            "there is no variant iris/basline",
            marks=pytest.mark.wide,
        ),
        pytest.param(("run", "iris/wide", "--fresh", "--from-step", "3"), 2, "starts over", marks=pytest.mark.wide),
        pytest.param(
            ("run", "iris/basline", "--detach"), 1, "there is no variant iris/basline", marks=pytest.mark.wide
        ),
        pytest.param(("check", "iris/basline"), 1, "there is no variant iris/basline", marks=pytest.mark.wide),
        pytest.param(
            ("check", "iris/wide", "--against", "iris/basline"),
            1,
            "there is no variant iris/basline",
            marks=pytest.mark.wide,
        ),
        pytest.param(("check", "iris/wide@x"), 1, "names no checkpoint", marks=pytest.mark.wide),
        pytest.param(("evaluate", "iris/basline"), 1, "there is no variant iris/basline", marks=pytest.mark.wide),
        (("evaluate", "iris/baseline", "--seed", "9"), 1, "has no checkpoint of seed 9"),
        pytest.param(("evaluate", "iris/baseline", "--split", "tset"), 2, "tset", marks=pytest.mark.wide),
        pytest.param(("evaluate", "iris/baseline", "--split", "test"), 2, "has no test split", marks=pytest.mark.wide),
        (("evaluate", "iris/baseline@77"), 1, "has no checkpoint of step 77"),
        pytest.param(("evaluate", "iris/wide"), 1, "iris/wide has no checkpoint yet", marks=pytest.mark.wide),
        pytest.param(("evaluate", "iris/baseline", "--data", "nowhere.csv"), 1, "nowhere.csv", marks=pytest.mark.wide),
        (("predict", "iris/baseline", "--data", "nowhere.csv", "-o", "y.csv"), 1, "nowhere.csv"),
        pytest.param(
            ("predict", "iris/baseline", "--data", "experiments/iris/iris_test.csv", "-o", "no/y.csv"),
            1,
            "no folder no",
            marks=pytest.mark.wide,
        ),
        pytest.param(
            ("export", "iris/baseline", "-o", "experiments"), 1, "experiments is there already", marks=pytest.mark.wide
        ),
        pytest.param(
            ("adopt", "nowhere", "--as", "iris/basline"), 1, "there is no variant iris/basline", marks=pytest.mark.wide
        ),
        (("adopt", "nowhere", "--as", "iris/wide", "--vouch", "Ann"), 1, "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_told_before_tensorflow_is_asked_for(
    ann: Repo, hidden_tensorflow: Light, command: tuple[str, ...], code: int, story: str
) -> None:
    result = hidden_tensorflow.expmgr(ann, *command)
    assert (result.code, story in result.stderr, "TensorFlow" in result.stderr) == (code, True, False), result.stderr


def test_json_of_a_question_that_was_not_answered_has_every_key(ann: Repo, hidden_tensorflow: Light) -> None:
    for command in (["check", "iris/baseline"], ["check", "iris/baseline", "--against", "iris/wide"]):
        (one, *_) = json.loads(hidden_tensorflow.expmgr(ann, *command, "--json").stdout)["checks"]
        assert one.pop("error")["error"] == "NoTensorFlow"
        assert one == {
            "variant": "iris/baseline", "seed": 0, "from": None, "checkpoint": None, "step": None, "exit_code": 1,
            "judgement": None,
        }  # fmt: skip


def test_the_last_checkpoint_is_selected_where_no_metric_selects(ann: Repo, hidden_tensorflow: Light) -> None:
    listed = json.loads(hidden_tensorflow.expmgr(ann, "checkpoints", "iris/baseline", "--json").stdout)["checkpoints"]
    assert [(one["step"], one["selected"], one["selected_by"]) for one in listed] == [
        (one["step"], one is listed[-1], None) for one in listed
    ]
    assert len(listed) == 2
