"""Runs through the real worker: what a user gets, what is refused, and what a kill leaves."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.disk.locks import Lock, Process
from train.runs import ROOT, Site, Trained, WorkerProcess, csv_text, spec_of, tree, worker_process

pytestmark = pytest.mark.tf

ALL_STATE = {"model__dropout": 0.3, "model__batch_norm": True, "data__normalize": True}


def checkpoint_digests(model_dir: Path) -> dict[str, str]:
    """sha256 of the data file of each checkpoint that the manifest lists: all weights, slots, seeds and metrics."""
    manifest = json.loads((model_dir / "manifest.json").read_bytes())
    return {
        name: file["sha256"]
        for saved in manifest["checkpoints"]
        for name, file in saved["files"].items()
        if ".data-" in name
    }


def error_lines(trained: Trained, kind: str = "withdrawn") -> list[str]:
    story = trained.one(kind)["error"]
    return [story["message"], *story["details"], *filter(None, [story["left_alone"], story["hint"]])]


def test_a_run_leaves_an_estimator_s_model_dir(worker: WorkerProcess, site: Site) -> None:
    trained = worker.run(site.ask(spec_of(run_config__checkpoint_save_graph_def=True)))
    assert trained.status == 0
    assert trained.kinds() == [
        "ready", "checkpoint", "point", "point", "checkpoint", "point", "point", "checkpoint", "point", "ended"
    ]  # fmt: skip
    ready, ended = trained.one("ready"), trained.one("ended")
    assert (ready["from_step"], ready["changes"], ready["parameters"]) == (0, [], 63)
    assert {split: told["rows"] for split, told in ready["data"].items()} == {"train": 45, "eval": 15}
    assert (ended["status"], ended["step"], ended["examples_seen"], ended["selected_step"]) == ("finished", 20, 160, 20)
    assert ended["metrics"]["selected"] == ended["metrics"]["last"]
    assert list(ended["metrics"]["last"]["eval"]) == ["loss", "accuracy"]
    assert [step for step, _ in trained.curve("train")] == [5, 10, 15, 20]
    assert [step for step, _ in trained.curve("eval")] == [20]
    names = sorted(path.name for path in site.model_dir().iterdir() if not path.name.startswith("events."))
    assert names == [
        "checkpoint", "eval", "graph.pbtxt", "manifest.json",
        *(f"model.ckpt-{step}.{end}" for step in (0, 10, 20) for end in ("data-00000-of-00001", "index", "json")),
        *(name for name in names if name.startswith("probe-")),
    ]  # fmt: skip
    assert (site.model_dir().parent / "variant.json").read_text() == '{\n "format": 1,\n "variant": "tiny/base"\n}\n'
    assert [line.partition(":")[0] for line in trained.log.splitlines() if line.startswith("step")] == [
        "step 5", "step 10", "step 15", "step 20"
    ]  # fmt: skip
    assert json.loads(trained.folder.progress.read_text())["max_steps"] == 20


@pytest.mark.parametrize(
    ("kind", "label", "metrics"),
    [
        ("linear_classifier", "kind", ["loss", "accuracy"]),
        ("linear_regressor", "amount", ["loss", "mean_absolute_error", "root_mean_squared_error"]),
        ("dnn_regressor", "amount", ["loss", "mean_absolute_error", "root_mean_squared_error"]),
    ],
)
def test_each_premade_model_learns(
    worker: WorkerProcess, site: Site, kind: str, label: str, metrics: list[str]
) -> None:
    model = {"kind": kind, **({"hidden_units": [8]} if kind.startswith("dnn") else {})}
    trained = worker.run(site.ask(spec_of(model=model, data__label=label, data__normalize=True, train__max_steps=100)))
    assert trained.status == 0, trained.log
    assert list(trained.one("ended")["metrics"]["last"]["eval"]) == metrics
    curve = trained.curve("train")
    assert curve[-1][1] < curve[0][1] / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "rmsprop", "ftrl"])
def test_each_optimizer_trains_and_goes_on(worker: WorkerProcess, site: Site, kind: str) -> None:
    spec = spec_of(optimizer={"kind": kind, "learning_rate": 0.01, "clipnorm": 1.0}, model__hidden_units=[3])
    whole = worker.run(site.ask(spec, variant="tiny/whole"))
    worker.run(site.ask(spec, variant="tiny/parts", max_steps=10))
    trained = worker.run(site.ask(spec, variant="tiny/parts"))
    assert (whole.status, trained.status, trained.one("ready")["from_step"]) == (0, 0, 10), trained.log
    assert checkpoint_digests(site.model_dir("tiny/whole")) == checkpoint_digests(site.model_dir("tiny/parts"))


@pytest.mark.wide
def test_a_complete_run_is_evaluated_again_and_a_longer_one_goes_on(worker: WorkerProcess, site: Site) -> None:
    first = worker.run(site.ask(spec_of()))
    before = checkpoint_digests(site.model_dir())
    again = worker.run(site.ask(spec_of(data__test="test.csv")))
    ended = again.one("ended")
    assert (again.one("ready")["from_step"], ended["step"], ended["examples_seen"]) == (20, 20, 160)
    assert ended["metrics"]["last"]["eval"] == first.one("ended")["metrics"]["last"]["eval"]
    assert set(ended["metrics"]["selected"]) == {"eval", "test"}
    assert checkpoint_digests(site.model_dir()) == before
    longer = worker.run(site.ask(spec_of(train__max_steps=30)))
    assert (longer.one("ready")["from_step"], longer.one("ready")["changes"], longer.one("ended")["step"]) == (
        20,
        [],
        30,
    )
    assert [step for step, _ in longer.curve("train")] == [25, 30]


@pytest.mark.wide
def test_other_rows_to_evaluate_choose_the_checkpoint_again(worker: WorkerProcess, site: Site) -> None:
    """The metrics that the selection chose by were found on other rows: none of them counts any more."""
    best = {"metric": "loss", "mode": "min"}
    worker.run(site.ask(spec_of(selection=best)))
    folder = ModelDir(site.model_dir(), shown="m", variant="tiny/base", seed=0)
    before = folder.read_manifest()
    ask = site.ask(spec_of(selection=best, train__max_steps=30))
    (ask.code / "experiments" / "tiny" / "eval.csv").write_text(csv_text(range(30, 50)), encoding="utf-8")
    again = worker.run(ask)
    assert [one["rule"] for one in again.one("ready")["changes"]] == ["evaluation-data"], again.log
    after = folder.read_manifest()
    assert before is not None
    assert after is not None
    (digest,) = {one.evaluated_on["eval"] for one in after.checkpoints}
    assert digest != before.checkpoints[0].evaluated_on["eval"]
    losses = {one.step: one.metrics["eval"]["loss"] for one in after.checkpoints}
    assert list(losses) == [0, 10, 20, 30]
    assert all(losses[one.step] != one.metrics["eval"]["loss"] for one in before.checkpoints)
    assert after.selected_step == again.one("ended")["selected_step"] == min(losses, key=lambda step: losses[step])


@pytest.mark.wide
def test_stopped_and_killed_runs_end_bit_equal_to_one_left_alone(worker: WorkerProcess, site: Site) -> None:
    """Dropout, BatchNorm, shuffling, and points that do not meet the checkpoints: weights, slots, seeds, curves."""
    spec = spec_of(**ALL_STATE, train__max_steps=8_000, run_config__save_summary_steps=700,
                   run_config__save_checkpoints_steps=2000, run_config__log_step_count_steps=None)  # fmt: skip
    alone = worker.run(site.ask(spec, variant="tiny/alone"))
    assert alone.status == 0, alone.log

    killed = site.ask(spec, variant="tiny/killed")
    worker.start(killed)
    worker.events_until(killed, "checkpoint", 2)
    worker.say(kill=str(killed.path))
    first = worker.wait(killed)
    assert (first.status, "ended" in first.kinds()) == (-signal.SIGKILL, False)

    stopped = site.ask(spec, variant="tiny/killed")
    worker.start(stopped)
    worker.events_until(stopped, "point", 1)
    worker.say(stop=str(stopped.path))
    second = worker.wait(stopped)
    assert (second.status, second.one("ended")["status"], second.one("ended")["error"]) == (75, "preempted", None)
    assert second.one("ready")["from_step"] >= 2000
    assert second.events[-2]["kind"] == "checkpoint"

    third = worker.run(site.ask(spec, variant="tiny/killed"))
    assert third.one("ready")["from_step"] == second.one("ended")["step"] < 8_000
    expected, found = (checkpoint_digests(site.model_dir(f"tiny/{name}")) for name in ("alone", "killed"))
    assert {name: found[name] for name in expected if name in found} == {
        name: digest for name, digest in expected.items() if name in found
    }
    assert "model.ckpt-8000.data-00000-of-00001" in found
    assert third.one("ended")["metrics"] == alone.one("ended")["metrics"]
    for metric in ("loss", "accuracy"):
        points: dict[int, float] = {}
        for part in (first, second, third):
            start = part.one("ready")["from_step"]
            points = {step: value for step, value in points.items() if step <= start}
            points.update(part.curve("train", metric))
        assert sorted(points.items()) == alone.curve("train", metric)


def test_the_guide_s_change_of_width_is_refused_before_a_byte_is_read(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(model__hidden_units=[10, 10])))
    before = tree(site.path / "models")
    trained = worker.run(site.ask(spec_of(model__hidden_units=[20, 20])))
    assert (trained.status, trained.kinds()) == (3, ["withdrawn"])
    assert error_lines(trained) == [
        "models/tiny/base/seed-0/model.ckpt-20 was not restored: it does not fit variant tiny/base",
        "hidden_0/kernel   saved float32 (6, 10)    wanted float32 (6, 20)",
        "hidden_0/bias     saved float32 (10)       wanted float32 (20)",
        "hidden_1/kernel   saved float32 (10, 10)   wanted float32 (20, 20)",
        "hidden_1/bias     saved float32 (10)       wanted float32 (20)",
        "logits/kernel     saved float32 (10, 3)    wanted float32 (20, 3)",
        "and 6 more (expmgr check tiny/base --all)",
        "Nothing was changed on disk.",
        "give the change a variant of its own: expmgr new tiny/base-2 --from tiny/base; "
        "or start anew, with the old model_dir kept aside: expmgr run tiny/base --fresh",
    ]
    assert tree(site.path / "models") == before

    check = worker.run(site.ask(spec_of(model__hidden_units=[20, 20]), mode="check", candidates=True))
    assert (check.status, check.kinds(), check.one("judged")["step"]) == (3, ["judged"], 20)
    assert check.one("judged")["judgement"]["verdict"] == "refuse"
    assert tree(site.path / "models") == before


@pytest.mark.wide
def test_fresh_keeps_the_old_model_dir_aside(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(model__hidden_units=[10, 10])))
    before = tree(site.model_dir())
    trained = worker.run(site.ask(spec_of(model__hidden_units=[20, 20]), fresh=True))
    assert (trained.status, trained.one("ready")["from_step"]) == (0, 0)
    (aside,) = (site.model_dir().parent / ".set-aside").iterdir()
    assert aside.name.startswith("seed-0-")
    assert tree(aside) == before


@pytest.mark.wide
def test_a_changed_learning_rate_is_said_and_takes_effect(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    shutil.copytree(site.model_dir(), site.path / "copy")
    trained = worker.run(site.ask(spec_of(optimizer__learning_rate=0.5)))
    assert [(one["what"], one["saved"], one["wanted"], one["rule"]) for one in trained.one("ready")["changes"]] == [
        ("optimizer.learning_rate", "0.1", "0.5", "optimizer-setting")
    ]
    shutil.rmtree(site.model_dir())
    shutil.copytree(site.path / "copy", site.model_dir())
    same = worker.run(site.ask(spec_of()))
    assert same.one("ready")["changes"] == []
    assert trained.curve("train") != same.curve("train")
    tensorflow = pytest.importorskip("tensorflow")
    reader = tensorflow.train.load_checkpoint(str(site.model_dir()))
    assert reader.get_tensor("optimizer/adagrad/learning_rate/.ATTRIBUTES/VARIABLE_VALUE") == pytest.approx(0.1)


@pytest.mark.slow
def test_dropout_switched_on_and_off_goes_on(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    on = worker.run(site.ask(spec_of(model__dropout=0.3), max_steps=15))
    assert ([one["what"] for one in on.one("ready")["changes"]], on.status) == (["model.dropout"], 0)
    off = worker.run(site.ask(spec_of()))
    assert ([one["what"] for one in off.one("ready")["changes"]], off.status) == (["model.dropout"], 0)


@pytest.mark.slow
def test_another_batch_size_goes_on_where_the_data_was(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(), max_steps=10))
    trained = worker.run(site.ask(spec_of(data__batch_size=20)))
    assert trained.one("ended")["examples_seen"] == 10 * 8 + 10 * 20


def test_a_loss_that_becomes_nan_ends_the_run_at_that_step(worker: WorkerProcess, site: Site) -> None:
    spec = spec_of(model__kind="dnn_regressor", data__label="amount", optimizer={"kind": "sgd", "learning_rate": 1e18})
    trained = worker.run(site.ask(spec))
    ended = trained.one("ended")
    step = ended["step"]
    assert (trained.status, ended["status"], 1 <= step < 10) == (1, "failed", True)
    word = "NaN" if "NaN" in ended["error"]["message"] else "infinite"
    assert error_lines(trained, "ended") == [
        f"the loss of tiny/base (seed 0) is {word} at step {step}",
        "The newest checkpoint before it is kept: models/tiny/base/seed-0/model.ckpt-0",
        "look at the data, lower optimizer.learning_rate, or bound the gradients by optimizer.clipnorm",
    ]
    assert list(checkpoint_digests(site.model_dir())) == ["model.ckpt-0.data-00000-of-00001"]


def test_the_newest_and_the_best_are_kept(worker: WorkerProcess, site: Site) -> None:
    spec = spec_of(selection={"metric": "loss", "mode": "max"}, data__test="test.csv",
                   run_config__save_checkpoints_steps=2, run_config__keep_checkpoint_max=3)  # fmt: skip
    trained = worker.run(site.ask(spec))
    curve = dict(trained.curve("eval"))
    assert list(curve) == list(range(0, 21, 2))
    best = max(curve, key=lambda step: (curve[step], -step))
    manifest = json.loads((site.model_dir() / "manifest.json").read_bytes())
    assert [one["step"] for one in manifest["checkpoints"]] == sorted({best, 16, 18, 20})
    on_disk = {int(path.stem.split("-")[1]) for path in site.model_dir().glob("*.index")}
    assert on_disk == {best, 16, 18, 20}
    ended = trained.one("ended")
    assert (ended["selected_step"], ended["metrics"]["selected"]["eval"]["loss"]) == (best, curve[best])
    assert ended["metrics"]["selected"]["test"] != ended["metrics"]["last"]["test"]
    assert ended["metrics"]["last"]["eval"]["loss"] == curve[20]


def test_a_model_dir_of_another_variant_is_refused(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of()))
    before = tree(site.path / "models")
    trained = worker.run(site.ask(spec_of(), variant="tiny/other", model_dir=site.model_dir()))
    assert (trained.status, trained.kinds()) == (1, ["withdrawn"])
    assert error_lines(trained) == [
        "models/tiny/other belongs to variant tiny/base, not to tiny/other",
        "Nothing was changed on disk.",
        "no two variants share a model_dir: move one of them, or give this one another models_dir",
    ]
    assert tree(site.path / "models") == before


def test_a_damaged_checkpoint_is_named_and_nothing_is_read_from_it(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of()))
    path = site.model_dir() / "model.ckpt-20.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    before = tree(site.path / "models")
    trained = worker.run(site.ask(spec_of(train__max_steps=30)))
    assert (trained.status, trained.kinds()) == (3, ["withdrawn"])
    assert error_lines(trained) == [
        "models/tiny/base/seed-0/model.ckpt-20 was not restored: it is damaged",
        "model.ckpt-20.data-00000-of-00001 has other content than was saved",
        "model.ckpt-10, saved before it, is whole",
        "Nothing was changed on disk.",
        "to go on from step 10, with what came after it kept aside: expmgr run tiny/base --from-step 10",
    ]
    assert tree(site.path / "models") == before


def test_bad_data_leaves_no_trace(worker: WorkerProcess, site: Site) -> None:
    folder = site.ask(spec_of())
    (folder.code / "experiments" / "tiny" / "train.csv").write_text("a,b,colour,kind\n1,2,red,x\n1,,red,y\n")
    trained = worker.run(folder)
    assert (trained.status, trained.kinds()) == (1, ["withdrawn"])
    assert error_lines(trained)[0] == "experiments/tiny/train.csv:3: column b has no value"
    assert not (site.path / "models").exists()


def test_a_model_dir_in_use_is_busy(worker: WorkerProcess, site: Site) -> None:
    lock = Lock(site.model_dir().parent / ".locks" / "seed-0")
    lock.acquire("the test")
    before = tree(site.path / "models")
    trained = worker.run(site.ask(spec_of()))
    assert (trained.status, trained.kinds()) == (4, ["withdrawn"])
    assert error_lines(trained) == [
        f"models/tiny/base/seed-0 is in use by process {os.getpid()} on {Process.current().host}",
        "Nothing was changed.",
        "wait for it to end; expmgr list shows what runs",
    ]
    assert tree(site.path / "models") == before


def test_several_runs_at_once_and_one_that_fails(worker: WorkerProcess, site: Site) -> None:
    folders = [site.ask(spec_of(), seed=seed) for seed in range(3)]
    bad = site.ask(spec_of(data__label="nothing"), seed=9)
    for folder in (*folders, bad):
        worker.start(folder)
    ended = [worker.wait(folder) for folder in (*folders, bad)]
    assert [one.status for one in ended] == [0, 0, 0, 1], [one.events for one in ended if one.status]
    digests = {checkpoint_digests(site.model_dir(seed=seed))["model.ckpt-0.data-00000-of-00001"] for seed in range(3)}
    assert len(digests) == 3


def test_user_code_finds_its_run_in_the_environment(worker: WorkerProcess, site: Site) -> None:
    trained = worker.run(site.ask(spec_of()))
    environment = trained.one("ready")["environment"]
    assert {"python", "tensorflow", "keras", "numpy", "expmgr", "cpus", "op_determinism"} <= environment.keys()
    assert "PATH" not in environment


ORPHANS = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from train.runs import Site, WorkerProcess, spec_of
site = Site(Path({site!r}))
worker = WorkerProcess(site.path)
folder = site.ask(spec_of(train__max_steps=10_000_000, run_config__log_step_count_steps=None))
worker.start(folder)
worker.events_until(folder, "checkpoint")
print(worker.process.pid, folder.path, flush=True)
worker.process.wait()
"""


