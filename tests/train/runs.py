"""Runs as the launcher asks for them, for the tests of the worker: a run folder, a request, and the real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from expmgr.disk import durable
from expmgr.paths import RunDir
from expmgr.spec.experiment import ExperimentSpec

ROOT = Path(__file__).parents[2]

#: Two numeric columns, one of words, three classes that they tell apart.
_ROWS = [(index % 7 + 0.5 * (index % 3), 10.0 - index % 5, ["red", "green", "blue"][index % 3]) for index in range(60)]


def csv_text(rows: range) -> str:
    """Some of the rows, with the header."""
    lines = [
        f"{a},{b},{colour},{'xyz'[index % 3]},{a - b}" for index, (a, b, colour) in enumerate(_ROWS) if index in rows
    ]
    return "a,b,colour,kind,amount\n" + "\n".join(lines) + "\n"


def spec_of(**changes: Any) -> dict[str, Any]:
    """A small spec, with `model_hidden_units=[20, 20]` for `model.hidden_units`, None to leave a key out."""
    spec: dict[str, Any] = {
        "experiment": "tiny",
        "data": {"kind": "csv", "train": "train.csv", "eval": "eval.csv", "label": "kind", "batch_size": 8,
                 "features": {"a": "numeric", "b": "numeric", "colour": "categorical"}},
        "model": {"kind": "dnn_classifier", "hidden_units": [4, 4]},
        "optimizer": {"kind": "adagrad", "learning_rate": 0.1},
        "train": {"max_steps": 20},
        "run_config": {"save_checkpoints_steps": 10, "save_summary_steps": 5, "log_step_count_steps": 5,
                       "checkpoint_save_graph_def": False},
    }  # fmt: skip
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if not name:
            spec[part] = value
        elif value is None:
            del spec[part][name]
        else:
            spec[part][name] = value
    return ExperimentSpec.model_validate(spec).resolved()


@dataclass
class Trained:
    """What a run left in its folder."""

    folder: RunDir
    status: int | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def one(self, kind: str) -> dict[str, Any]:
        """The event of that kind, which has to be there once."""
        (found,) = [event for event in self.events if event["kind"] == kind]
        return found

    def curve(self, split: str, metric: str = "loss") -> list[tuple[int, float]]:
        points = [event for event in self.events if event["kind"] == "point" and event["split"] == split]
        return [(event["step"], event["values"][metric]) for event in points if metric in event["values"]]

    @property
    def log(self) -> str:
        return self.folder.log.read_text(encoding="utf-8")


class Site:
    """A folder with model_dirs and runs, as a user's repository has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0

    def model_dir(self, variant: str = "tiny/base", seed: int = 0) -> Path:
        return self.path / "models" / variant / f"seed-{seed}"

    def ask(
        self,
        spec: dict[str, Any],
        *,
        variant: str = "tiny/base",
        seed: int = 0,
        mode: str = "train",
        fresh: bool = False,
        model_dir: Path | None = None,
        max_steps: int | None = None,
        candidates: bool = False,
        code: dict[str, str] | None = None,
        ask: dict[str, Any] | None = None,
    ) -> RunDir:
        """The folder of a run with its request and its checkout."""
        self._count += 1
        folder = RunDir(self.path / "runs" / f"run-{self._count}")
        experiment_dir = folder.code / "experiments" / "tiny"
        experiment_dir.mkdir(parents=True)
        for name, rows in (("train", range(45)), ("eval", range(45, 60)), ("test", range(30, 50))):
            (experiment_dir / f"{name}.csv").write_text(csv_text(rows), encoding="utf-8")
        for name, text in (code or {}).items():
            (experiment_dir / name).write_text(text, encoding="utf-8")
        model_dir = model_dir or self.model_dir(variant, seed)
        request = {
            "format": 1, "mode": mode, "run_id": folder.path.name, "variant": variant, "seed": seed,
            "commit": "c" * 40,
            "spec": spec, "experiment_dir": str(experiment_dir), "variant_dir": str(model_dir.parent),
            "model_dir": str(model_dir), "shown_model_dir": f"models/{variant}/seed-{seed}",
            "max_steps": max_steps or spec["train"]["max_steps"], "fresh": fresh,
            "provenance": {"run": folder.path.name},
        }  # fmt: skip
        if ask is not None:
            source = {
                "variant": variant,
                "seed": seed,
                "model_dir": str(model_dir),
                "shown": request["shown_model_dir"],
            }
            request["ask"] = {"source": source, **ask}
        if candidates:
            about = {"variant": variant, "seed": seed, "model_dir": str(model_dir)}
            request["candidates"] = [{**about, "shown": request["shown_model_dir"]}]
        durable.write_json(folder.request, request)
        return folder


def tree(folder: Path) -> dict[str, str]:
    """Every path below `folder` with a digest of its content."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


class WorkerProcess:
    """The real worker, spoken to as the launcher does."""

    def __init__(self, path: Path) -> None:
        self.stderr_path = path / "worker.txt"
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "expmgr.train.worker"],
                cwd=path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        self._ended: dict[str, int] = {}
        assert self.answer() == {"ready": True}, self.stderr_path.read_text(encoding="utf-8")

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def say(self, **command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def start(self, folder: RunDir) -> None:
        self.say(start=str(folder.path))

    def wait(self, folder: RunDir) -> Trained:
        """The run, when it has ended."""
        while str(folder.path) not in self._ended:
            answer = self.answer()
            self._ended[answer["ended"]] = answer["status"]
        return Trained(folder, self._ended[str(folder.path)], durable.read_lines(folder.events)[0])

    def run(self, folder: RunDir) -> Trained:
        self.start(folder)
        return self.wait(folder)

    def events_until(self, folder: RunDir, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Follow the events until `count` of that kind are there."""
        while True:
            events, _ = durable.read_lines(folder.events)
            if sum(event["kind"] == kind for event in events) >= count:
                return events
            assert "withdrawn" not in [event["kind"] for event in events], events

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@contextmanager
def worker_process(path: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(path)
    try:
        yield worker
    finally:
        worker.close()


def weights(model_dir: Path, step: int) -> dict[str, Any]:
    """Every tensor of a checkpoint, by its key without TensorFlow's suffix."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(model_dir / f"model.ckpt-{step}"))
    keys = [key for key in reader.get_variable_to_shape_map() if key.endswith("/.ATTRIBUTES/VARIABLE_VALUE")]
    return {key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): reader.get_tensor(key) for key in keys}
