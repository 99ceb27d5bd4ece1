"""Estimators of the real TensorFlow 2.15, under the same guard as everything else."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from light import Light, hidden
from world import ROOT, Repo

pytestmark = [pytest.mark.tf, pytest.mark.estimators]

KINDS = ("v2", "v1", "own")
ROWS = "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm\n5.1,3.3,1.7,0.5\n6.9,3.1,5.4,2.1\n"
NEW_SHAPES = """\
iris/v2 seed 0: not run
Error: models/iris/v2/seed-0/model.ckpt-100 was not restored: it does not fit variant iris/v2
  dnn/hiddenlayer_0/kernel   saved float32 (4, 10)    wanted float32 (4, 20)
  dnn/hiddenlayer_0/bias     saved float32 (10)       wanted float32 (20)
  dnn/hiddenlayer_1/kernel   saved float32 (10, 10)   wanted float32 (20, 20)
  dnn/hiddenlayer_1/bias     saved float32 (10)       wanted float32 (20)
  dnn/logits/kernel          saved float32 (10, 3)    wanted float32 (20, 3)
  and 5 more (expmgr check iris/v2 --all)
Nothing was changed on disk.
Hint: give the change a variant of its own: expmgr new iris/v2-2 --from iris/v2; \
or start anew, with the old model_dir kept aside: expmgr run iris/v2 --fresh
"""
ENDED = "the training input ended, or a hook asked for it, at step 40"
#: The same model_dir given to TensorFlow's own Estimator, wider than what it holds.
NATIVE = """
import csv, sys
import tensorflow as tf
rows = list(csv.DictReader(open(sys.argv[2])))
names = [name for name in rows[0] if name != "species"]
words = ["setosa", "versicolor", "virginica"]
data = ({name: [float(row[name]) for row in rows] for name in names}, [words.index(row["species"]) for row in rows])
made = tf.estimator.DNNClassifier(
    [20, 20], [tf.feature_column.numeric_column(name) for name in names], n_classes=3, model_dir=sys.argv[1],
    optimizer=lambda: tf.keras.optimizers.legacy.Adagrad(0.1))
made.train(lambda: tf.data.Dataset.from_tensor_slices(data).repeat().batch(100), steps=5)
print(tf.train.load_variable(sys.argv[1], "dnn/hiddenlayer_0/kernel").shape)
"""


def record(repo: Repo, variant: str) -> dict[str, Any]:
    return dict(json.loads(repo.expmgr("show", f"{variant}:0", "--json").stdout))


def tensor(repo: Repo, variant: str, step: int, name: str) -> Any:
    import tensorflow as tf

    return tf.train.load_variable(str(repo.path / f"models/iris/{variant}/seed-0/model.ckpt-{step}"), name)


# The guard.


def tensors(repo: Repo, variant: str, step: int) -> dict[str, Any]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(repo.path / f"models/{variant}/seed-0/model.ckpt-{step}"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_the_estimators_own_restore_is_silent(copied: Repo, estimator_python: str) -> None:
    """What happens without us, with the TensorFlow that this environment has: [10, 10] goes on in [20, 20]."""
    folder = copied.path / "models/iris/v2/seed-0"
    data = copied.path / "experiments/iris/iris_training.csv"
    done = subprocess.run(
        [estimator_python, "-c", NATIVE, str(folder), str(data)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(4, 10)"), done.stderr[-2000:]


def test_ten_ten_then_twenty_twenty_is_refused(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/v2", "[10, 10]", "[20, 20]")
    before = copied.snapshot()
    result = copied.expmgr("run", "iris/v2")
    assert (result.code, result.stdout, result.stderr) == (3, "", NEW_SHAPES)
    assert copied.snapshot() == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_graph_alone_shows_is_refused_and_a_comment_is_not(
    copied: Repo, change: Callable[..., None], kind: str
) -> None:
    assert json.loads(copied.expmgr("check", f"iris/{kind}", "--json").stdout)["exit_code"] == 0
    change(copied, f"iris/{kind}", "import tensorflow as tf\n", "import tensorflow as tf  # v1\n", file="model.py")
    assert copied.expmgr("check", f"iris/{kind}").stdout.startswith(f"iris/{kind} seed 0: same")
    change(copied, f"iris/{kind}", "[10, 10]", "[10, 10], activation: tanh")
    before = copied.snapshot()
    told = json.loads(copied.expmgr("check", f"iris/{kind}", "--json").stdout)
    (check,) = told["checks"]
    assert (told["exit_code"], check["judgement"]["verdict"]) == (3, "refuse")
    assert [one["rule"] for one in check["judgement"]["differences"]] == ["computation"]
    for command in (("run",), ("evaluate",), ("export", "-o", "served")):
        assert copied.expmgr(command[0], f"iris/{kind}", *command[1:]).code == 3
    assert copied.snapshot() == before


def test_another_training_step_is_refused(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/own", "[10, 10]", "[10, 10], loss_weight: 3.0")
    told = json.loads(copied.expmgr("check", "iris/own", "--json").stdout)["checks"][0]
    assert [one["rule"] for one in told["judgement"]["differences"]] == ["training-code"]
    assert copied.expmgr("evaluate", "iris/own").code == 0  # who is only asked does not depend on it


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_learning_rate_takes_effect_and_is_said(copied: Repo, change: Callable[..., None], kind: str) -> None:
    """TF 2.15's optimizers keep it in the checkpoint, which would bring the old one back."""
    change(copied, f"iris/{kind}", "[10, 10]", "[10, 10], learning_rate: 0.0")
    result = copied.expmgr("run", f"iris/{kind}", "--max-steps", "120")
    assert result.code == 0, result.stderr
    old = "0.01" if kind == "own" else "0.1"
    assert f"  optimizer.learning_rate: {old} -> 0.0, takes effect now (only how training goes on)\n" in result.stderr
    name = "dense/kernel" if kind == "own" else "dnn/hiddenlayer_0/kernel"
    assert np.array_equal(tensor(copied, kind, 100, name), tensor(copied, kind, 120, name))
    if kind == "v2":
        assert tensor(copied, "v2", 120, "training/Adagrad/learning_rate") == 0.0