def wait_until_gone(process: Process) -> None:
    while process.is_alive():
        os.sched_yield()


@pytest.mark.slow
@pytest.mark.alone
def test_no_worker_and_no_run_outlives_a_killed_command(site: Site) -> None:
    code = ORPHANS.format(paths=[str(ROOT), str(ROOT / "tests")], site=str(site.path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        pid, run_dir = command.stdout.readline().split()
        events, _ = durable.read_lines(Path(run_dir) / "events.jsonl")
        run = Process.from_dict(events[0]["worker"])
        command.kill()
    wait_until_gone(run)
    events, _ = durable.read_lines(Path(run_dir) / "events.jsonl")
    assert (events[-1]["kind"], events[-1]["status"]) == ("ended", "preempted")
    while Path(f"/proc/{pid}").exists():
        os.sched_yield()


def test_a_run_whose_worker_is_killed_saves_itself_and_ends(site: Site) -> None:
    worker = WorkerProcess(site.path)
    folder = site.ask(spec_of(train__max_steps=10_000_000, run_config__log_step_count_steps=None))
    worker.start(folder)
    events = worker.events_until(folder, "checkpoint")
    run = Process.from_dict(events[0]["worker"])
    worker.process.kill()
    assert worker.answer() == {}  # the run holds no end of the worker's pipe
    worker.process.wait()
    wait_until_gone(run)
    events, _ = durable.read_lines(folder.events)
    assert (events[-1]["kind"], events[-1]["status"]) == ("ended", "preempted")


def test_without_tensorflow_the_worker_says_so(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no module of that kind')")
    found = subprocess.run(
        [sys.executable, "-m", "expmgr.train.worker"], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, check=False,
    )  # fmt: skip
    told = json.loads(found.stdout)["failed"]
    assert (found.returncode, told["hint"]) == (1, "pip install tensorflow (2.16 or newer, with Keras 3)")
    assert told["message"] == "TensorFlow cannot be imported: no module of that kind"


def test_the_worker_ends_when_its_input_does(tmp_path: Path) -> None:
    with worker_process(tmp_path) as process:
        pass
    assert process.process.returncode == 0


def rewritten(model_dir: Path, step: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Another signature of a checkpoint, listed in the manifest as if it had been saved so."""
    path = model_dir / f"model.ckpt-{step}.json"
    values = json.loads(path.read_text())
    change(values)
    content = json.dumps(values).encode()
    path.write_bytes(content)
    manifest = json.loads((model_dir / "manifest.json").read_text())
    (saved,) = [one for one in manifest["checkpoints"] if one["step"] == step]
    saved["files"][path.name] = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (model_dir / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.wide
def test_the_probe_is_stored_at_the_first_and_the_last_checkpoint_and_asked_at_a_resume(
    worker: WorkerProcess, site: Site
) -> None:
    worker.run(site.ask(spec_of(**ALL_STATE)))
    stored = {
        step: json.loads((site.model_dir() / f"model.ckpt-{step}.json").read_text())["probe"] for step in (0, 10, 20)
    }
    assert stored[10] is None
    assert stored[0]["batch"] == stored[20]["batch"]
    assert [path.name for path in site.model_dir().glob("probe-*")] == [f"probe-{stored[0]['batch'][:16]}.npz"]
    assert len(stored[20]["outputs"]) == 15 * 3
    longer = worker.run(site.ask(spec_of(**ALL_STATE, train__max_steps=25)))
    assert longer.one("ready")["probe"] == "as saved"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("outputs", lambda probe: probe.update(outputs=[value + 1 for value in probe["outputs"]])),
        ("loss", lambda probe: probe.update(loss=probe["loss"] * 1.1)),
        ("metrics", lambda probe: probe.update(metrics={"accuracy": 5.0})),
        ("step", lambda probe: probe.update(step=[value * 2 for value in probe["step"]])),
    ],
)
def test_what_the_probe_finds_is_refused_with_nothing_changed(
    worker: WorkerProcess, site: Site, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    worker.run(site.ask(spec_of()))
    rewritten(site.model_dir(), 20, lambda values: change(values["probe"]))
    before = tree(site.model_dir())
    refused = worker.run(site.ask(spec_of(train__max_steps=25)))
    lines = error_lines(refused)
    assert lines[0] == (
        "models/tiny/base/seed-0/model.ckpt-20 was not restored: its model does not say what it said when it was saved"
    )
    assert lines[1].startswith(f"{name} moved by ")
    assert (refused.status, refused.kinds(), len(lines)) == (3, ["withdrawn"], 4)
    assert tree(site.model_dir()) == before


@pytest.mark.slow
def test_a_rule_says_what_of_the_probe_may_move(worker: WorkerProcess, site: Site) -> None:
    """A dropout moves the step, an eval split that changed moves the metrics; without the stored rows it is said."""
    worker.run(site.ask(spec_of()))
    dropped = worker.run(site.ask(spec_of(model__dropout=0.5, train__max_steps=25)))
    assert (dropped.status, dropped.one("ready")["probe"]) == (0, "as saved"), dropped.log
    (rows,) = site.model_dir().glob("probe-*")
    rows.unlink()
    again = worker.run(site.ask(spec_of(model__dropout=0.5, train__max_steps=30)))
    assert (again.status, again.one("ready")["probe"]) == (0, "its rows are missing")


def test_no_row_is_stored_where_the_spec_says_so(worker: WorkerProcess, site: Site) -> None:
    worker.run(site.ask(spec_of(probe="off")))
    assert not list(site.model_dir().glob("probe-*"))
    again = worker.run(site.ask(spec_of(probe="off", train__max_steps=25)))
    assert again.one("ready")["probe"] == "not stored"


@pytest.mark.wide
def test_a_renamed_column_goes_on_and_columns_in_another_order_of_the_file_are_the_same(
    worker: WorkerProcess, site: Site
) -> None:
    features = {"a": "numeric", "b": "numeric", "colour": "categorical"}
    worker.run(site.ask(spec_of()))

    turned = site.ask(spec_of(train__max_steps=22))
    for name in ("train", "eval"):
        path = turned.code / "experiments" / "tiny" / f"{name}.csv"
        rows = [line.split(",") for line in path.read_text().splitlines()]
        path.write_text("".join(",".join(reversed(row)) + "\n" for row in rows))
    same = worker.run(turned)
    assert (same.status, same.one("ready")["changes"]) == (0, []), same.log

    renamed = {"width" if name == "a" else name: kind for name, kind in features.items()}
    ask = site.ask(spec_of(data__features=renamed, train__max_steps=25))
    for name in ("train", "eval"):
        path = ask.code / "experiments" / "tiny" / f"{name}.csv"
        path.write_text(path.read_text().replace("a,b,", "width,b,", 1))
    again = worker.run(ask)
    assert [one["rule"] for one in again.one("ready")["changes"]] == ["feature-renamed"], again.log
    assert (again.one("ready")["from_step"], again.one("ready")["probe"]) == (22, "as saved")

    other = site.ask(spec_of(data__features=dict(reversed(renamed.items())), train__max_steps=30))
    for name in ("train", "eval"):
        path = other.code / "experiments" / "tiny" / f"{name}.csv"
        path.write_text(path.read_text().replace("a,b,", "width,b,", 1))
    refused = worker.run(other)
    assert refused.status == 3
    assert error_lines(refused)[1].startswith("features ")
