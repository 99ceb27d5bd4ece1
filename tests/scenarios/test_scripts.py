"""Training scripts as people write them, brought in with a changed line or three."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from world import ROOT, Repo

pytestmark = pytest.mark.tf

SCRIPTS = ("functional", "subclassed", "generator")
SPEC = """\
experiment: digits
model: {kind: script, script: train.py}
train: {max_steps: 120}
run_config: {save_checkpoints_steps: 40, save_summary_steps: 20}
"""


@pytest.fixture
def scripted(repo: Repo) -> Callable[[str], Repo]:
    """`scripted(name)`: the repository with that script as an experiment, and a variant of it, `digits/base`."""

    def made(name: str) -> Repo:
        repo.write("experiments/digits/train.py", (ROOT / f"tests/scripts/{name}.py").read_bytes())
        repo.write("experiments/digits/digits.npz", (ROOT / "experiments/digits/digits.npz").read_bytes())
        repo.write("experiments/digits/spec.yaml", SPEC)
        repo.commit("A script")
        result = repo.expmgr("new", "digits/base")
        assert result.code == 0, result.stderr
        return repo

    return made


def record(repo: Repo, name: str = "digits/base:0") -> dict[str, Any]:
    return dict(json.loads(repo.expmgr("show", name, "--json").stdout))


def left(repo: Repo) -> dict[str, object]:
    """All that a refusal has to leave alone; empty folders for runs to come are none of it."""
    files = {path: what for path, what in repo.digest(".git/expmgr").items() if what[0] != "folder"}
    return {**repo.snapshot(), "expmgr": files}


def weights(repo: Repo, step: int, variant: str = "base", seed: int = 0) -> dict[str, Any]:
    import tensorflow as tf

    prefix = str(repo.path / f"models/digits/{variant}/seed-{seed}/model.ckpt-{step}")
    reader = tf.train.load_checkpoint(prefix)
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map() if not key.startswith("pipeline")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_trained_asked_and_refused(scripted: Callable[[str], Repo], name: str) -> None:
    repo = scripted(name)
    result = repo.expmgr("run", "digits/base")
    assert result.code == 0, result.stderr
    found = record(repo)
    assert (found["status"], found["step"]) == ("finished", 120)
    curve = [value for _, value in found["curves"]["train"]["loss"]]
    assert curve[-1] < curve[0]
    assert found["metrics"]["selected"]["eval"]["loss"] < curve[0]
    told = json.loads(repo.expmgr("evaluate", "digits/base", "--json").stdout)
    assert told["metrics"] == pytest.approx(found["metrics"]["selected"]["eval"], rel=1e-5)
    assert repo.expmgr("check", "digits/base").stdout.startswith("digits/base seed 0: same")
    assert repo.expmgr("export", "digits/base", "-o", "served").code == 0

    old, new = {
        "functional": ("32", "64"),
        "subclassed": ("Dense(8", "Dense(4"),
        "generator": ("Conv2D(8", "Conv2D(4"),
    }[name]
    repo.git("switch", "--quiet", "exp/digits/base")
    path = repo.path / "experiments/digits/train.py"
    path.write_text(path.read_text().replace(old, new, 1))
    repo.commit("another width")
    before = repo.snapshot()
    assert repo.expmgr("run", "digits/base", "--max-steps", "160").code == 3
    assert repo.snapshot() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["functional", "subclassed"])
def test_stopped_and_taken_up_again_it_is_the_same_bit_for_bit(
    scripted: Callable[[str], Repo], name: str, tmp_path: Path
) -> None:
    """Dropout, a SeedGenerator, a shuffled Dataset: as of a run that was left alone."""
    import numpy as np

    repo = scripted(name)
    assert repo.expmgr("new", "digits/alone", "--from", "digits/base").code == 0
    assert repo.expmgr("run", "digits/alone").code == 0
    assert repo.expmgr("run", "digits/base", "--max-steps", "50").code == 0  # its last checkpoint is no multiple of 40
    assert repo.expmgr("run", "digits/base").code == 0
    stopped, alone = record(repo), record(repo, "digits/alone:0")
    assert stopped["attempts"][-1]["not_exact"] == []
    assert stopped["metrics"] == alone["metrics"]
    one, two = weights(repo, 120), weights(repo, 120, "alone")
    assert one.keys() == two.keys()
    assert [key for key in one if not np.array_equal(one[key], two[key])] == []


@pytest.mark.slow
def test_what_cannot_be_evaluated_needs_no_validation_data(scripted: Callable[[str], Repo]) -> None:
    """A GAN: trained, stopped, taken up again bit for bit, shown with the params in force."""
    import numpy as np

    repo = scripted("adversarial")
    before = left(repo)
    result = repo.expmgr("run", "digits/base")
    assert (result.code, left(repo)) == (1, before)
    assert "or evaluate nothing: eval: {at_end: false}\n" in result.stderr
    assert repo.expmgr("new", "digits/alone", "--set", "eval.at_end=false").code == 0
    assert repo.expmgr("new", "digits/gan", "--from", "digits/alone").code == 0
    assert repo.expmgr("new", "digits/rate", "--from", "digits/alone", "--set", "model.params.rate=0.01").code == 0
    for how in (("alone",), ("gan", "--max-steps", "50"), ("gan",), ("rate",)):
        assert repo.expmgr("run", f"digits/{how[0]}", *how[1:]).code == 0
    one, two = weights(repo, 120, "gan"), weights(repo, 120, "alone")
    assert one.keys() == two.keys()
    assert [key for key in one if not np.array_equal(one[key], two[key])] == []
    assert record(repo, "digits/gan:0")["attempts"][-1]["not_exact"] == []
    assert record(repo, "digits/gan:0")["params"] == {"model.params.latent": 4, "model.params.rate": 0.001}
    rows = json.loads(repo.expmgr("compare", "digits/gan", "digits/rate", "--json").stdout)["variants"]
    assert rows[1]["changes"] == {"model.params.rate": {"baseline": 0.001, "variant": 0.01}}
    assert repo.expmgr("evaluate", "digits/gan").stderr.startswith("Error: digits/gan has no rows to be evaluated")
    assert "the model has no call" in repo.expmgr("export", "digits/gan", "-o", "out").stderr
    assert not (repo.path / "out").exists()


@pytest.mark.slow
def test_what_cannot_be_kept_of_a_generator_is_said(scripted: Callable[[str], Repo]) -> None:
    repo = scripted("generator")
    assert repo.expmgr("run", "digits/base", "--max-steps", "80").code == 0
    result = repo.expmgr("run", "digits/base")
    assert result.code == 0, result.stderr
    lines = record(repo)["attempts"][-1]["not_exact"]
    assert any("calls Python" in line for line in lines)
    log = (repo.path / ".git/expmgr/runs" / record(repo)["run_id"] / "log.txt").read_text(encoding="utf-8")
    assert "callback ModelCheckpoint is not called: expmgr does what it does\n" in log
    assert [step for step, _ in record(repo)["curves"]["eval"]["accuracy"]] == [40, 80, 120]  # every epoch, as fit does


@pytest.mark.wide
def test_params_come_from_the_spec_and_a_misspelt_one_is_told_before_a_branch_is_made(
    scripted: Callable[[str], Repo],
) -> None:
    repo = scripted("functional")
    assert repo.expmgr("new", "digits/wide", "--set", "model.params.units=64").code == 0
    assert repo.expmgr("run", "digits/wide", "--max-steps", "2").code == 0
    assert record(repo, "digits/wide:0")["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    result = repo.expmgr("new", "digits/x", "--set", "model.params.unit=64")
    assert result.code == 1
    assert result.stderr == (
        "Error: model.params.unit: experiments/digits/train.py has no such parameter\nNothing was changed.\n"
        "Hint: did you mean model.params.units?\n"
    )
    assert repo.expmgr("new", "digits/x", "--set", "model.script=trian.py").stderr == (
        "Error: model.script: the commit has no experiments/digits/trian.py\nNothing was changed.\n"
        "Hint: did you mean train.py?\n"
    )


BROKEN = {
    "an error of its own": ("model.compile(", "model.compil(", "AttributeError"),
    "no call of fit": ("expmgr.fit(model", "(lambda *_, **__: None)(model", "ended without a call of expmgr.fit"),
    "no validation data": (", validation_data=(x[1400:], y[1400:])", "", "without validation_data"),
    "an argument that fit has not": ("epochs=5", "epoch=5", "expmgr.fit knows no epoch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_script_is_told_and_leaves_no_trace(scripted: Callable[[str], Repo], case: str) -> None:
    repo = scripted("functional")
    old, new, words = BROKEN[case]
    repo.git("switch", "--quiet", "exp/digits/base")
    path = repo.path / "experiments/digits/train.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    repo.commit("broken")
    before = left(repo)
    result = repo.expmgr("run", "digits/base")
    assert (result.code, left(repo)) == (1, before)
    assert words in result.stderr
    assert "experiments/digits/spec.yaml:2: model.script: " in result.stderr or "Error: model.script: " in result.stderr


# Called by hand.


def by_hand(repo: Repo, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py", *argv],
        cwd=repo.path / "experiments/digits", capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.wide
def test_called_by_hand_it_is_recorded_with_a_snapshot_of_the_tree(scripted: Callable[[str], Repo]) -> None:
    repo = scripted("functional")
    path = repo.path / "experiments/digits/train.py"
    path.write_text(path.read_text().replace("epochs=5", "epochs=2") + "expmgr.log_metrics(7, {'mine': 0.5})\n")
    repo.write("notes.txt", "not committed")
    repo.git("add", "experiments/digits/train.py")  # staged, and stays so
    before = repo.snapshot()
    done = by_hand(repo)
    assert done.returncode == 0, done.stderr
    assert "test: [" in done.stdout  # the script goes on behind fit
    after = repo.snapshot()
    assert all(after[part] == before[part] for part in ("files", "index", "head"))
    told = json.loads(repo.expmgr("list", "--json").stdout)
    (run_id,) = told["by_hand"]
    found = record(repo, run_id)
    assert (found["status"], found["step"], found["variant"]) == ("finished", 88, "digits/main")
    assert found["by_hand"]["changed"] == ["experiments/digits/train.py", "notes.txt"]
    assert found["by_hand"]["head"] == repo.git("rev-parse", "HEAD").strip() != found["commit"]
    assert "epochs=2" in repo.git("show", f"{found['commit']}:experiments/digits/train.py")
    assert repo.git("show", f"{found['commit']}:notes.txt") == "not committed"
    (log,) = repo.git("for-each-ref", "--format=%(refname)", "refs/expmgr/log/").split()
    assert found["commit"] in repo.git("rev-list", log).split()
    assert len(found["curves"]["eval"]["accuracy"]) == 2
    assert found["metrics"]["last"]["eval"]["accuracy"] > 0.1
    assert "a snapshot: " in repo.expmgr("show", run_id).stdout
    assert "Note: 1 run is of scripts called by hand" in repo.expmgr("list").stderr
    told = repo.expmgr("show", "digits/main")
    assert (told.code, f"Hint: expmgr show {run_id}\n" in told.stderr) == (1, True)
    # It is no run of the variant: nothing is taken up from it, nothing compared with it.
    assert json.loads(repo.expmgr("list", "--json").stdout)["variants"][0]["runs"] == {}


@pytest.mark.slow
def test_called_by_hand_from_a_clean_tree_it_names_the_commit(scripted: Callable[[str], Repo]) -> None:
    repo = scripted("functional")
    repo.git("switch", "--quiet", "exp/digits/base")
    assert by_hand(repo).returncode == 0
    (run_id,) = json.loads(repo.expmgr("list", "--json").stdout)["by_hand"]
    found = record(repo, run_id)
    assert (found["variant"], found["by_hand"]["changed"]) == ("digits/base", [])
    assert found["commit"] == repo.git("rev-parse", "exp/digits/base").strip()
    assert repo.expmgr("run", "digits/base", "--max-steps", "10").code == 0  # its own run, from step 0
    assert record(repo)["attempts"][0]["from_step"] == 0


@pytest.mark.slow
def test_called_by_hand_outside_of_an_experiment_it_trains_and_says_why_it_is_not_recorded(
    scripted: Callable[[str], Repo], tmp_path: Path
) -> None:
    repo = scripted("functional")
    for name in ("train.py", "digits.npz"):
        (tmp_path / name).write_bytes((repo.path / "experiments/digits" / name).read_bytes())
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "expmgr: not recorded: " in done.stderr
    assert "test: [" in done.stdout


@pytest.mark.slow
@pytest.mark.alone
def test_called_by_hand_and_killed_it_is_shown_as_killed(scripted: Callable[[str], Repo]) -> None:
    repo = scripted("functional")
    path = repo.path / "experiments/digits/train.py"
    path.write_text(path.read_text().replace("epochs=5", "epochs=500"))
    process = subprocess.Popen(
        [sys.executable, "train.py"], cwd=path.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not list(repo.path.glob(".git/expmgr/runs/*/events.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (run_id,) = json.loads(repo.expmgr("list", "--json").stdout)["by_hand"]
    assert record(repo, run_id)["status"] == "killed"


@pytest.mark.slow
def test_another_rate_by_params_goes_on_and_another_width_is_refused(scripted: Callable[[str], Repo]) -> None:
    repo = scripted("functional")
    assert repo.expmgr("run", "digits/base", "--max-steps", "40").code == 0
    repo.git("switch", "-q", "exp/digits/base")
    for params, code in (("rate: 0.01", 0), ("units: 64", 3)):
        spec = SPEC.replace("script: train.py}", f"script: train.py, params: {{{params}}}}}")
        assert spec != SPEC
        repo.write("experiments/digits/spec.yaml", spec)
        repo.commit(params)
        result = repo.expmgr("run", "digits/base", "--max-steps", "80")
        assert result.code == code, (result.stdout, result.stderr)
    assert record(repo)["step"] == 80
