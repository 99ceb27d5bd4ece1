"""What needs TensorFlow and no process of its own: checkpoints, event files, batches, the loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expmgr.checkpoints.signature import Feature
from expmgr.errors import CheckpointRefused
from train.runs import Site, WorkerProcess, spec_of

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from expmgr.train.building import Built, build  # noqa: E402
from expmgr.train.data.datasets import Batches, Rows  # noqa: E402
from expmgr.train.loop.evaluation import Evaluation  # noqa: E402
from expmgr.train.loop.loop import InnerLoop, Listener, Loop  # noqa: E402
from expmgr.train.loop.schedule import BlockLength, Interval, Schedule  # noqa: E402
from expmgr.train.model import checkpoints  # noqa: E402
from expmgr.train.model.premade import input_names  # noqa: E402

pytestmark = pytest.mark.tf

ALL_STATE = {"model__dropout": 0.3, "model__batch_norm": True, "data__normalize": True}


def built(site: Site, **changes: Any) -> Built:
    return build(site.ask(spec_of(**changes)))


def values(model: Any) -> dict[str, Any]:
    groups = checkpoints.live_variables(model).groups
    return {f"{name}/{path}": one.value.numpy() for name, group in groups.items() for path, one in group.items()}


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key], equal_nan=True) for key in one)


def test_tensorflow_reads_what_a_run_leaves(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(**ALL_STATE, model__hidden_units=[4])))
    assert tf.train.latest_checkpoint(str(site.model_dir())) == str(site.model_dir() / "model.ckpt-20")
    names = [
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, _ in tf.train.list_variables(str(site.model_dir()))
    ]
    assert names == [
        "_CHECKPOINTABLE_OBJECT_GRAPH", "global_step",
        "optimizer/adagrad/batch_norm_0_beta_accumulator", "optimizer/adagrad/batch_norm_0_gamma_accumulator",
        "optimizer/adagrad/hidden_0_bias_accumulator", "optimizer/adagrad/hidden_0_kernel_accumulator",
        "optimizer/adagrad/iteration", "optimizer/adagrad/learning_rate",
        "optimizer/adagrad/logits_bias_accumulator", "optimizer/adagrad/logits_kernel_accumulator",
        "state/dropout_0/seed_generator_state",
        "state/metrics/accuracy/count", "state/metrics/accuracy/total",
        "state/metrics/loss/count", "state/metrics/loss/total",
        "variables/batch_norm_0/beta", "variables/batch_norm_0/gamma",
        "variables/batch_norm_0/moving_mean", "variables/batch_norm_0/moving_variance",
        "variables/hidden_0/bias", "variables/hidden_0/kernel", "variables/logits/bias", "variables/logits/kernel",
    ]  # fmt: skip
    kernel = tf.Variable(tf.zeros((6, 4)))
    tf.train.Checkpoint(variables={"hidden_0": {"kernel": kernel}}).restore(
        str(site.model_dir() / "model.ckpt-20")
    ).expect_partial()
    reader = tf.train.load_checkpoint(str(site.model_dir()))
    assert np.array_equal(kernel.numpy(), reader.get_tensor("variables/hidden_0/kernel/.ATTRIBUTES/VARIABLE_VALUE"))


def events(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        found += list(tf.compat.v1.train.summary_iterator(str(path)))
    return found


def test_event_files_hold_a_point_every_save_summary_steps_and_a_resume_cuts_back(
    worker: WorkerProcess, site: Site
) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    resumed = worker.run(site.ask(spec_of()))
    train = events(site.model_dir())
    points = [
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in train
        if event.summary.value and event.step  # at 0 stand the spec and what the HParams plugin reads
    ]
    assert [step for step, _ in points] == [5, 10, 15, 20]
    assert all({"loss", "accuracy", "learning_rate", "global_step/sec"} == set(found) for _, found in points)
    assert [found["loss"] for step, found in points if step > 10] == pytest.approx(
        [value for _, value in resumed.curve("train")]
    )
    assert [event.file_version for event in train if event.file_version] == ["brain.Event:2"] * 2
    starts = [event for event in train if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in starts] == [(11, tf.compat.v1.SessionLog.START)]
    evaluated = events(site.model_dir() / "eval")
    assert [event.step for event in evaluated if event.summary.value] == [10, 20]


def rows(count: int) -> Rows:
    return Rows((tf.range(count, dtype=tf.float32), tf.zeros(count, tf.int32)))


def order(batches: Batches, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += batches.indices(len(found)).numpy().tolist()
    return found[:count]


@pytest.mark.parametrize(("count", "sizes"), [(17, (4, 17, 40)), (1500, (100, 700)), (3, (64, 70))])
def test_every_epoch_holds_every_row_once_in_an_order_of_its_own(count: int, sizes: tuple[int, ...]) -> None:
    """By sorting, place by place, and with batches that are longer than many epochs."""
    first, *others = [order(Batches(rows(count), batch_size=size, seed=3, shuffle=True), 3 * count) for size in sizes]
    assert all(other == first for other in others)
    epochs = [first[start : start + count] for start in (0, count, 2 * count)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert order(Batches(rows(count), batch_size=sizes[0], seed=4, shuffle=True), 3 * count) != first
    if count > 3:
        assert len({tuple(epoch) for epoch in epochs}) == 3
    unshuffled = Batches(rows(count), batch_size=sizes[0], seed=3, shuffle=False)
    assert order(unshuffled, 2 * count) == [*range(count), *range(count)]


def test_one_row_is_every_batch() -> None:
    assert order(Batches(rows(1), batch_size=4, seed=3, shuffle=True), 4) == [0] * 4


class Silent(Listener):
    """A listener that only notes the points."""

    def __init__(self) -> None:
        self.points: list[Any] = []

    def summary_is_due(self, step: int, values: Any) -> None:
        self.points.append((step, dict(values)))


def train(site: Site, block: int) -> tuple[dict[str, Any], list[Any]]:
    run = built(site, **ALL_STATE)
    schedule = Schedule(
        saved_step=None,
        max_steps=60,
        checkpoints=Interval(secs=1e9),
        summaries=Interval(25),
        logs=Interval(),
        clock=lambda: 0,
    )
    length, listener = BlockLength(), Silent()
    length.steps = block
    length.learn = lambda *_: None  # type: ignore[method-assign]
    Loop(
        model=run.model, inner=run.inner, schedule=schedule, listener=listener, is_stopped=lambda: False,
        clock=lambda: 0, step=0, position=0, block=length,
    ).run()  # fmt: skip
    return values(run.model), listener.points


def test_the_numbers_are_the_same_however_long_the_inner_loop_is(site: Site) -> None:
    (one, points), *others = [train(site, block) for block in (1, 7, 1000)]
    assert [step for step, _ in points] == [25, 50, 60]
    for other, found in others:
        assert same(one, other)
        assert found == points


def test_the_inner_loop_stops_at_the_step_of_the_first_loss_that_is_not_finite(site: Site) -> None:
    run = built(
        site, model__kind="dnn_regressor", data__label="amount", optimizer={"kind": "sgd", "learning_rate": 1e18}
    )
    whole = run.inner.run(0, 0, 100)
    again = built(
        site, model__kind="dnn_regressor", data__label="amount", optimizer={"kind": "sgd", "learning_rate": 1e18}
    )
    single = 0
    while again.inner.run(single, single * 8, 1)[2]:
        single += 1
    assert whole == (single + 1, 8 * (single + 1), False)


def test_an_evaluation_takes_every_row_once_and_puts_the_training_metrics_back(site: Site) -> None:
    run = built(site)
    run.inner.run(0, 0, 5)
    before = values(run.model)
    found = [
        Evaluation(run.model, run.data.rows("eval"), size).run(lambda: False, lambda: 0.0) for size in (4, 15, 100)
    ]
    assert same(values(run.model), before)
    inputs, targets = run.data.rows("eval").take(tf.range(15))
    logits = run.model(inputs, training=False).numpy()
    accuracy = float(np.mean(np.argmax(logits, axis=1) == targets.numpy()))
    assert [one["accuracy"] for one in found if one] == pytest.approx([accuracy] * 3)
    assert Evaluation(run.model, run.data.rows("eval"), 4).run(lambda: True, lambda: 0.0) is None


def test_paths_and_first_weights_do_not_hang_on_what_was_built_before(site: Site) -> None:
    one = values(built(site, **ALL_STATE).model)
    built(site)
    assert same(one, values(built(site, **ALL_STATE).model))
    plain = values(built(site).model)
    assert all(np.array_equal(plain[key], one[key]) for key in plain if key.endswith("kernel"))


def saved(site: Site, run: Built, step: int = 5) -> Path:
    run.inner.run(0, 0, step)
    prefix = site.path / f"model.ckpt-{step}"
    checkpoints.write(run.model, step, prefix)
    return prefix


def test_a_checkpoint_comes_back_bit_for_bit(site: Site) -> None:
    run = built(site, **ALL_STATE)
    prefix = saved(site, run)
    before = values(run.model)
    again = built(site, **ALL_STATE)
    again.inner.trace()
    assert not same(values(again.model), before)
    checkpoints.restore(again.model, prefix, shown="model.ckpt-5", signature=run.signature(5))
    assert same(values(again.model), before)


def test_a_checkpoint_that_is_not_what_its_signature_says_changes_nothing(site: Site) -> None:
    run = built(site)
    prefix = saved(site, run)
    other = built(site, model__hidden_units=[4, 5])
    other.signature(5)  # traces, which builds the metrics' variables
    before = values(other.model)
    for signature, why in (
        (run.signature(5), "the variables of the model are not those of its signature"),
        (other.signature(6), "its global_step is not 6"),
        (other.signature(5), "optimizer/adagrad/hidden_1_bias_accumulator has shape (4,), not (5,)"),
    ):
        with pytest.raises(CheckpointRefused) as caught:
            checkpoints.restore(other.model, prefix, shown="model.ckpt-5", signature=signature)
        assert caught.value.message == f"model.ckpt-5 was not restored: {why}"
        assert same(values(other.model), before)


def test_a_weight_that_is_not_finite_is_seen(site: Site) -> None:
    run = built(site)
    assert checkpoints.is_finite(run.model)
    run.model.weights[0].assign(tf.fill(run.model.weights[0].shape, float("nan")))
    assert not checkpoints.is_finite(run.model)


def test_keys_are_tensorflow_s_own(site: Site) -> None:
    variable = tf.Variable(1.0)
    tf.train.Checkpoint(variables={"a.b": {"c d": variable}}).write(str(site.path / "x"))
    assert checkpoints.key_of("variables", "a.b/c d") in dict(tf.train.list_variables(str(site.path / "x")))


def test_column_names_become_legal_and_distinct_input_names() -> None:
    names = ["sepal length (cm)", "sepal_length__cm_", "hidden_0", "Größe", "_x", "a/b", "A_b", "logits"]
    assert input_names([Feature(name=name, kind="numeric") for name in names]) == {
        "sepal length (cm)": "sepal_length__cm_", "sepal_length__cm_": "sepal_length__cm__2",
        "hidden_0": "input_hidden_0",
        "Größe": "Gr__e", "_x": "input__x", "a/b": "a_b", "A_b": "A_b_2", "logits": "input_logits",
    }  # fmt: skip


def test_columns_with_such_names_train(site: Site) -> None:
    folder = site.ask(spec_of(data__features=None, data__label="kind"))
    for name in ("train", "eval"):
        (folder.code / "experiments" / "tiny" / f"{name}.csv").write_text(
            "petal width (cm),hidden_0,größe,[UNK],kind\n1,2,klein,[UNK],x\n2,1,groß,y,z\n3,4,groß,y,z\n",
            encoding="utf-8",
        )
    run = build(folder)
    assert run.inner.run(0, 0, 3) == (3, 3 * 8, True)


def test_the_inner_loop_honours_a_train_step_of_the_user_s(site: Site) -> None:
    run = built(site)
    calls: list[int] = []
    own = run.model.train_step

    def train_step(data: Any) -> Any:
        calls.append(1)
        return own(data)

    run.model.train_step = train_step
    InnerLoop(run.model, Batches(run.data.rows("train"), batch_size=8, seed=0, shuffle=True)).run(0, 0, 4)
    assert len(calls) >= 1
