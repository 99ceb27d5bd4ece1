"""What `run` says no to: the whole message, the exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clones import logs_of
from expmgr.launch.plan import plan_tasks
from expmgr.launch.prepare import give_back, reserve
from expmgr.log.refs import KEEP
from expmgr.project import Project
from world import Repo

tf = pytest.mark.tf
TRAIN = "experiments/iris/iris_training.csv"
HEADER = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm,species\n"


@pytest.fixture
def base(iris: Repo) -> Repo:
    assert iris.expmgr("new", "iris/baseline").code == 0
    return iris


def test_unknown_variant(base: Repo) -> None:
    before = base.snapshot()
    result = base.expmgr("run", "iris/basline")
    assert result.stderr == (
        "Error: there is no variant iris/basline\nNothing was changed.\nHint: did you mean iris/baseline?\n"
    )
    assert (result.code, result.stdout) == (1, "")
    assert base.snapshot() == before


@pytest.mark.parametrize("argv", [("run", "--bogus", "iris/wide"), ("run", "iris/wide"), ("evaluate", "iris/wide")])
def test_the_worker_that_was_started_early_goes_where_nobody_needs_it(
    base: Repo, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    result = base.expmgr_process(*argv, env={"TMPDIR": str(folder)})
    assert result.code in (1, 2), result.stderr
    assert not list(folder.iterdir())
    assert not [path for path in Path("/proc").glob("[0-9]*/environ") if os.fsencode(folder) in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # another user's, or gone
        return b""


def test_no_commit_yet(empty: Repo) -> None:
    result = empty.expmgr("run", "iris/baseline")
    assert result.stderr == (
        f"Error: {empty.path} has no commit yet\nNothing was changed.\n"
        "Hint: commit what you have; or, where that is nothing, expmgr init --example iris --commit\n"
    )
    assert result.code == 1


@pytest.mark.parametrize("seeds", ["x", "2-1", "-1", "0-", "0-5000", ""])
def test_seeds_that_are_none(base: Repo, seeds: str) -> None:
    result = base.expmgr("run", "iris/baseline", f"--seeds={seeds}")
    assert result.code == 2
    assert "seed" in result.stderr


def test_a_fixed_seed_and_seeds(base: Repo) -> None:
    base.expmgr("new", "iris/fixed", "--set", "run_config.tf_random_seed=7")
    before = base.snapshot()
    result = base.expmgr("run", "iris/fixed", "--seeds", "0-1")
    assert result.stderr == (
        "Error: iris/fixed fixes its seed (run_config.tf_random_seed: 7), so --seeds cannot choose others\n"
        "Nothing was started.\n"
        "Hint: leave --seeds out, or unset it: expmgr new iris/fixed-seeds --from iris/fixed "
        "--set run_config.tf_random_seed=null\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


def test_uncommitted_changes_of_a_checked_out_variant(base: Repo) -> None:
    base.git("switch", "--quiet", "exp/iris/baseline")
    base.write(TRAIN, HEADER)
    base.write("experiments/iris/new.py", "")
    base.write("elsewhere.txt", "does not matter")
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline")
    assert result.stderr == (
        f"Error: iris/baseline is checked out in {base.path}, with changes that a run would not see\n"
        "  experiments/iris/iris_training.csv\n  experiments/iris/new.py\n"
        "Nothing was started.\n"
        'Hint: commit them and run: expmgr run iris/baseline --commit "what changed"\n'
    )
    assert result.code == 1
    assert base.snapshot() == before


def test_uncommitted_changes_of_a_module_that_is_imported(base: Repo) -> None:
    base.git("switch", "--quiet", "exp/iris/baseline")
    base.write("experiments/iris/model.py", "from shared.layers import Wide\n")
    base.write("shared/__init__.py", "")
    base.write("shared/layers.py", "class Wide: ...\n")
    base.commit("code")
    base.write("shared/layers.py", "class Wide: '''changed'''\n")
    result = base.expmgr("run", "iris/baseline")
    assert "  shared/layers.py\n" in result.stderr
    assert result.code == 1


def test_a_bad_spec_on_the_branch(base: Repo) -> None:
    base.git("switch", "--quiet", "exp/iris/baseline")
    base.write("experiments/iris/spec.yaml", base.read("experiments/iris/spec.yaml").replace("train:  ", "trian:  "))
    base.commit("a slip")
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline")
    source = "exp/iris/baseline:experiments/iris/spec.yaml"
    assert result.stderr == (
        f"Error: {source} has 2 problems:\n"
        f"  {source}:1: train: is missing\n  {source}:8: trian: unknown key\n"
        "Nothing was changed.\nHint: did you mean train?\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


CSVS = {
    "empty": ("", f"{TRAIN} is empty\n", "the first line names the columns, every further line is a row"),
    "header only": (HEADER, f"{TRAIN} has a header and no rows\n", None),
    "no label column": (
        HEADER.replace("species", "spezies") + "1,2,3,4,setosa\n",
        f"{TRAIN} has no column species\n",
        "did you mean spezies?",
    ),
    "missing value": (
        HEADER + "1,2,3,4,setosa\n1,,3,4,virginica\n",
        f"{TRAIN}:3: column sepal_width_cm has no value\n",
        "fill it in, or leave the row out",
    ),
}


@pytest.mark.wide
@tf
@pytest.mark.parametrize(
    "what", [one if one == "missing value" else pytest.param(one, marks=pytest.mark.slow) for one in CSVS]
)
def test_data_that_does_not_fit(base: Repo, what: str) -> None:
    content, message, hint = CSVS[what]
    base.git("switch", "--quiet", "exp/iris/baseline")
    base.write(TRAIN, content)
    base.commit("bad data")
    base.git("switch", "--quiet", "main")
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline")
    told = f"Hint: {hint}\n" if hint else ""
    assert result.stderr == f"iris/baseline seed 0: not run\nError: {message}Nothing was changed.\n{told}"
    assert (result.code, result.stdout) == (1, "")
    assert _same(before, base.snapshot())


@tf
def test_an_unknown_label(base: Repo) -> None:
    refused = base.expmgr("new", "iris/two", "--set", "data.labels=[setosa, virginica]")
    assert "has 'versicolor', which is not among the labels\nNothing was changed." in refused.stderr
    assert (refused.code, base.git("branch", "--list", "exp/iris/two")) == (1, "")
    base.expmgr("new", "iris/two")
    base.git("switch", "--quiet", "exp/iris/two")
    spec = base.read("experiments/iris/spec.yaml")
    line = next(line for line in spec.splitlines() if "label:" in line)
    base.write("experiments/iris/spec.yaml", spec.replace(line, line.replace("}", ", labels: [setosa, virginica]}")))
    base.commit("two labels")
    base.git("switch", "--quiet", "main")
    before = base.snapshot()
    result = base.expmgr("run", "iris/two")
    line = next(number for number, row in enumerate(base.read(TRAIN).splitlines(), 1) if row.endswith("versicolor"))
    assert result.stderr == (
        "iris/two seed 0: not run\n"
        f"Error: {TRAIN}:{line}: column species has 'versicolor', which is not among the labels\n"
        "Nothing was changed.\nHint: the labels are setosa, virginica\n"
    )
    assert result.code == 1
    assert _same(before, base.snapshot())


def _same(before: dict[str, object], after: dict[str, object]) -> bool:
    """Equal, but for the empty folders of ours that the first run makes."""
    old, new = dict(before), dict(after)
    was, ours = old.pop("expmgr"), new.pop("expmgr")
    assert isinstance(was, dict)
    assert isinstance(ours, dict)
    kept = {path: ours.get(path) for path in was} == was
    return old == new and kept and all(what[0] == "folder" for path, what in ours.items() if path not in was)


@tf
def test_a_model_dir_of_another_variant(copied: Repo) -> None:
    copied.expmgr("new", "iris/copy", "--from", "iris/baseline")
    shutil.copytree(copied.path / "models/iris/baseline", copied.path / "models/iris/copy")
    before = copied.snapshot()
    result = copied.expmgr("run", "iris/copy")
    assert result.code == 1
    assert result.stderr.startswith(
        "iris/copy seed 0: not run\nError: models/iris/copy belongs to variant iris/baseline, not to iris/copy\n"
    )
    assert copied.snapshot() == before


def test_a_model_dir_that_is_no_folder(base: Repo) -> None:
    base.write("models", "a file")
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline")
    assert result.stderr == (
        "iris/baseline seed 0: not run\n"
        "Error: models/iris/baseline/seed-0 cannot be written: Not a directory\nNothing was changed.\n"
        "Hint: give yourself the right to write there, or move the root: models_dir in [tool.expmgr]\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


def in_a_mount(repo: Repo, options: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """`expmgr <argv>` where models/ is a small file system of its own, mounted with `options`."""
    script = 'mount -t tmpfs -o "$1" tmpfs models && shift && exec "$@"'
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    (repo.path / "models").mkdir(exist_ok=True)
    return subprocess.run(
        [*command, "sh", "-c", script, "sh", options, sys.executable, "-m", "expmgr", *argv],
        cwd=repo.path,
        capture_output=True,
        text=True,
        check=False,
    )


needs_mounts = pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0
    if shutil.which("unshare")
    else True,
    reason="needs unshare --mount",
)


@needs_mounts
def test_a_model_dir_that_is_not_writable(base: Repo) -> None:
    (base.path / "models").mkdir()
    before = base.snapshot()
    done = in_a_mount(base, "ro,size=1m", "run", "iris/baseline")
    assert done.stderr == (
        "iris/baseline seed 0: not run\n"
        "Error: models/iris/baseline/seed-0 cannot be written: Read-only file system\nNothing was changed.\n"
        "Hint: give yourself the right to write there, or move the root: models_dir in [tool.expmgr]\n"
    )
    assert done.returncode == 1
    assert base.snapshot() == before


@pytest.mark.wide
@tf
@needs_mounts
def test_a_full_disk(base: Repo) -> None:
    done = in_a_mount(base, "size=24k", "run", "iris/baseline", "--max-steps", "5")
    assert done.returncode == 74, done.stderr
    assert "No space left on device" in done.stderr
    told = json.loads(base.expmgr("list", "--json").stdout)
    assert told["variants"][0]["runs"] in ({}, {"failed": 1})


@tf
def test_a_loss_that_becomes_nan(base: Repo) -> None:
    base.expmgr(
        "new", "iris/wild", "--from", "iris/baseline", "--set", "optimizer={kind: sgd, learning_rate: 1e30}",
        "--set", "run_config.save_checkpoints_steps=1",
    )  # fmt: skip
    result = base.expmgr("run", "iris/wild")
    assert result.code == 1
    record = json.loads(base.expmgr("show", "iris/wild:0", "--json").stdout)
    assert record["status"] == "failed"
    step = record["step"]
    manifest = json.loads(base.read("models/iris/wild/seed-0/manifest.json"))
    kept = manifest["checkpoints"][-1]
    assert kept["finite"]
    assert kept["step"] < step
    assert f"at step {step}\n" in result.stderr
    kept_path = f"models/iris/wild/seed-0/model.ckpt-{kept['step']}"
    assert f"The newest checkpoint before it is kept: {kept_path}\n" in result.stderr


@tf
def test_a_seed_that_fails_does_not_stop_the_others(base: Repo) -> None:
    base.write("models/iris/baseline/seed-1", "a file in the place of the folder")
    result = base.expmgr("run", "iris/baseline", "--seeds", "0-2", "--max-steps", "5", "--json")
    told = json.loads(result.stdout)
    assert [(one["seed"], one["exit_code"], one["status"]) for one in told["runs"]] == [
        (0, 0, "finished"),
        (1, 1, None),
        (2, 0, "finished"),
    ]
    assert result.code == told["exit_code"] == 1


@pytest.mark.wide
@tf
def test_commit_takes_what_a_run_would_not_see(base: Repo) -> None:
    base.git("switch", "--quiet", "exp/iris/baseline")
    spec = base.read("experiments/iris/spec.yaml")
    base.write("experiments/iris/spec.yaml", spec.replace("max_steps: 1000", "max_steps: 3"))
    base.write("other.txt", "staged, not part of it")
    base.git("add", "other.txt")
    result = base.expmgr("run", "iris/baseline", "--commit", "three steps")
    assert result.code == 0, result.stderr
    assert base.git("log", "-1", "--format=%s").strip() == "three steps"
    assert base.git("show", "--name-only", "--format=").split() == ["experiments/iris/spec.yaml"]
    assert base.git("status", "--porcelain") == "A  other.txt\n"
    assert json.loads(base.expmgr("show", "iris/baseline:0", "--json").stdout)["step"] == 3


@tf
def test_a_refusal_after_a_commit_says_that_the_commit_stays(copied: Repo) -> None:
    copied.git("switch", "--quiet", "exp/iris/wide")
    spec = copied.read("experiments/iris/spec.yaml")
    copied.write("experiments/iris/spec.yaml", spec.replace("[20, 20]", "[30, 30]"))
    models = copied.digest("models")
    result = copied.expmgr("run", "iris/wide", "--commit", "wider", "--json")
    assert result.code == 3
    assert "committed 1 file on exp/iris/wide" in result.stderr
    (run,) = json.loads(result.stdout)["runs"]
    assert run["error"]["left_alone"] == "Apart from the commit, nothing was changed on disk."
    assert copied.git("log", "-1", "--format=%s").strip() == "wider"
    again = copied.expmgr("run", "iris/wide", "--commit", "nothing more")
    assert "\nNothing was changed on disk.\n" in again.stderr
    copied.write("experiments/iris/spec.yaml", f"{spec}run_config: {{tf_random_seed: 1}}\n")
    contradicted = copied.expmgr("run", "iris/wide", "--commit", "a fixed seed", "--seeds", "0")
    assert "committed 1 file" in contradicted.stderr
    assert "\nApart from the commit, nothing was started.\n" in contradicted.stderr
    assert copied.digest("models") == models


@tf
def test_a_refusal_in_the_background_names_the_commit_that_stays(copied: Repo) -> None:
    copied.git("switch", "--quiet", "exp/iris/wide")
    spec = copied.read("experiments/iris/spec.yaml")
    copied.write("experiments/iris/spec.yaml", spec.replace("[20, 20]", "[30, 30]"))
    models = copied.digest("models")
    result = copied.expmgr("run", "iris/wide", "--detach", "--commit", "wider")
    commit = copied.git("rev-parse", "exp/iris/wide")[:12]
    assert (result.code, result.stdout) == (3, "")
    told = [line.strip() for line in result.stderr.splitlines()]
    assert told[:2] == [f"committed 1 file on exp/iris/wide ({commit})", "Error: no run has begun"]
    assert [line for line in told if "nothing was" in line.casefold()] == [
        f"Apart from the commit {commit}, nothing was changed on disk."
    ]
    assert copied.digest("models") == models
    again = copied.expmgr("run", "iris/wide", "--detach", "--commit", "nothing more")
    assert [line.strip() for line in again.stderr.splitlines()].count("Nothing was changed on disk.") == 1


def test_a_spec_that_is_wrong_is_not_committed(base: Repo) -> None:
    base.git("switch", "--quiet", "exp/iris/baseline")
    spec = base.read("experiments/iris/spec.yaml")
    base.write("experiments/iris/spec.yaml", spec.replace("hidden_units", "hidden_unit"))
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline", "--commit", "narrower")
    assert (result.code, "hidden_unit: unknown key" in result.stderr) == (1, True), result.stderr
    assert base.snapshot() == before


def test_commit_of_a_variant_that_is_not_checked_out(base: Repo) -> None:
    before = base.snapshot()
    result = base.expmgr("run", "iris/baseline", "--commit", "x")
    assert result.stderr == (
        "Error: iris/baseline is not checked out, so there is nothing of it to commit\nNothing was changed.\n"
        "Hint: git switch exp/iris/baseline, or run it as it is: expmgr run iris/baseline\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


def test_a_seed_that_another_command_is_starting_is_busy(base: Repo) -> None:
    project = Project.open(base.path)
    (task,) = plan_tasks(project, ["iris/baseline"], None)
    before = base.snapshot()
    reserved = reserve(project, task)
    result = base.expmgr("run", "iris/baseline")
    assert result.code == 4
    assert "Error: iris/baseline seed 0 is being started by another command\n" in result.stderr
    give_back(reserved)
    assert base.snapshot() == before


@pytest.mark.slow
@tf
def test_a_run_whose_machine_is_gone_is_taken_on(copied: Repo) -> None:
    """A container that was removed: its processes cannot be seen from here, but the model_dir's lock can."""
    (path,) = [
        path for path in (copied.path / ".git/expmgr/runs").glob("*/run.json")
        if (values := json.loads(path.read_text()))["variant"] == "iris/baseline" and values["seed"] == 0
    ]  # fmt: skip
    values = json.loads(path.read_text())
    values["status"] = values["attempts"][-1]["status"] = "running"
    values["attempts"][-1]["launcher"]["host"] = values["attempts"][-1]["worker"]["host"] = "a-container"
    path.write_text(json.dumps(values, indent=1))
    for ref in logs_of(copied):  # no log tells of it yet
        copied.git("update-ref", "-d", ref)
    copied.git("update-ref", f"{KEEP}{values['run_id']}", values["commit"])
    result = copied.expmgr("run", "iris/baseline", "--max-steps", "210", "--json")
    assert result.code == 0, result.stderr
    (told,) = json.loads(result.stdout)["runs"]
    record = json.loads(copied.expmgr("show", told["run_id"], "--json").stdout)
    assert (record["parent_run"], record["attempts"][0]["from_step"]) == (values["run_id"], 200)
    assert json.loads(copied.expmgr("show", values["run_id"], "--json").stdout)["status"] == "killed"


def test_not_a_repository(tmp_path: Path, empty: Repo) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for command in (["run", "x"], ["list"], ["show", "x"], ["compare", "x"], ["check", "x"], ["init"]):
        result = empty.expmgr(*command, folder=folder)
        assert result.stderr == (
            f"Error: {folder} is not in a git repository\nHint: git init, then expmgr init --example iris --commit\n"
        )
        assert result.code == 1
    assert list(folder.iterdir()) == []
