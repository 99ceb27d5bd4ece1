"""Real files of every kind that is parsed, as the product writes them: what the fuzzers begin with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clones import Team, asked, ok, ran, record_of, saved, signature
from expmgr.checkpoints.manifest import SavedCheckpoint, SavedFile
from expmgr.checkpoints.probe_rows import rows_content
from expmgr.checkpoints.rebuild import about_of
from expmgr.checkpoints.signature import (
    DataContract,
    Feature,
    Fingerprint,
    ProbeValues,
    Signature,
    TrainingSetup,
    Variable,
)
from expmgr.log.logs import RECORD_FILE, REVIEW_FILE
from expmgr.project import Project
from expmgr.runs import events
from expmgr.runs.record import RunRecord
from expmgr.store.contents import Contents
from tables import index_bytes
from world import ROOT, Repo, new_repo

#: Of the checkpoint whose manifest is rebuilt.
WEIGHTS = b"weights"


@dataclass(frozen=True, repr=False)
class Real:
    """A repository of a team, and the files that it has made."""

    folder: Path
    files: dict[str, list[bytes]]
    """Target to its seeds."""
    index: bytes
    """Of the checkpoint that `signature` is of."""

    @property
    def spec(self) -> bytes:
        return self.files["spec"][0]

    @property
    def record(self) -> bytes:
        return self.files["record"][0]

    @property
    def review(self) -> bytes:
        return self.files["review"][0]

    @property
    def signature(self) -> Signature:
        return Signature.model_validate_json(self.files["signature"][0])

    @contextlib.contextmanager
    def with_record(self, run_id: str, content: bytes) -> Iterator[Repo]:
        """The repository, in which another clone told of this record."""
        repo = Repo(self.folder / "ann")
        run_dir = Project.open(repo.path).records.run_dir(run_id)
        origin = run_dir.path / "origin.json"
        before = run_dir.record.read_bytes()
        try:
            run_dir.record.write_bytes(content)
            origin.write_text(json.dumps({"format": 1, "writer": "eve-00000001", "attempt": 1, "by": "Eve"}))
            yield repo
        finally:
            run_dir.record.write_bytes(before)
            origin.unlink()


def make(folder: Path) -> None:
    """Write what `real` reads to `folder`."""
    _team(folder)
    ann = Repo(folder / "ann")
    project = Project.open(ann.path)
    with_model_dir = saved(ann, "iris/wide", 7, b"content")
    model_dir = project.layout.model_dir(with_model_dir.name, 7)
    ok(ann, "review", "comment", "wide", "-m", "well done", "--on", "check:few-seeds")
    ok(ann, "review", "close", "wide", "--reason", "superseded")
    told = project.logs.events()
    (kept,) = [one for one in project.logs.beside(told, REVIEW_FILE) if one is not None]
    records = [one for one in project.logs.beside(told, RECORD_FILE) if one is not None]
    wide = [one for one in records if RunRecord.model_validate_json(one).variant == "iris/wide"]
    signers = (
        b"# who\nann@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3u5pxm4Qf4e3zqU8bZlVv3m1W0r4p1cQ7s0K5V9w3x\n"
    )
    specs = [path.read_bytes() for path in sorted(ROOT.glob("experiments/*/spec.yaml"))]
    iris = (ROOT / "experiments/iris/spec.yaml").read_bytes()
    rich = (
        iris
        + b"""\