def test_renamed_columns_that_change_places_are_refused(copied: Repo, change: Callable[..., None]) -> None:
    """Estimators sort their columns by name: the rows of the first kernel would belong to others."""
    for file in ("iris_training.csv", "iris_test.csv"):
        change(copied, "iris/v2", "sepal_length_cm", "z_length_cm", file=file)
    change(copied, "iris/v2", "sepal_length_cm", "z_length_cm", file="model.py")
    told = json.loads(copied.expmgr("check", "iris/v2", "--json").stdout)["checks"][0]
    assert {one["rule"] for one in told["judgement"]["differences"]} == {"feature-renamed", "computation"}
    assert told["judgement"]["verdict"] == "refuse"


def test_renamed_columns_that_keep_their_places_are_restored(copied: Repo, change: Callable[..., None]) -> None:
    for file in ("iris_training.csv", "iris_test.csv", "model.py"):
        change(copied, "iris/v2", "sepal_length_cm", "sepal_lengths", file=file)
    told = json.loads(copied.expmgr("check", "iris/v2", "--json").stdout)["checks"][0]
    assert [one["rule"] for one in told["judgement"]["differences"]] == ["feature-renamed"]


def test_a_checkpoint_without_its_state_file_is_gone_on_from(copied: Repo) -> None:
    """TensorFlow would start from step 0 without a word."""
    (copied.path / "models/iris/v2/seed-0/checkpoint").unlink()
    result = copied.expmgr("run", "iris/v2", "--max-steps", "110")
    assert result.code == 0, result.stderr
    assert record(copied, "iris/v2")["attempts"][-1]["from_step"] == 100


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_offered(copied: Repo) -> None:
    path = copied.path / "models/iris/v2/seed-0/model.ckpt-100.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    result = copied.expmgr("run", "iris/v2", "--max-steps", "110")
    assert result.code == 3
    assert "model.ckpt-50, saved before it, is whole" in result.stderr
    assert copied.expmgr("run", "iris/v2", "--max-steps", "110", "--from-step", "50").code == 0
    assert record(copied, "iris/v2")["attempts"][-1]["from_step"] == 50


# Training.


