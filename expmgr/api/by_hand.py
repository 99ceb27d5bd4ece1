"""Records a training script that is run directly: its commit, or a snapshot of the working tree."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expmgr import __version__
from expmgr.disk.locks import Process
from expmgr.errors import ExpmgrError
from expmgr.git.checkouts import take_snapshot
from expmgr.git.repo import CommitId
from expmgr.log.refs import keep_ref
from expmgr.paths import BRANCH_PREFIX, EXPERIMENTS, RunDir, VariantName, parse_variant
from expmgr.project import Project
from expmgr.runs.events import CurvePoint, Ended, Ready, RunEvent, append_event
from expmgr.runs.record import Attempt, RunRecord, Status, new_run_id, user_name
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import ScriptModel
from expmgr.team.publish import tell_runs
from expmgr.variants.code_digest import code_digest

_ILLEGAL = re.compile(r"[^a-z0-9._-]+")


def recorded(model: Any, given: Mapping[str, Any], script: Path) -> Any:
    """`model.fit(**given)`, recorded as a run where `script` is that of an experiment; Keras' `History`.

    Where it cannot be recorded, a line on stderr says why, and the training goes on.
    """
    try:
        run = _Run(model, script)
    except (ExpmgrError, OSError) as error:
        print(f"expmgr: not recorded: {getattr(error, 'message', error)}", file=sys.stderr)
        return model.fit(**given)
    callbacks = given.get("callbacks") or []
    listed = [*callbacks] if isinstance(callbacks, (list, tuple)) else [callbacks]
    try:
        history = model.fit(**{**given, "callbacks": [*listed, run.callback()]})
    except BaseException as error:
        run.end(
            "failed",
            {"error": type(error).__name__, "message": getattr(error, "message", str(error))[:500], "details": []},
        )
        raise
    run.end("finished", None)
    return history


#: What this process runs from: the tree at its first `fit`, whatever changes later.
_tree: dict[str, tuple[CommitId, list[str]]] = {}


def _tree_of(project: Project, message: str) -> tuple[CommitId, list[str]]:
    key = str(project.repo.root)
    if key not in _tree:
        _tree[key] = take_snapshot(project.repo, message)
    return _tree[key]


class _Run:
    """A run whose process is this one."""

    def __init__(self, model: Any, script: Path) -> None:
        self._model = model
        self._project = Project.open(script.parent)
        self._began = time.monotonic()
        self._logs: dict[str, float] = {}
        name, path = self._experiment(script)
        record = self._record(name, path)
        self._folder: RunDir = self._project.records.begin(record)
        self._run_id = record.run_id
        self._project.repo.set_ref(keep_ref(record.run_id), record.commit, "expmgr: run by hand")
        os.environ.update(EXPMGR_RUN_ID=self._run_id, EXPMGR_RUN_DIR=str(self._folder.path))
        self._tell(
            Ready(
                worker=Process.current().as_dict(),
                from_step=0,
                changes=[],
                data={},
                parameters=sum(int(one.shape.num_elements() or 1) for one in self._values()),
                environment=_environment(),
            )
        )
        assert record.by_hand is not None
        changed = record.by_hand["changed"]
        what = f"snapshot {record.commit[:12]}, {len(changed)} changed" if changed else f"commit {record.commit[:12]}"
        print(f"expmgr: recorded as run {self._run_id} ({what}); expmgr show {self._run_id}", file=sys.stderr)

    def _values(self) -> list[Any]:
        return [one.value for one in self._model.trainable_variables] if self._model.built else []

    def _experiment(self, script: Path) -> tuple[VariantName, str]:
        """The variant that the script belongs to, and its path in the experiment's folder."""
        root = self._project.repo.root
        parts = script.relative_to(root.resolve()).parts if root and script.is_relative_to(root.resolve()) else ()
        if len(parts) < 3 or parts[0] != EXPERIMENTS:
            raise ExpmgrError(f"{script.name} lies in no folder experiments/<experiment>/")
        branch = (self._project.repo.head_ref() or "").removeprefix("refs/heads/")
        if branch.startswith(f"{BRANCH_PREFIX}{parts[1]}/"):
            return parse_variant(branch.removeprefix(BRANCH_PREFIX)), "/".join(parts[2:])
        word = _ILLEGAL.sub("-", branch.lower()).strip("-.")[:60] or "detached"
        return parse_variant(f"{parts[1]}/{word}"), "/".join(parts[2:])

    def _record(self, name: VariantName, path: str) -> RunRecord:
        repo, settings, now = self._project.repo, self._project.settings, time.time()
        head = repo.head()
        commit, changed = _tree_of(self._project, f"The tree that {name.folder}/{path} ran from")
        spec = self._spec(name, path, commit)
        attempt = Attempt(
            number=1, started_at=now, max_steps=spec.train.max_steps, launcher=Process.current().as_dict()
        )
        return RunRecord(
            run_id=new_run_id(now),
            variant=str(name),
            seed=0,
            commit=commit,
            tree=repo.tree_id(commit),
            code_digest=code_digest(repo, commit, name),
            spec=spec.resolved(),
            created_at=now,
            host=socket.gethostname() if settings.record_host else None,
            user=user_name() if settings.record_user else None,
            model_dir="",
            attempts=[attempt],
            by_hand={"script": f"{name.folder}/{path}", "head": head, "changed": changed},
        )

    def _spec(self, name: VariantName, path: str, commit: CommitId) -> ExperimentSpec:
        from expmgr.spec.yaml_file import read_spec

        content = self._project.repo.read(commit, name.spec_path)
        if content is None:
            raise ExpmgrError(f"there is no {name.spec_path}")
        spec = read_spec(content, name.spec_path, name.experiment)
        if not isinstance(spec.model, ScriptModel) or spec.model.script != path:
            raise ExpmgrError(f"{name.spec_path} does not say model: {{kind: script, script: {path}}}")
        return spec

    def _tell(self, event: RunEvent) -> None:
        with contextlib.suppress(OSError):  # a disk that is full does not end somebody's training
            append_event(self._folder, event)

    @property
    def _step(self) -> int:
        return int(self._model.optimizer.iterations)

    def callback(self) -> Any:
        """Tells what an epoch gave."""
        import keras

        run = self

        class Points(keras.callbacks.Callback):  # type: ignore[misc]
            def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
                run.point(logs or {})

        return Points()

    def point(self, logs: Mapping[str, Any]) -> None:
        """What an epoch gave: metrics of training, and with `val_` before them those of the evaluation."""
        values = {str(name): float(value) for name, value in logs.items() if getattr(value, "ndim", 0) == 0}
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        evaluated = {name[4:]: value for name, value in values.items() if name.startswith("val_")}
        trained = {name: value for name, value in values.items() if not name.startswith("val_")}
        self._logs = evaluated or self._logs
        for split, found in (("train", trained), ("eval", evaluated)):
            if found:
                self._tell(CurvePoint(split=split, step=self._step, values=found))

    def end(self, status: Status, error: Mapping[str, Any] | None) -> None:
        """The last word."""
        last = {"eval": self._logs} if self._logs else {}
        self._tell(
            Ended(
                status=status,
                step=self._step,
                examples_seen=0,
                train_s=time.monotonic() - self._began,
                selected_step=self._step,
                metrics={"selected": last, "last": last},
                error=dict(error) if error else None,
            )
        )
        with contextlib.suppress(OSError, ExpmgrError):  # the next command of expmgr records it
            self._project.records.finish(self._run_id)
            tell_runs(self._project)
        for name in ("EXPMGR_RUN_ID", "EXPMGR_RUN_DIR"):
            os.environ.pop(name, None)


def _environment() -> dict[str, Any]:
    """Versions of what computes, as far as this process has imported it."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **found, "expmgr": __version__, "name": None}