loss: null
run_config: {save_checkpoints_steps: 100, keep_checkpoint_max: 5}
selection: {metric: accuracy, mode: max, split: eval}
eval: {every_steps: 50}
train_: &a {x: [1, 2.5, "three"], y: null}
other: {<<: *a, when: 2024-01-31}
"""
    )
    python = (ROOT / "experiments/digits/spec.yaml").read_bytes()
    files = {
        "spec": [iris, *specs, python + b"# params\n", rich],
        "set": [b"model.hidden_units=[20, 20]\n" + iris, b"train.max_steps=7\n" + python, b"model.params.x={a: 1}\n" + python,
                b"compare=null\n" + iris, b"optimizer.learning_rate=null\n" + rich],
        "code": [b"import expmgr, libs.x\nfrom pydantic import BaseModel\nclass Params(BaseModel):\n    units: int = 3\n"
                 b"def build(params: Params): ...\ntry:\n    from libs import train\nexcept ImportError:\n    train = build\n"
                 b"expmgr.params({'x': 1})\n", (ROOT / "experiments/bars-vae/model.py").read_bytes()],
        "condition": [b"model.hidden_units=[20, 20]", b"accuracy>0.9", b"why~text", b"train.max_steps != 1e3"],
        "event": [re.sub(r"\"writer\":\"[^\"]*", '"writer":"ann-00000001', one.content).encode() for one in told],
        "record": [*wide[-1:], *wide[:1]],
        "own-record": [*wide[-1:], json.dumps(_running(project).model_dump(mode="json")).encode()],
        "run-events": [_run_events()],
        "request": [_request(with_model_dir)],
        "small-files": [(project.layout.own / "writer.json").read_bytes(),
                        b'{"format": 1, "writer": "eve-00000001", "event": "0", "attempt": 1, "by": "Eve"}',
                        b'{"format": 1, "run_id": "20260102-030405678-abcdef"}'],
        "manifest": [(model_dir / "manifest.json").read_bytes().replace(b'"seed": 7', b'"seed": 0')],
        "signature": [signature_of_one().model_dump_json().encode(), signature(1).model_dump_json().encode()],
        "rebuild": [signature_that_tells().model_dump_json().encode()],
        "bundle": [index_bytes({f"variables/{n}/.ATTRIBUTES/VARIABLE_VALUE": (1, (n, 4)) for n in range(9)}), index_bytes({})],
        "probe-rows": [rows_content([np.zeros((3, 2), "float32"), np.arange(4), np.array([b"a", b"bc"])])],
        "contents": [_contents(with_model_dir, model_dir)],
        "dvc": [b'[{"md5": "00000000000000000000000000000000", "relpath": "a/b.png"}]'],
        "settings": [b'models_dir = "m"\npass_environment = ["AWS_*"]\nrecord_user = false\ntarget = "main"\n',
                     b'[tool.expmgr]\nmodels_dir = "models"\nstore = "../store"\nsigning = "warn"\n'
                     b'[tool.expmgr.review]\napprovals = 2\n[tool.expmgr.environments]\nold = "~/venv"\n'],
        "signers": [signers, signers + b"bob@example.com,rob@example.com namespaces=\"git\" " + signers.split(b"\n")[1][16:]
                    + b"\neve@example.com openpgp 0123 4567 89AB CDEF 0123\n*@example.com,!eve@example.com ssh-rsa AAAA\n"],
        "review": [kept],
        "csv": [(ROOT / "experiments/iris/iris_test.csv").read_bytes()[:400].rpartition(b"\n")[0],
                b'a,b,species\n1,"x, y",u\n2,z,v\n'],
    }  # fmt: skip
    with open(folder / "real.pickle", "wb") as file:
        pickle.dump((files, _index_of(signature_of_one())), file)


def real(folder: Path) -> Real:
    """What `make` made in `folder`."""
    with open(folder / "real.pickle", "rb") as file:
        files, index = pickle.load(file)
    return Real(folder, files, index)


def _team(folder: Path) -> None:
    team = Team(folder)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(team.hub.path)], check=True)
    first = new_repo(folder / "first")
    shutil.copytree(ROOT / "experiments" / "iris", first.path / "experiments" / "iris")
    first.commit("Add experiment iris")
    first.git("push", "--quiet", str(team.hub.path), "main")
    ann = asked(team)
    ok(ann, "note", "iris/wide", "-m", "a note")
    curves = {"eval": {"accuracy": [(1, 0.5), (2, 0.75)]}}
    error = {"message": "it broke", "details": ["here"]}
    ran(ann, "iris/wide", 0.95, first=3, curves=curves, params={"model": {"a": [1, "b"]}},
        warm_start={"variant": "iris/baseline", "seed": 0, "step": 5, "left": []},
        adopted={"path": "/old", "vouched_by": "Ann", "step": 5})  # fmt: skip
    ran(ann, "iris/wide", 0.95, first=4, status="failed", environment={"name": "old", "lock": "ab", "error": error})


def _running(project: Project) -> RunRecord:
    record = record_of(project, "iris/wide", 0, 0.5)
    launcher = {"host": "h", "boot": "b", "pid_space": "p", "pid": 1, "started": "s", "machine": "m"}
    return record.model_copy(
        update={
            "status": "running",
            "attempts": [record.attempts[0].model_copy(update={"status": "running", "launcher": launcher})],
        }
    )


def _run_events() -> bytes:
    told = [
        events.Ready(at=1.0, worker={"pid": 1}, from_step=0, changes=[{"rule": "batch-size", "what": "batch"}],
                     data={"train": {"path": "a.csv", "rows": 5, "sha256": "ab"}}, parameters=3, environment={"gpus": []}),
        events.CurvePoint(at=2.0, split="eval", step=5, values={"accuracy": 0.5}),
        events.CheckpointSaved(at=3.0, step=5, files={"a": "b"}, examples_seen=5, train_s=1.0),
        events.Ended(at=4.0, status="finished", step=5, examples_seen=5, train_s=1.0, selected_step=5,
                     metrics={"selected": {"eval": {"accuracy": 0.5}}}, error=None),
        events.Withdrawn(at=5.0, error={"message": "no"}),
        events.AdoptionPlanned(at=5.0, adoption={}, exit_code=0),
    ]  # fmt: skip
    return b"\n".join(json.dumps(one.as_line()).encode() for one in told)


def _request(record: RunRecord) -> bytes:
    return json.dumps({
        "format": 1, "mode": "train", "run_id": record.run_id, "variant": record.variant, "seed": 0, "commit": record.commit,
        "spec": record.spec, "experiment_dir": "/x", "variant_dir": "/m", "model_dir": "/m/seed-0",
        "shown_model_dir": "models/m", "max_steps": 5, "provenance": {"commit": record.commit},
    }).encode()  # fmt: skip


def signature_of_one() -> Signature:
    kernel = {"path": "dense/kernel", "shape": [4, 10], "dtype": "float32", "role": 0, "blind_role": 0}
    graph = Fingerprint(by="graph", digest="a" * 64, blind="b" * 64, named="c" * 64, neutral="d" * 64)
    features = [Feature(name="a", kind="numeric", scale=[0.5, 1.5], sha256="e" * 64),
                Feature(name="b", kind="categorical", vocabulary=["x", "y"])]  # fmt: skip
    return Signature(
        step=1, variables=[Variable(**kernel)], optimizer_variables=[Variable(path="adagrad/k", shape=[], dtype="float32")],
        state=[], inference=graph, training_step=graph, architecture={"kind": "dnn_classifier", "hidden_units": [10]},
        layers={"dense": {"class_name": "Dense", "config": {"units": 10, "activation": "relu", "rate": 0.5}}},
        data=DataContract(features=features, label="species", labels=["u", "v"], declared={"scaling": "f" * 64}),
        training=TrainingSetup(optimizer={"kind": "adagrad", "learning_rate": 0.1}, batch_size=5, shuffle=True, seed=0),
        probe=ProbeValues(batch="0" * 64, where="cpu", outputs=[0.5], loss=0.25, metrics={"accuracy": 0.5}, step=[0.5]),
        provenance={"commit": "0" * 40, "run_id": "r", "tensorflow": "2.21.0", "keras": "3.15.0"},
    )  # fmt: skip


def signature_that_tells(**changes: object) -> Signature:
    """One that holds the checkpoint's line in the manifest, but for `changes` of it."""
    one = signature_of_one()
    files = {
        f"model.ckpt-1.{name}": SavedFile(size_bytes=len(held), sha256=hashlib.sha256(held).hexdigest())
        for name, held in {"index": _index_of(one), "data-00000-of-00001": WEIGHTS}.items()
    }
    line = SavedCheckpoint(
        step=1, saved_at=1000.5, examples_seen=32, finite=True, metrics={"eval": {"accuracy": 0.5}}, files=files,
        evaluated_on={"eval": "a" * 64}, carried={"pending": ["checkpoint"], "early_stopping": {"waited": 1}, "callbacks": {}},
    )  # fmt: skip
    told = {**about_of(line, 999.5), **changes}
    return one.model_copy(update={"provenance": {**one.provenance, "saved": told}})


def _index_of(one: Signature) -> bytes:
    groups = {"variables": one.variables, "optimizer": one.optimizer_variables}
    return index_bytes({
        f"{group}/{variable.path}/.ATTRIBUTES/VARIABLE_VALUE": (1, tuple(variable.shape))
        for group, some in groups.items() for variable in some
    })  # fmt: skip


def _contents(record: RunRecord, model_dir: Path) -> bytes:
    (one,) = json.loads((model_dir / "manifest.json").read_bytes())["checkpoints"]
    files = {
        name: {"size_bytes": file["size_bytes"], "sha256": file["sha256"],
               "pieces": [file["sha256"]] if file["size_bytes"] else []}
        for name, file in one["files"].items()
    }  # fmt: skip
    values = {"run_id": record.run_id, "variant": record.variant, "seed": record.seed, "saved": one, "files": files}
    return json.dumps(Contents.model_validate(values).model_dump(mode="json")).encode()