@pytest.mark.parametrize("kind", KINDS)
def test_trained_evaluated_recorded(trained: Repo, kind: str) -> None:
    found = record(trained, f"iris/{kind}")
    assert (found["status"], found["step"]) == ("finished", 100)
    assert [one["step"] for one in found["checkpoints"]] == [0, 50, 100]
    assert set(found["metrics"]["selected"]["eval"]) >= {"loss", "accuracy"}
    assert [step for step, _ in found["curves"]["train"]["loss"]] == [100]
    assert found["environment"]["name"] == "estimator"
    assert found["environment"]["tensorflow"].startswith(("2.14.", "2.15."))
    lock = trained.path / ".git/expmgr/environments" / f"{found['environment']['lock']}.txt"
    assert "pydantic==" in lock.read_text(encoding="utf-8")
    folder = trained.path / f"models/iris/{kind}/seed-0"
    assert {"checkpoint", "graph.pbtxt", "manifest.json", "eval"} <= {path.name for path in folder.iterdir()}
    told = json.loads(trained.expmgr("evaluate", f"iris/{kind}", "--json").stdout)
    assert told["metrics"] == pytest.approx(found["metrics"]["selected"]["eval"], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_an_export_that_needs_neither_code_nor_expmgr(
    trained: Repo, tmp_path: Path, estimator_python: str, kind: str
) -> None:
    (tmp_path / "new.csv").write_text(ROWS)
    before = trained.digest(f"models/iris/{kind}")
    told = trained.expmgr("predict", f"iris/{kind}", "--data", str(tmp_path / "new.csv"), "-o", str(tmp_path / "o.csv"))
    assert told.code == 0, told.stderr
    assert trained.expmgr("export", f"iris/{kind}", "-o", str(tmp_path / "served")).code == 0
    assert trained.digest(f"models/iris/{kind}") == before
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert set(rows[0]) == {"prediction", "p_setosa", "p_versicolor", "p_virginica"}
    script = (
        "import sys, tensorflow as tf\n"
        "made = tf.saved_model.load(sys.argv[1])\n"
        "names = ['sepal_length_cm', 'sepal_width_cm', 'petal_length_cm', 'petal_width_cm']\n"
        "given = [[5.1, 3.3, 1.7, 0.5], [6.9, 3.1, 5.4, 2.1]]\n"
        "name = 'predict' if 'predict' in made.signatures else 'serving_default'\n"
        "found = made.signatures[name](\n"
        "    **{name: tf.constant([row[at] for row in given]) for at, name in enumerate(names)})\n"
        "print(found['probabilities'].numpy().tolist())\n"
    )
    for python in (sys.executable, estimator_python):  # the newest TensorFlow reads it too
        done = subprocess.run(
            [python, "-c", script, str(tmp_path / "served")], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-2000:]
        shares = [[float(row[f"p_{name}"]) for name in ("setosa", "versicolor", "virginica")] for row in rows]
        assert np.allclose(json.loads(done.stdout), shares, atol=1e-5)
    assert trained.expmgr("export", f"iris/{kind}", "-o", str(tmp_path / "x.keras")).code == 1


@pytest.mark.cold
@pytest.mark.alone
def test_killed_and_stopped_it_goes_on_from_its_newest_checkpoint(copied: Repo) -> None:
    command = [sys.executable, "-m", "expmgr", "run", "iris/v2", "--max-steps", "100000"]

    def interrupted(number: int) -> int:
        process = subprocess.Popen(command, cwd=copied.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        manifest = copied.path / "models/iris/v2/seed-0/manifest.json"
        before = manifest.read_bytes()
        deadline = time.monotonic() + 60
        while manifest.read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        return process.wait()

    assert interrupted(signal.SIGTERM) == 75
    stopped = record(copied, "iris/v2")
    assert stopped["status"] == "preempted"
    assert stopped["step"] == stopped["checkpoints"][-1]["step"] > 100
    assert interrupted(signal.SIGKILL) == -signal.SIGKILL
    time.sleep(1)
    killed = record(copied, "iris/v2")
    assert killed["attempts"][-1]["from_step"] == stopped["step"]
    assert killed["status"] in ("killed", "preempted")  # its worker may have seen that the command was gone, and saved
    newest = json.loads((copied.path / "models/iris/v2/seed-0/manifest.json").read_text())["checkpoints"][-1]["step"]
    result = copied.expmgr("run", "iris/v2", "--max-steps", str(newest + 50))
    assert result.code == 0, result.stderr
    found = record(copied, "iris/v2")
    assert (found["attempts"][-1]["from_step"], found["step"]) == (newest, newest + 50)
    assert not found["attempts"][-1]["not_exact"]
    steps = [step for step, _ in found["curves"]["train"]["loss"]]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("kind", ["v2", "v1", "own"])
def test_stopped_it_ends_bit_for_bit_as_one_that_was_left_alone(copied: Repo, kind: str) -> None:
    assert copied.expmgr("run", f"iris/{kind}", "--max-steps", "170").code == 0  # trained to step 100 before
    found = record(copied, f"iris/{kind}")
    assert found["attempts"][-1]["from_step"] == 100
    assert not found["attempts"][-1]["not_exact"]
    ended = tensors(copied, f"iris/{kind}", 170)
    assert copied.expmgr("run", f"iris/{kind}", "--max-steps", "170", "--fresh").code == 0
    alone = record(copied, f"iris/{kind}")
    assert len(alone["attempts"]) == 1
    left = tensors(copied, f"iris/{kind}", 170)
    assert ended.keys() == left.keys()
    assert all(ended[name].tobytes() == left[name].tobytes() for name in ended)
    assert found["metrics"] == alone["metrics"]


def test_what_a_dropout_draws_is_said_to_be_drawn_anew(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/v2", "[10, 10]", "[10, 10], dropout: 0.2")
    assert copied.expmgr("run", "iris/v2", "--max-steps", "20", "--fresh").code == 0
    assert copied.expmgr("run", "iris/v2", "--max-steps", "30").code == 0
    (line,) = record(copied, "iris/v2")["attempts"][-1]["not_exact"]
    assert line.startswith("a training step draws what no checkpoint keeps (RandomUniform")


@pytest.mark.parametrize(
    ("param", "words"),
    [
        ("sampled", "a training step draws what no checkpoint keeps (LogUniformCandidateSampler"),
        ("local", "a training step uses variables that are not saved: all/seen"),
        ("counts", "hook Counts of the model_fn: what it counts begins anew"),
    ],
)
def test_what_no_checkpoint_keeps_is_said(copied: Repo, change: Callable[..., None], param: str, words: str) -> None:
    change(copied, "iris/own", "model:build_own", "model:build_plain")
    change(copied, "iris/own", "hidden_units: [10, 10]", f"{param}: true")
    assert copied.expmgr("run", "iris/own", "--max-steps", "20", "--fresh").code == 0
    assert copied.expmgr("run", "iris/own", "--max-steps", "30").code == 0
    (line,) = record(copied, "iris/own")["attempts"][-1]["not_exact"]
    assert line.startswith(words.removesuffix("all/seen")), line


def test_a_loss_that_is_not_a_number_ends_it_with_its_step(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/own", "[10, 10]", "[10, 10], learning_rate: 1.0e+30")
    result = copied.expmgr("run", "iris/own", "--max-steps", "200", "--fresh")
    assert result.code == 1
    assert "iris/own (seed 0) is NaN at step " in result.stderr
    assert record(copied, "iris/own")["status"] == "failed"


def test_best_checkpoint_early_stopping_and_how_many_are_kept(copied: Repo, change: Callable[..., None]) -> None:
    change(
        copied,
        "iris/own",
        "run_config: {save_checkpoints_steps: 50}",
        "run_config: {save_checkpoints_steps: 20, keep_checkpoint_max: 2}\n"
        "selection:  {metric: accuracy}\neval:       {every_steps: 20}",
    )
    change(copied, "iris/own", "{max_steps: 100}", "{max_steps: 2000, early_stopping: {metric: loss, patience: 2}}")
    result = copied.expmgr("run", "iris/own", "--fresh")
    assert result.code == 0, result.stderr
    found = record(copied, "iris/own")
    assert found["attempts"][-1]["ended_early"].startswith("early stopping: loss has not become better")
    manifest = json.loads((copied.path / "models/iris/own/seed-0/manifest.json").read_text())
    steps = [one["step"] for one in manifest["checkpoints"]]
    assert steps[-1] == found["step"] < 2000
    assert found["selected_step"] in steps
    assert len(steps) <= 3
    best = max(value for _, value in found["curves"]["eval"]["accuracy"])
    assert found["metrics"]["selected"]["eval"]["accuracy"] == pytest.approx(best)


# What is brought along.


def test_run_config_passes_through_whole(copied: Repo, change: Callable[..., None]) -> None:
    change(
        copied,
        "iris/v2",
        "run_config: {save_checkpoints_steps: 50}",
        "run_config: {save_checkpoints_steps: 50, session_config: {intraOpParallelismThreads: 1}, protocol: grpc,\n"
        '             device_fn: "model:only_the_cpu", session_creation_timeout_secs: 60}',
    )
    change(copied, "iris/v2", "import tensorflow as tf\n", "import json\nimport tensorflow as tf\n", file="model.py")
    change(
        copied,
        "iris/v2",
        "def build_v2(params, run_config):\n",
        "def build_v2(params, run_config):\n"
        "    print('config', run_config.session_config.intra_op_parallelism_threads, run_config.protocol,\n"
        "          run_config.device_fn.__name__, run_config.session_creation_timeout_secs,\n"
        "          run_config.tf_random_seed, run_config.keep_checkpoint_max)\n",
        file="model.py",
    )
    result = copied.expmgr("run", "iris/v2", "--max-steps", "110")
    assert result.code == 0, result.stderr
    log = copied.path / ".git/expmgr/runs" / record(copied, "iris/v2")["run_id"] / "log.txt"
    assert "config 1 grpc only_the_cpu 60 0 5\n" in log.read_text(encoding="utf-8")


def test_a_model_dir_of_its_own_is_refused_with_the_way_out(copied: Repo, tmp_path: Path) -> None:
    copied.expmgr("new", "iris/elsewhere", "--from", "iris/v2", "--set", "model.build=model:build_elsewhere",
                  "--set", f"model.params.folder={tmp_path / 'other'}")  # fmt: skip
    before = copied.snapshot()
    result = copied.expmgr("run", "iris/elsewhere")
    assert result.code == 1
    assert f"keeps its checkpoints in {tmp_path / 'other'}, not in the variant's model_dir" in result.stderr
    assert "config=run_config" in result.stderr
    assert (copied.snapshot(), (tmp_path / "other").exists()) == (before, False)


def test_a_dataset_of_the_users_own_and_where_it_ends(copied: Repo) -> None:
    copied.write(
        "experiments/iris/data.py",
        "import csv\nfrom pathlib import Path\nimport tensorflow as tf\n\n"
        "WORDS = ['setosa', 'versicolor', 'virginica']\n\n\n"
        "def read(name):\n"
        "    rows = list(csv.DictReader(Path(__file__).with_name(name).open()))\n"
        "    names = [name for name in rows[0] if name != 'species']\n"
        "    features = {name: [float(row[name]) for row in rows] for name in names}\n"
        "    return tf.data.Dataset.from_tensor_slices((features, [WORDS.index(row['species']) for row in rows]))\n\n\n"
        "def train():\n    return read('iris_training.csv').shuffle(120).repeat(10).batch(30)\n\n\n"
        "def evaluation():\n    return read('iris_test.csv').batch(30)\n",
    )
    text = copied.read("experiments/iris/spec.yaml").replace(
        "{kind: csv, train: iris_training.csv, eval: iris_test.csv, label: species, batch_size: 100,\n            ",
        '{kind: python, train: "data:train", eval: "data:evaluation",',
    )
    copied.write("experiments/iris/spec.yaml", text)
    copied.commit("a Dataset")
    assert copied.expmgr("new", "iris/dataset").code == 0
    result = copied.expmgr("run", "iris/dataset")
    assert result.code == 0, result.stderr
    found = record(copied, "iris/dataset")
    assert (found["step"], found["attempts"][-1]["ended_early"]) == (
        40,
        "the training input ended, or a hook asked for it, at step 40",
    )
    assert found["metrics"]["selected"]["eval"]["accuracy"] > 0.5
    assert copied.expmgr("check", "iris/dataset").stdout.startswith("iris/dataset seed 0: same")


def test_an_estimators_model_dir_is_adopted_as_it_is(copied: Repo) -> None:
    """Into an Estimator's variant: the same files, evaluated to the same numbers."""
    old = ROOT / "tests/data/estimator_iris"
    data = (ROOT / "experiments/iris/iris_training.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert copied.expmgr("new", "iris/old", "--from", "iris/v2").code == 0
    result = copied.expmgr("adopt", str(old), "--as", "iris/old", "--vouch", "Ann Lee")
    assert result.code == 0, (result.stderr, data)
    wanted = json.loads((old / "eval.json").read_text())
    found = record(copied, "iris/old")
    assert found["metrics"]["selected"]["eval"]["accuracy"] == pytest.approx(wanted["accuracy"], abs=1e-6)
    assert found["metrics"]["selected"]["eval"]["average_loss"] == pytest.approx(wanted["average_loss"], abs=1e-5)
    assert (found["adopted"]["vouched_by"], found["adopted"]["fresh"]) == ("Ann Lee", [])
    name = "model.ckpt-200.data-00000-of-00001"
    assert (copied.path / "models/iris/old/seed-0" / name).read_bytes() == (old / name).read_bytes()
    assert copied.expmgr("run", "iris/old", "--max-steps", "210").code == 0
    assert record(copied, "iris/old")["attempts"][-1]["from_step"] == 200


# Environments.


def test_an_environment_that_cannot_be_is_told_before_anything_is_started(copied: Repo, tmp_path: Path) -> None:
    def told(python: str) -> str:
        (copied.path / "pyproject.toml").write_text(f'[tool.expmgr.environments]\nestimator = "{python}"\n')
        before = copied.snapshot()
        result = copied.expmgr("run", "iris/v2", "--max-steps", "110")
        assert (result.code, copied.snapshot()) == (1, before)
        return result.stderr

    assert "there is no Python at" in told(".venv-none")
    assert "model.kind estimator needs TensorFlow 2.14 or 2.15; environment estimator has 2." in told(sys.executable)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    broken.chmod(0o755)
    assert "does not run\n  broken\n" in told(str(broken))
    (copied.path / "pyproject.toml").unlink()
    result = copied.expmgr("run", "iris/v2", "--max-steps", "110")
    assert result.code == 1
    assert "the spec runs in environment estimator, and the settings name none of that name" in result.stderr


def test_a_keras_variant_runs_in_another_environment_beside_its_sisters(copied: Repo) -> None:
    copied.write("pyproject.toml", f'[tool.expmgr.environments]\ntwin = "{sys.prefix}"\n')
    spec = (ROOT / "experiments/iris/spec.yaml").read_text(encoding="utf-8")
    copied.write("experiments/iris/spec.yaml", spec.replace("1000", "20"))
    copied.commit("Keras")
    assert copied.expmgr("new", "iris/here").code == 0
    assert copied.expmgr("new", "iris/there", "--set", "environment=twin").code == 0
    result = copied.expmgr("run", "iris/here", "iris/there", "--jobs", "2")
    assert result.code == 0, result.stderr
    here, there = (record(copied, f"iris/{name}") for name in ("here", "there"))
    assert (here["environment"]["name"], there["environment"]["name"]) == (None, "twin")
    assert here["environment"]["lock"] == there["environment"]["lock"]
    assert here["metrics"] == there["metrics"]
    assert copied.expmgr("check", "iris/there").stdout.startswith("iris/there seed 0: same")


# Cases that a review found.


def made(repo: Repo, name: str, *values: str) -> None:
    sets = [part for value in values for part in ("--set", value)]
    result = repo.expmgr("new", f"iris/{name}", "--from", "iris/own", *sets)
    assert result.code == 0, result.stderr


def test_a_rate_that_is_read_behind_a_decay_takes_effect_too(copied: Repo, change: Callable[..., None]) -> None:
    made(copied, "decayed", "model.build=model:build_decayed")
    assert copied.expmgr("run", "iris/decayed").code == 0
    change(copied, "iris/decayed", "[10, 10]", "[10, 10], learning_rate: 0.0")
    result = copied.expmgr("run", "iris/decayed", "--max-steps", "120")
    assert "  optimizer.learning_rate: 0.1 -> 0.0, takes effect now" in result.stderr
    name = "dnn/hiddenlayer_0/kernel"
    assert np.array_equal(tensor(copied, "decayed", 100, name), tensor(copied, "decayed", 120, name))


def test_rates_of_two_optimizers_of_one_kind_are_told_apart(copied: Repo, change: Callable[..., None]) -> None:
    made(copied, "combined", "model.build=model:build_combined")
    assert copied.expmgr("run", "iris/combined").code == 0
    change(copied, "iris/combined", "[10, 10]", "[10, 10], rates: [0.02, 0.01]")  # the same two, exchanged
    result = copied.expmgr("run", "iris/combined", "--max-steps", "110")
    assert result.code == 0, result.stderr
    changes = record(copied, "iris/combined")["attempts"][-1]["changes"]
    assert sorted((one["saved"], one["wanted"]) for one in changes) == [("0.01", "0.02"), ("0.02", "0.01")]
    for one in changes:
        held = one["what"].removeprefix("optimizer.")
        assert float(tensor(copied, "combined", 110, held)) == pytest.approx(float(one["wanted"]))


def test_variables_as_tensorflow_1_had_them_are_seen_to_be_trained(copied: Repo, change: Callable[..., None]) -> None:
    made(copied, "plain", "model.build=model:build_plain", "model.params.resource=false")
    assert copied.expmgr("run", "iris/plain").code == 0
    change(copied, "iris/plain", "resource: false", "resource: false, weight: 100.0")
    told = json.loads(copied.expmgr("check", "iris/plain", "--json").stdout)["checks"][0]
    assert [one["rule"] for one in told["judgement"]["differences"]] == ["training-code"]


@pytest.mark.parametrize("what", ["parts=2", "own_saver=true", "leaps=true"])
def test_what_a_model_fn_may_do_besides(copied: Repo, what: str) -> None:
    made(copied, "plain", "model.build=model:build_plain", f"model.params.{what}")
    result = copied.expmgr("run", "iris/plain")
    assert result.code == 0, result.stderr
    found = record(copied, "iris/plain")
    step = found["step"]
    assert (step in (100, 102), found["parameters"]) == (True, 12)  # two by two it may leap over the last
    assert copied.expmgr("run", "iris/plain", "--max-steps", str(step + 20)).code == 0
    assert record(copied, "iris/plain")["attempts"][-1]["from_step"] == step


def test_a_keras_model_that_is_made_an_estimator(copied: Repo, change: Callable[..., None]) -> None:
    made(copied, "keras", "model.build=model:build_of_keras")
    assert copied.expmgr("run", "iris/keras").code == 0
    assert copied.expmgr("run", "iris/keras", "--max-steps", "120").code == 0
    assert record(copied, "iris/keras")["metrics"]["selected"]["eval"]["accuracy"] > 0.8
    assert copied.expmgr("evaluate", "iris/keras").code == 0
    assert copied.expmgr("export", "iris/keras", "-o", "served").code == 0
    change(copied, "iris/keras", "[10, 10]", "[20, 20]")
    assert copied.expmgr("run", "iris/keras", "--max-steps", "140").code == 3
    change(copied, "iris/keras", "[20, 20]", "[10, 10], checkpoint_format: checkpoint")  # TensorFlow's default
    before = copied.digest("models")
    result = copied.expmgr("run", "iris/keras", "--fresh")
    assert result.code == 1
    assert "the Estimator's own saver does not keep hidden/bias, hidden/kernel, logits/bias" in result.stderr
    assert 'Hint: model_to_estimator(..., checkpoint_format="saver")' in result.stderr
    assert copied.digest("models") == before


def test_a_saving_hook_of_the_model_fn_s_own_is_refused(copied: Repo, tmp_path: Path) -> None:
    made(copied, "plain", "model.build=model:build_plain", f"model.params.saves={tmp_path}")
    before = copied.snapshot()
    result = copied.expmgr("run", "iris/plain")
    assert (result.code, copied.snapshot()) == (1, before)
    assert "brings a CheckpointSaverHook of its own" in result.stderr


def test_an_estimator_runs_from_an_install_without_tensorflow(copied: Repo, tmp_path: Path) -> None:
    """TensorFlow is in the environment that the spec names, and there alone."""
    hidden(tmp_path / "light")
    light = Light((str(tmp_path / "light" / "bin" / "python"), "-m", "expmgr"))
    for command in (["run", "iris/v2", "--max-steps", "150"], ["check", "iris/v2"], ["evaluate", "iris/v2"]):
        result = light.expmgr(copied, *command)
        assert result.code == 0, (command, result.stderr)
    told = json.loads(light.expmgr(copied, "show", "iris/v2:0", "--json").stdout)
    assert (told["step"], told["environment"]["name"]) == (150, "estimator")
