"""TensorFlow's guide to checkpoints, row by row: what it says, and that it holds here.

Two rows have files of their own: exported models in a process that has neither code nor expmgr (test_ask.py), and the
wrong architecture (test_guide.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expmgr.spec.yaml_file import read_spec
from world import Repo

pytestmark = pytest.mark.tf

SPEC = b"""experiment: iris
data:      {kind: csv, train: a.csv, eval: b.csv, label: species}
model:     {kind: dnn_classifier, hidden_units: [10, 10]}
optimizer: {kind: adagrad, learning_rate: 0.1}
train:     {max_steps: 1000}
"""


def steps_on_disk(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("model.ckpt-*.index"))


def trained(repo: Repo, name: str, seed: int = 0) -> Path:
    """The model_dir of one of the variants that conftest.py trains for these rows."""
    return repo.path / f"models/iris/{name}/seed-{seed}"


def events(folder: Path) -> list[Path]:
    return list(folder.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_row_two_formats_checkpoint_and_saved_model(copied: Repo) -> None:
    """The first needs the code, the second does not."""
    assert copied.expmgr("export", "iris/wide@200", "-o", "served").code == 0
    assert copied.expmgr("export", "iris/wide", "-o", "served.keras", "--format", "keras").code == 0
    assert (copied.path / "served/saved_model.pb").is_file()
    assert (copied.path / "served.keras").is_file()


@pytest.mark.wide
def test_row_model_dir_given_or_a_temporary_folder(copied: Repo) -> None:
    assert (copied.path / "models/iris/wide/seed-0").is_dir()
    done = copied.expmgr("run", "iris/wide", "--scratch", "--max-steps", "5")
    folder = Path(done.stderr.splitlines()[-1].strip())
    assert steps_on_disk(folder) == [0, 5]
    assert not folder.is_relative_to(copied.path)


@pytest.mark.slow
def test_row_checkpoint_every_600_seconds_at_the_first_and_the_last_step_and_the_newest_five(rows: Repo) -> None:
    config = read_spec(SPEC, "spec.yaml").run_config
    assert (config.save_checkpoints_secs, config.save_checkpoints_steps, config.keep_checkpoint_max) == (600, None, 5)
    assert steps_on_disk(trained(rows, "default")) == [0, 60]
    assert steps_on_disk(trained(rows, "quiet")) == [20, 30, 40, 50, 60]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed", "keep"), [("silent", 0, None), ("all", 1, 0)])
def test_row_keep_checkpoint_max_none_or_0_keeps_all(rows: Repo, name: str, seed: int, keep: int | None) -> None:
    assert steps_on_disk(trained(rows, name, seed)) == [0, 10, 20, 30, 40, 50, 60]
    spec = json.loads(rows.expmgr("show", f"iris/{name}:{seed}", "--json").stdout)["spec"]
    assert spec["run_config"]["keep_checkpoint_max"] == keep


@pytest.mark.slow
def test_row_save_checkpoints_secs_and_keep_every_n_hours(copied: Repo) -> None:
    """One second, and every checkpoint as the one of its hour: all are kept."""
    sets = ["save_checkpoints_secs=1", "keep_checkpoint_max=1", "keep_checkpoint_every_n_hours=1e-9"]
    pairs = [part for one in sets for part in ("--set", f"run_config.{one}")]
    made = copied.expmgr("new", "iris/timed", "--from", "iris/baseline", "--set", "train.max_steps=20000", *pairs)
    assert made.code == 0, made.stderr
    assert copied.expmgr("run", "iris/timed").code == 0
    kept = steps_on_disk(copied.path / "models/iris/timed/seed-0")
    assert len(kept) >= 4
    assert kept[-1] == 20000


def test_row_two_lines_of_run_config_and_both_intervals_are_an_error(copied: Repo) -> None:
    text = SPEC + b"run_config: {save_checkpoints_secs: 1200, keep_checkpoint_max: 10}\n"
    config = read_spec(text, "spec.yaml").run_config
    assert (config.save_checkpoints_secs, config.keep_checkpoint_max) == (20 * 60, 10)
    both = ["--set", "run_config.save_checkpoints_secs=5", "--set", "run_config.save_checkpoints_steps=5"]
    wrong = copied.expmgr("new", "iris/both", "--from", "iris/baseline", *both)
    assert wrong.code == 1
    assert "save_checkpoints_steps and save_checkpoints_secs cannot both be set" in wrong.stderr


@pytest.mark.slow
def test_row_event_files_and_what_switches_them_off(rows: Repo) -> None:
    folder = rows.path / "models/iris/wide/seed-0"
    assert events(folder)
    assert events(folder / "eval")
    assert not (trained(rows, "quiet") / "graph.pbtxt").exists()
    assert (folder / "graph.pbtxt").is_file()
    run_id = json.loads(rows.expmgr("show", "iris/quiet:0", "--json").stdout)["run_id"]
    lines = [line for line in rows.expmgr("logs", run_id).stdout.splitlines() if line.startswith("step ")]
    assert [line.partition(":")[0] for line in lines] == ["step 20", "step 40", "step 60"]


@pytest.mark.slow
def test_row_save_summary_steps_none_and_log_step_count_steps_none(rows: Repo) -> None:
    folder = trained(rows, "silent")
    assert not events(folder)
    assert events(folder / "eval")
    assert "step 60" not in rows.expmgr("logs", "iris/silent").stdout


@pytest.mark.slow
def test_row_tf_random_seed_stands_for_the_run_s(rows: Repo) -> None:
    (seeded,) = list((rows.path / "models/iris/all").glob("seed-*"))
    assert seeded.name == "seed-1"
    done = rows.expmgr("run", "iris/baseline", "--seeds", "1", "--max-steps", "200")
    assert (done.code, "nothing to do" in done.stderr) == (0, True)
    wrong = rows.expmgr("run", "iris/all", "--seeds", "0-2")
    assert (wrong.code, "fixes its seed" in wrong.stderr) == (1, True)


@pytest.mark.slow
def test_row_train_evaluate_and_predict_each_restore_the_newest(copied: Repo) -> None:
    assert "resumes at step 200" in copied.expmgr("run", "iris/wide", "--max-steps", "210").stderr
    told = json.loads(copied.expmgr("evaluate", "iris/wide", "--json").stdout)
    assert told["step"] == 210
    rows = "experiments/iris/iris_test.csv"
    predicted = copied.expmgr("predict", "iris/wide", "--data", rows, "-o", "p.csv", "--json")
    assert json.loads(predicted.stdout)["step"] == 210
