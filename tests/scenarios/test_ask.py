"""`evaluate`, `predict` and `export`: a checkpoint that is asked, through the guard."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from world import Repo

pytestmark = pytest.mark.tf

LOAD = """
import json, sys
import numpy as np
import tensorflow as tf
assert "expmgr" not in sys.modules
rows = json.loads(sys.argv[2])
given = {name: np.array([row[name] for row in rows], "float32") for name in rows[0]}
if sys.argv[1].endswith(".keras"):
    import keras
    outputs = keras.saving.load_model(sys.argv[1])(given)
else:
    loaded = tf.saved_model.load(sys.argv[1])
    outputs = loaded.serve(given)
print(json.dumps(tf.nn.softmax(outputs).numpy().tolist()))
"""


@pytest.fixture
def new_rows(copied: Repo) -> list[dict[str, float]]:
    """Rows without a label, in new.csv, their columns in another order."""
    with open(copied.path / "experiments/iris/iris_test.csv") as file:
        rows = [{name: row[name] for name in reversed(row) if name != "species"} for row in csv.DictReader(file)]
    with open(copied.path / "new.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return [{name: float(value) for name, value in row.items()} for row in rows]


@pytest.mark.wide
def test_evaluate_says_what_the_run_recorded(copied: Repo) -> None:
    before = copied.snapshot()
    record = json.loads(copied.expmgr("show", "iris/wide:0", "--json").stdout)
    told = json.loads(copied.expmgr("evaluate", "iris/wide", "--json").stdout)
    assert told["metrics"] == pytest.approx(record["metrics"]["selected"]["eval"], abs=1e-6)
    assert (told["step"], told["rows"], told["judgement"]["verdict"], told["event"]) == (200, 30, "same", None)
    mine = copied.expmgr("evaluate", "iris/wide@0", "--data", "experiments/iris/iris_training.csv")
    assert mine.stdout.startswith("models/iris/wide/seed-0/model.ckpt-0 on 120 rows of ")
    assert copied.expmgr("evaluate", "iris/wide", "--split", "test").code == 2
    assert copied.snapshot() == before


@pytest.mark.slow
def test_what_was_evaluated_is_said_to_the_team_where_one_asks_for_it(copied: Repo) -> None:
    rows = "experiments/iris/iris_training.csv"
    told = json.loads(copied.expmgr("evaluate", "iris/wide", "--data", rows, "--log", "--json").stdout)
    (event,) = [
        one for one in json.loads(copied.expmgr("log", "--json").stdout)["events"] if one["kind"] == "evaluation"
    ]
    record = json.loads(copied.expmgr("show", "iris/wide:0", "--json").stdout)
    assert event["id"] == told["event"]
    assert (event["run_id"], event["seed"], event["step"]) == (record["run_id"], 0, 200)
    assert (event["split"], event["metrics"]) == ("iris_training.csv", told["metrics"])
    assert "evaluation of iris/wide seed 0 @200 (iris_training.csv): accuracy " in copied.expmgr("log").stdout


@pytest.mark.slow
def test_predict_and_an_export_that_needs_nothing_say_the_same(
    copied: Repo, new_rows: list[dict[str, float]], tmp_path: Path
) -> None:
    result = copied.expmgr("predict", "iris/wide", "--data", "new.csv", "-o", "predicted.csv")
    assert (result.code, result.stdout) == (
        0,
        "predicted.csv: 30 rows, predicted by models/iris/wide/seed-0/model.ckpt-200\n",
    )
    with open(copied.path / "predicted.csv") as file:
        predicted = list(csv.DictReader(file))
    labels = ["setosa", "versicolor", "virginica"]
    assert [*predicted[0]] == ["prediction", *(f"p_{label}" for label in labels)]
    shares = [[float(row[f"p_{label}"]) for label in labels] for row in predicted]
    assert all(row["prediction"] == labels[one.index(max(one))] for row, one in zip(predicted, shares, strict=True))
    copied.expmgr("predict", "iris/wide", "--data", "new.csv", "-o", "predicted.jsonl")
    lines = [json.loads(line) for line in copied.read("predicted.jsonl").splitlines()]
    assert [line["prediction"] for line in lines] == [row["prediction"] for row in predicted]

    for name, options in (("served", ()), ("wide.keras", ("--format", "keras"))):
        exported = copied.expmgr("export", "iris/wide", "-o", name, *options)
        assert exported.code == 0, exported.stderr
        moved = tmp_path / name
        (copied.path / name).rename(moved)
        done = subprocess.run(
            [sys.executable, "-I", "-c", LOAD, str(moved), json.dumps(new_rows)],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        for one, two in zip(json.loads(done.stdout), shares, strict=True):
            assert one == pytest.approx(two, abs=1e-5)


@pytest.mark.wide
def test_the_guard_stands_at_these_doors_too(copied: Repo, change: Callable[..., None], new_rows: object) -> None:
    change(copied, "iris/wide", "hidden_units: [20, 20]", "hidden_units: [20, 20], activation: tanh")
    before = copied.snapshot()
    for command in (["evaluate"], ["predict", "--data", "new.csv", "-o", "p.csv"], ["export", "-o", "served"]):
        refused = copied.expmgr(command[0], "iris/wide", *command[1:])
        assert refused.code == 3, (command, refused.stderr)
        assert "  model.activation   saved relu   wanted tanh\n" in refused.stderr
    assert copied.snapshot() == before
    allowed = copied.expmgr("evaluate", "iris/wide", "--allow", "activation")
    assert (allowed.code, "allowed by --allow activation" in allowed.stderr) == (0, True)


@pytest.mark.slow
def test_how_it_was_trained_does_not_count(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/wide", "{kind: adagrad, learning_rate: 0.1}", "{kind: sgd, learning_rate: 0.5}")
    assert copied.expmgr("check", "iris/wide").code == 3
    assert copied.expmgr("evaluate", "iris/wide").code == 0


@pytest.mark.slow
def test_what_is_there_is_left_alone(copied: Repo, new_rows: object) -> None:
    copied.write("mine.csv", "precious")
    before = copied.snapshot()
    cases = [
        (("predict", "iris/wide", "--data", "new.csv", "-o", "mine.csv"), "Error: mine.csv is there already\n"),
        (("predict", "iris/wide", "--data", "nwe.csv", "-o", "out.csv"), "nwe.csv cannot be read: No such file"),
        (("predict", "iris/wide", "--data", "mine.csv", "-o", "out.csv"), "mine.csv has a header and no rows"),
        (("export", "iris/wide", "-o", "no/where"), "Error: there is no folder no\n"),
        (("evaluate", "iris/wide@7"), "has no checkpoint of step 7"),
        (
            ("evaluate", "iris/wide", "--seed", "9"),
            "iris/wide has no checkpoint of seed 9; it has checkpoints of seeds 0-2",
        ),
    ]
    for command, told in cases:
        result = copied.expmgr(*command)
        assert (result.code, told in result.stderr) == (1, True), result.stderr
    assert copied.snapshot() == before


@pytest.mark.slow
def test_a_moving_average_is_what_is_asked(copied: Repo) -> None:
    """Evaluated after the run as in it, and not with the weights that it is the average of."""
    sets = ["--set", "optimizer.ema_momentum=0.99", "--set", "train.max_steps=60"]
    assert copied.expmgr("new", "iris/average", "--from", "iris/wide", *sets).code == 0
    assert copied.expmgr("run", "iris/average").code == 0
    record = json.loads(copied.expmgr("show", "iris/average:0", "--json").stdout)
    told = json.loads(copied.expmgr("evaluate", "iris/average", "--json").stdout)
    assert told["metrics"] == record["metrics"]["last"]["eval"]
    assert copied.expmgr("new", "iris/plain", "--from", "iris/wide", "--set", "train.max_steps=60").code == 0
    assert copied.expmgr("run", "iris/plain").code == 0
    plain = json.loads(copied.expmgr("show", "iris/plain:0", "--json").stdout)
    assert told["metrics"]["loss"] > plain["metrics"]["last"]["eval"]["loss"]
