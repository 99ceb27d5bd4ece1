"""What a spec says of training: each setting trains, and goes on bit for bit where it was stopped."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from train.runs import Site, WorkerProcess, spec_of, weights

pytestmark = pytest.mark.tf

_COSINE = {"kind": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 20, "warmup_target": 0.2,
           "warmup_steps": 4}  # fmt: skip

SETTINGS: dict[str, dict[str, Any]] = {
    "schedule": {"optimizer__learning_rate": _COSINE},
    "staircase": {"optimizer__learning_rate": {"kind": "piecewise_constant_decay", "boundaries": [7, 13],
                                               "values": [0.1, 0.05, 0.01]}},
    "average": {"optimizer__ema_momentum": 0.9, "model__dropout": 0.3},
    "accumulation": {"optimizer": {"kind": "adam", "learning_rate": 0.01, "gradient_accumulation_steps": 3}},
    "clipped": {"optimizer__global_clipnorm": 0.1, "model__batch_norm": True, "model__dropout": 0.2},
    "class weight": {"train__class_weight": {"x": 3.0}, "model__dropout": 0.2},
    "mixed_float16": {"train__precision": "mixed_float16", "model__batch_norm": True},
    "mixed_bfloat16": {"train__precision": "mixed_bfloat16", "model__dropout": 0.2},
    "determinism": {"train__determinism": True, "model__dropout": 0.2},
}  # fmt: skip


#: Those that others do not hold as well; the rest are slow tests.
_EVERY_DAY = ("mixed_float16",)


@pytest.mark.parametrize(
    "name", [name if name in _EVERY_DAY else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]
)
def test_each_setting_trains_and_goes_on_bit_for_bit(worker: WorkerProcess, site: Site, name: str) -> None:
    spec = spec_of(**SETTINGS[name])
    alone = worker.run(site.ask(spec, variant="tiny/alone"))
    assert alone.status == 0, alone.log
    part = worker.run(site.ask(spec, variant="tiny/parts", max_steps=13))
    rest = worker.run(site.ask(spec, variant="tiny/parts"))
    assert (part.status, rest.status) == (0, 0), part.log + rest.log
    assert rest.one("ready")["changes"] == []
    once, twice = (weights(site.model_dir(f"tiny/{which}"), 20) for which in ("alone", "parts"))
    assert once.keys() == twice.keys()
    assert [key for key in once if not np.array_equal(once[key], twice[key])] == []
    assert alone.one("ended")["metrics"] == rest.one("ended")["metrics"]


def test_a_learning_rate_is_the_schedule_s(worker: WorkerProcess, site: Site) -> None:
    import tensorflow as tf

    trained = worker.run(site.ask(spec_of(**SETTINGS["staircase"])))
    assert trained.status == 0, trained.log
    found: dict[int, float] = {}
    for path in site.model_dir().glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            rates = [one.simple_value for one in event.summary.value if one.tag == "learning_rate"]
            found.update(dict.fromkeys([event.step] if rates else [], rates[0] if rates else 0.0))
    assert found == pytest.approx({5: 0.1, 10: 0.05, 15: 0.01, 20: 0.01})


def test_an_average_is_what_is_evaluated(worker: WorkerProcess, site: Site) -> None:
    """Evaluated with the averages by hand, from the checkpoint alone."""
    spec = spec_of(optimizer__ema_momentum=0.99, model={"kind": "linear_regressor"}, data__label="amount",
                   data__features={"a": "numeric", "b": "numeric"})  # fmt: skip
    trained = worker.run(site.ask(spec))
    assert trained.status == 0, trained.log
    found = weights(site.model_dir(), 20)
    kernel, bias = found["optimizer/adagrad/logits_kernel_average"], found["optimizer/adagrad/logits_bias_average"]
    assert not np.allclose(kernel, found["variables/logits/kernel"])
    rows = [line.split(",") for line in (trained.folder.code / "experiments/tiny/eval.csv").read_text().split()[1:]]
    inputs = np.array([[float(row[0]), float(row[1])] for row in rows])
    wanted = np.array([float(row[4]) for row in rows])
    error = float(np.mean(np.abs((inputs @ kernel + bias)[:, 0] - wanted)))
    assert trained.one("ended")["metrics"]["last"]["eval"]["mean_absolute_error"] == pytest.approx(error, rel=1e-5)


Begun = Callable[[dict[str, Any]], Site]


@pytest.fixture(scope="module")
def begun(worker: WorkerProcess, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """`begun(changes)`: a site where tiny/base was trained to step 10 and tiny/other to step 20, once for equal changes."""

    @lru_cache
    def train(changes: str) -> Site:
        site = Site(tmp_path_factory.mktemp("begun"))
        spec = spec_of(**json.loads(changes))
        for trained in (
            worker.run(site.ask(spec, max_steps=10)),
            worker.run(site.ask(spec, variant="tiny/other")),
        ):
            assert trained.status == 0, trained.log
        return site

    return lambda changes: train(json.dumps(changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"optimizer__learning_rate": _COSINE}, ["learning-rate-schedule"]),
        ({"optimizer__learning_rate": _COSINE}, {}, ["learning-rate-schedule"]),
        ({}, {"optimizer__ema_momentum": 0.9}, ["weight-average"]),
        ({"optimizer__ema_momentum": 0.9}, {}, ["weight-average"]),
        ({}, {"optimizer__clipvalue": 0.1}, ["optimizer-setting"]),
        ({}, {"optimizer__gradient_accumulation_steps": 2}, ["gradient-accumulation"]),
        ({}, {"train__precision": "mixed_bfloat16"}, ["precision"]),
    ],
)  # fmt: skip
def test_what_may_change_in_the_midst_is_said_and_takes_effect(
    worker: WorkerProcess, site: Site, begun: Begun, before: dict[str, Any], after: dict[str, Any], said: list[str]
) -> None:
    shutil.copytree(begun(before).path / "models", site.path / "models")
    rest = worker.run(site.ask(spec_of(**after)))
    assert rest.status == 0, rest.log
    assert sorted({one["rule"] for one in rest.one("ready")["changes"]}) == said
    ends = [weights(site.model_dir(f"tiny/{which}"), 20)["variables/logits/kernel"] for which in ("base", "other")]
    is_moved = "weight-average" not in said  # an average moves no weight
    assert np.array_equal(*ends) != is_moved
    assert np.isfinite(ends[0]).all()


@pytest.mark.wide
def test_an_average_that_begins_late_begins_with_the_weights(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    at_ten = weights(site.model_dir(), 10)["variables/logits/kernel"]
    worker.run(site.ask(spec_of(optimizer__ema_momentum=0.5), max_steps=11))
    found = weights(site.model_dir(), 11)
    wanted = 0.5 * at_ten + 0.5 * found["variables/logits/kernel"]
    assert np.allclose(found["optimizer/adagrad/logits_kernel_average"], wanted, atol=1e-6)


def test_another_class_weight_is_another_loss(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    refused = worker.run(site.ask(spec_of(train__class_weight={"x": 3.0})))
    assert refused.status == 3
    assert any("class_weight" in line for line in refused.one("withdrawn")["error"]["details"])


def test_a_class_that_the_data_does_not_have_is_an_error(worker: WorkerProcess, site: Site) -> None:
    wrong = worker.run(site.ask(spec_of(train__class_weight={"nobody": 3.0})))
    assert wrong.status == 1
    assert wrong.one("withdrawn")["error"]["message"] == (
        "train.class_weight: 'nobody' is no class of the data, which has x, y, z"
    )


# When it is evaluated, and when it ends early.


@pytest.mark.wide
def test_evaluations_by_steps_and_their_batches(worker: WorkerProcess, site: Site) -> None:
    """15 rows to evaluate, 8 a batch: one batch in training, all of them at the end."""
    spec = spec_of(eval={"every_steps": 4, "steps": 1}, train__max_steps=18)
    trained = worker.run(site.ask(spec))
    assert trained.status == 0, trained.log
    curve = trained.curve("eval", "accuracy")
    assert [step for step, _ in curve] == [4, 8, 12, 16, 18]
    assert all((value * 8).is_integer() for _, value in curve[:-1])
    assert trained.one("ended")["metrics"]["last"]["eval"]["accuracy"] == curve[-1][1]
    silent = worker.run(site.ask(spec_of(eval={"at_end": False}), variant="tiny/silent"))
    assert (silent.curve("eval"), silent.one("ended")["metrics"]["last"]) == ([], {})


@pytest.mark.slow
def test_evaluations_by_seconds_and_none_moves_the_model(worker: WorkerProcess, site: Site) -> None:
    often = {"train__max_steps": 8_000, "run_config__save_checkpoints_steps": 8_000, "model__dropout": 0.3}
    looked = worker.run(site.ask(spec_of(eval={"every_secs": 1}, **often)))
    assert (looked.status, len(looked.curve("eval")) >= 2) == (0, True), looked.log
    plain = worker.run(site.ask(spec_of(**often), variant="tiny/plain"))
    ends = [weights(site.model_dir(f"tiny/{which}"), 8_000) for which in ("base", "plain")]
    assert all(np.array_equal(value, ends[1][key]) for key, value in ends[0].items())
    assert looked.one("ended")["metrics"] == plain.one("ended")["metrics"]


PATIENT = {
    "eval": {"every_steps": 2},
    "train__early_stopping": {"metric": "loss", "patience": 3, "min_delta": 0.5},
    "train__max_steps": 100,
}


@pytest.mark.slow
def test_early_stopping_ends_where_it_would_have_without_a_stop(worker: WorkerProcess, site: Site) -> None:
    spec = spec_of(**PATIENT)
    alone = worker.run(site.ask(spec, variant="tiny/alone"))
    assert alone.status == 0, alone.log
    ended = alone.one("ended")
    values = dict(alone.curve("eval"))
    best_step = max(step for step in values if step <= ended["step"] - 6)
    assert ended["ended_early"] == (
        f"early stopping: loss has not become better for 3 evaluations, since step {best_step} ({values[best_step]:.6g})"
    )
    assert (ended["step"], ended["status"]) == (best_step + 6, "finished")
    cut = worker.run(site.ask(spec, variant="tiny/cut", max_steps=best_step + 3))
    assert cut.one("ended")["ended_early"] is None
    rest = worker.run(site.ask(spec, variant="tiny/cut"))
    assert (rest.one("ready")["not_exact"], rest.one("ended")["step"]) == ([], ended["step"])
    ends = [weights(site.model_dir(f"tiny/{which}"), ended["step"]) for which in ("alone", "cut")]
    assert all(np.array_equal(value, ends[1][key]) for key, value in ends[0].items())
    again = worker.run(site.ask(spec, variant="tiny/cut"))
    assert (again.one("ended")["step"], again.one("ended")["ended_early"]) == (ended["step"], ended["ended_early"])
    longer = worker.run(site.ask(spec_of(train__max_steps=100), variant="tiny/cut"))
    assert (longer.status, longer.one("ended")["step"]) == (0, 100)


# Callbacks.

CALLBACKS = """
import json, pathlib, os
import keras

class Notes(keras.callbacks.Callback):
    def __init__(self, path="notes.json"):
        super().__init__()
        self.path, self.told = pathlib.Path(os.environ["EXPMGR_RUN_DIR"], path), []
    def tell(self, what, *values):
        self.told.append([what, *values])
        self.path.write_text(json.dumps(self.told))
    def on_train_begin(self, logs=None): self.tell("train begins")
    def on_epoch_begin(self, epoch, logs=None): self.tell("epoch begins", epoch)
    def on_epoch_end(self, epoch, logs=None): self.tell("epoch ends", epoch, sorted(logs))
    def on_train_end(self, logs=None): self.tell("train ends", sorted(logs))

class Batches(Notes):
    def on_train_batch_begin(self, batch, logs=None): self.tell("batch begins", batch)
    def on_train_batch_end(self, batch, logs=None): self.tell("batch ends", batch)

class Slower(keras.callbacks.Callback):
    def __init__(self, patience): super().__init__(); self.patience, self.epochs = patience, 0
    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        if self.epochs % self.patience == 0:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2
    def get_state(self): return {"epochs": self.epochs}
    def set_state(self, state): self.epochs = state["epochs"]

class Enough(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None): self.model.stop_training = epoch == 1

class Broken(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise ValueError("no such epoch")

class NoCallback: pass
"""


def with_callbacks(site: Site, *callbacks: Any, **about: Any) -> Any:
    changes = about.pop("changes", {})
    folder = site.ask(spec_of(callbacks=list(callbacks), **changes), **about)
    (folder.code / "experiments/tiny/mine.py").write_text(CALLBACKS)
    return folder


def notes(folder: Any) -> list[Any]:
    told: list[Any] = json.loads((folder.path / "notes.json").read_text())
    return told


def test_callbacks_see_epochs_as_fit_shows_them(worker: WorkerProcess, site: Site) -> None:
    """45 rows, 8 a batch: an epoch is 6 steps."""
    folder = with_callbacks(site, "mine:Notes", changes={"eval": {"every_steps": 6}})
    trained = worker.run(folder)
    assert trained.status == 0, trained.log
    logs = ["accuracy", "loss"]
    both = [*logs, "val_accuracy", "val_loss"]
    assert notes(folder) == [
        ["train begins"],
        *([what, epoch, *more] for epoch in range(3) for what, *more in (["epoch begins"], ["epoch ends", both])),
        ["epoch begins", 3],
        ["train ends", logs],
    ]
    plain = worker.run(site.ask(spec_of(), variant="tiny/plain"))
    assert plain.status == 0
    ends = [weights(site.model_dir(f"tiny/{which}"), 20) for which in ("base", "plain")]
    assert all(np.array_equal(value, ends[1][key]) for key, value in ends[0].items())


def test_a_callback_that_looks_at_batches_sees_each(worker: WorkerProcess, site: Site) -> None:
    folder = with_callbacks(site, "mine:Batches", max_steps=8)
    assert worker.run(folder).status == 0
    told = [one[:2] for one in notes(folder) if one[0].startswith("batch")]
    batches = [0, 1, 2, 3, 4, 5, 0, 1]
    assert told == [[word, batch] for batch in batches for word in ("batch begins", "batch ends")]


@pytest.mark.wide
def test_what_a_callback_keeps_goes_on_over_a_stop(worker: WorkerProcess, site: Site) -> None:
    """The learning rate that it moved, and what it counted."""
    slower = {"use": "mine:Slower", "params": {"patience": 2}}
    alone = worker.run(with_callbacks(site, slower, variant="tiny/alone", max_steps=30))
    assert alone.status == 0, alone.log
    worker.run(with_callbacks(site, slower, variant="tiny/cut", max_steps=19))
    rest = worker.run(with_callbacks(site, slower, variant="tiny/cut", max_steps=30))
    assert (rest.status, rest.one("ready")["not_exact"]) == (0, [])
    ends = [weights(site.model_dir(f"tiny/{which}"), 30) for which in ("alone", "cut")]
    assert all(np.array_equal(value, ends[1][key]) for key, value in ends[0].items())
    assert float(ends[0]["optimizer/adagrad/learning_rate"]) == pytest.approx(0.025)


@pytest.mark.wide
def test_a_callback_of_keras_and_what_it_does_not_keep_is_said(worker: WorkerProcess, site: Site) -> None:
    best = {"use": "keras.callbacks:EarlyStopping", "params": {"monitor": "loss", "restore_best_weights": True}}
    assert worker.run(with_callbacks(site, best, max_steps=10)).status == 0
    rest = worker.run(with_callbacks(site, best))
    assert rest.status == 0, rest.log
    assert rest.one("ready")["not_exact"] == [
        "callback keras.callbacks:EarlyStopping keeps nothing over a stop: what it counts, and weights that it holds, begin anew"
    ]


def test_a_callback_may_end_training(worker: WorkerProcess, site: Site) -> None:
    trained = worker.run(with_callbacks(site, "mine:Enough"))
    assert (trained.status, trained.one("ended")["step"]) == (0, 12)
    assert trained.one("ended")["ended_early"] == "callback mine:Enough asked for it"
    assert weights(site.model_dir(), 12)


@pytest.mark.parametrize(
    ("callback", "told"),
    [
        ("nowhere:Notes", ["ModuleNotFoundError: No module named 'nowhere'"]),
        ("mine:Nobody", []),
        ("mine:NoCallback", []),
        ({"use": "mine:Notes", "params": {"colour": 1}}, ["unexpected keyword argument 'colour'"]),
    ],
)
def test_a_callback_that_is_none_leaves_no_trace(
    worker: WorkerProcess, site: Site, callback: Any, told: list[str]
) -> None:
    wrong = worker.run(with_callbacks(site, callback))
    assert wrong.status == 1
    error = wrong.one("withdrawn")["error"]
    assert error["message"].startswith("callbacks.0: ")
    assert all(one in " ".join(error["details"]) for one in told)
    assert not site.model_dir().exists()


def test_an_error_in_a_callback_shows_the_user_s_own_lines(worker: WorkerProcess, site: Site) -> None:
    broken = worker.run(with_callbacks(site, "mine:Broken"))
    assert broken.status == 1
    error = broken.one("ended")["error"]
    assert error["message"] == "mine:Broken.on_epoch_end failed"
    assert [line.partition(":")[0] for line in error["details"]] == [
        "experiments/tiny/mine.py",
        '    raise ValueError("no such epoch")',
        "ValueError",
    ]
    assert broken.one("ended")["status"] == "failed"


# Event files.


def points(folder: Path, tag: str = "loss") -> list[tuple[int, float]]:
    """Every point of `tag` in the event files of `folder`, in the order in which they were written."""
    import tensorflow as tf

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found += [(event.step, one.simple_value) for one in event.summary.value if one.tag == tag]
    return found


@pytest.mark.slow
def test_no_step_stands_twice_in_event_files(worker: WorkerProcess, site: Site) -> None:
    """Killed behind a checkpoint, with half a record at the end: cut back, and then as if never killed."""
    spec = spec_of(train__max_steps=4_000, run_config__save_checkpoints_steps=1_000, run_config__save_summary_steps=300,
                   eval={"every_steps": 700})  # fmt: skip
    alone = worker.run(site.ask(spec, variant="tiny/alone"))
    assert alone.status == 0, alone.log
    killed = site.ask(spec, variant="tiny/killed")
    worker.start(killed)
    worker.events_until(killed, "point", 6)
    worker.say(kill=str(killed.path))
    worker.wait(killed)
    ends = [site.model_dir(f"tiny/{which}") for which in ("alone", "killed")]
    for path in ends[1].glob("events.out.tfevents.*"):
        with open(path, "ab") as file:
            file.write(b"\x10\x00\x00half a record")
    rest = worker.run(site.ask(spec, variant="tiny/killed"))
    assert rest.status == 0, rest.log
    for folder in (".", "eval"):
        assert len(points(ends[0] / folder)) >= 6
        assert points(ends[1] / folder) == points(ends[0] / folder)
    assert [step for step, _ in points(ends[1], "global_step/sec")] == [step for step, _ in points(ends[1])]


def test_tensorboard_reads_curves_graph_spec_and_hyperparameters(worker: WorkerProcess, site: Site) -> None:
    backend = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import plugin_data_pb2

    spec = spec_of(run_config__checkpoint_save_graph_def=True, optimizer__learning_rate=_COSINE)
    folder = site.ask(spec)
    (folder.code / "experiments/tiny/spec.yaml").write_text("experiment: tiny  # as it was written\n")
    assert worker.run(folder).status == 0
    read = backend.EventAccumulator(str(site.model_dir()))
    read.Reload()
    tags = read.Tags()
    assert tags["graph"]
    assert {"loss", "accuracy", "learning_rate", "global_step/sec"} <= set(tags["scalars"])
    assert [event.step for event in read.Scalars("loss")] == [5, 10, 15, 20]
    assert b"experiment: tiny  # as it was written" in read.Tensors("spec")[0].tensor_proto.string_val[0]
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert content.plugin_name == "hparams"
    start = plugin_data_pb2.HParamsPluginData.FromString(content.content).session_start_info
    assert start.hparams["model.hidden_units"].string_value == "[4, 4]"
    assert start.hparams["optimizer.learning_rate.decay_steps"].number_value == 20
    assert start.hparams["data.shuffle"].bool_value is True
    assert "optimizer.ema_momentum" not in start.hparams
    assert start.group_name == "tiny/base cccccccccccc"


# Stopping.

SLEEPER = """
import time
import keras

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.alone
def test_who_does_not_save_in_time_ends_and_goes_on_from_the_checkpoint_before(
    worker: WorkerProcess, site: Site
) -> None:
    spec = spec_of(callbacks=["slow:Slow"], train__grace_secs=1)
    folder = site.ask(spec)
    (folder.code / "experiments/tiny/slow.py").write_text(SLEEPER)
    worker.start(folder)
    worker.events_until(folder, "checkpoint")
    time.sleep(1)
    began = time.monotonic()
    worker.say(stop=str(folder.path))
    ended = worker.wait(folder)
    assert (ended.status, "ended" in ended.kinds()) == (75, False)
    assert 0.9 < time.monotonic() - began < 20
    rest = worker.run(site.ask(spec_of()))
    assert rest.status == 0, rest.log


# Saving beside training.

LARGE = {
    "model": {"kind": "dnn_classifier", "hidden_units": [1500, 1000], "dropout": 0.2},
    "train__max_steps": 60,
    "run_config__save_checkpoints_steps": 20,
}


@pytest.mark.wide
def test_a_large_model_is_saved_while_it_trains_and_each_checkpoint_is_of_its_own_step(
    worker: WorkerProcess, site: Site
) -> None:
    """Not of a later one: as trained to that step and no further."""
    trained = worker.run(site.ask(spec_of(**LARGE)))
    assert trained.status == 0, trained.log
    kinds = [(event["kind"], event["step"]) for event in trained.events if event["kind"] in ("point", "checkpoint")]
    assert kinds.index(("checkpoint", 20)) > kinds.index(("point", 25))  # training went on
    assert [step for kind, step in kinds if kind == "checkpoint"] == [0, 20, 40, 60]
    short = worker.run(site.ask(spec_of(**LARGE), variant="tiny/short", max_steps=20))
    assert short.status == 0
    ends = [weights(site.model_dir(f"tiny/{which}"), 20) for which in ("base", "short")]
    assert ends[0].keys() == ends[1].keys()
    assert [key for key in ends[0] if not np.array_equal(ends[0][key], ends[1][key])] == []


@pytest.mark.slow
@pytest.mark.alone
def test_a_kill_while_a_large_model_is_being_saved_leaves_the_checkpoint_before(
    worker: WorkerProcess, site: Site
) -> None:
    folder = site.ask(spec_of(**LARGE))
    worker.start(folder)
    while not list(site.model_dir().glob(".saving-20-*")):
        time.sleep(0.001)
    worker.say(kill=str(folder.path))
    assert worker.wait(folder).status < 0
    rest = worker.run(site.ask(spec_of(**LARGE)))
    assert rest.status == 0, rest.log
    assert rest.one("ready")["from_step"] in (0, 20)
    assert not list(site.model_dir().glob(".saving-*"))
    alone = worker.run(site.ask(spec_of(**LARGE), variant="tiny/alone"))
    assert alone.one("ended")["metrics"] == rest.one("ended")["metrics"]
    ends = [weights(site.model_dir(f"tiny/{which}"), 60) for which in ("base", "alone")]
    assert [key for key in ends[0] if not np.array_equal(ends[0][key], ends[1][key])] == []


EVERYTHING = {
    "model": {"kind": "dnn_classifier", "hidden_units": [8, 8], "dropout": 0.3, "batch_norm": True},
    "optimizer": {"kind": "adam", "learning_rate": {**_COSINE, "initial_learning_rate": 0.001,
                  "warmup_target": 0.002, "decay_steps": 60_000}, "ema_momentum": 0.99, "global_clipnorm": 1.0,
                  "gradient_accumulation_steps": 2},
    "train__class_weight": {"x": 2.0}, "train__max_steps": 60_000, "eval": {"every_steps": 4_000},
    "train__early_stopping": {"metric": "loss", "patience": 1000},
    "selection": {"metric": "loss"},
    "run_config__save_checkpoints_steps": 2_500, "run_config__save_summary_steps": 1_700,
    "run_config__log_step_count_steps": 1_000,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.alone
def test_twenty_random_kills_end_bit_equal_to_a_run_that_was_left_alone(worker: WorkerProcess, site: Site) -> None:
    """SIGKILL and SIGTERM at any moment: weights, slots, seeds, averages, metrics, curves and event files."""
    spec = spec_of(**EVERYTHING)
    alone = worker.run(site.ask(spec, variant="tiny/alone"))
    assert alone.status == 0, alone.log
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    parts, kills = [], 0
    while True:
        folder = site.ask(spec, variant="tiny/killed")
        worker.start(folder)
        if kills < 20:
            time.sleep(draw.uniform(0.3, 1.6))
            worker.say(**{draw.choice(["kill", "stop"]): str(folder.path)})
        part = worker.wait(folder)
        parts.append(part)
        if part.status == 0:
            break
        assert part.status in (75, -signal.SIGKILL, -signal.SIGTERM), part.log
        kills += 1
    assert kills >= 10
    ends = [site.model_dir(f"tiny/{which}") for which in ("alone", "killed")]
    once, twice = (weights(end, 60_000) for end in ends)
    assert once.keys() == twice.keys()
    assert [key for key in once if not np.array_equal(once[key], twice[key])] == []
    assert parts[-1].one("ended")["metrics"] == alone.one("ended")["metrics"]
    assert parts[-1].one("ended")["selected_step"] == alone.one("ended")["selected_step"]
    for place in (".", "eval"):
        for tag in ("loss", "accuracy"):
            assert points(ends[1] / place, tag) == points(ends[0] / place, tag)


# What a new user found.


@pytest.mark.wide
def test_switching_determinism_is_no_change_of_code(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    rest = worker.run(site.ask(spec_of(train__determinism=True)))
    assert (rest.status, rest.one("ready")["changes"]) == (0, [])
    assert rest.one("ready")["environment"]["op_determinism"] is True


@pytest.mark.wide
def test_a_changed_spec_of_which_no_step_would_be_trained_has_no_result(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of()))
    refused = worker.run(site.ask(spec_of(optimizer__learning_rate=0.5)))
    assert refused.status == 1
    error = refused.one("withdrawn")["error"]
    assert error["message"].endswith("model.ckpt-20 is at step 20, so nothing would be trained with what changed")
    assert error["details"] == ["optimizer.learning_rate   saved 0.1   wanted 0.5"]
    assert worker.run(site.ask(spec_of(optimizer__learning_rate=0.5), max_steps=30)).status == 0


STATES = """
import keras, json, os, pathlib
import numpy as np

class Best(keras.callbacks.Callback):
    best = float("inf")
    def get_state(self): return {"best": self.best, "seen": [np.float32(1.5), float("nan")]}
    def set_state(self, state): pathlib.Path(os.environ["EXPMGR_RUN_DIR"], "state.txt").write_text(repr(state))

class Odd(Best):
    def get_state(self): return {"best": {1, 2}}
"""


@pytest.mark.wide
def test_a_callback_s_state_comes_back_as_it_was_and_what_cannot_is_found_before_training(
    worker: WorkerProcess, site: Site
) -> None:
    def asked(name: str, **about: Any) -> Any:
        folder = site.ask(spec_of(callbacks=[f"states:{name}"]), **about)
        (folder.code / "experiments/tiny/states.py").write_text(STATES)
        return folder

    assert worker.run(asked("Best", max_steps=10)).status == 0
    rest = asked("Best")
    assert worker.run(rest).status == 0
    assert (rest.path / "state.txt").read_text() == "{'best': inf, 'seen': [1.5, nan]}"
    odd = worker.run(asked("Odd", variant="tiny/odd"))
    assert odd.status == 1
    assert odd.one("withdrawn")["error"]["message"] == (
        "states:Odd.get_state()['best'] is set, which a checkpoint cannot keep"
    )
    assert not site.model_dir("tiny/odd").exists()
