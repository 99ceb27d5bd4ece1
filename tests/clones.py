"""A team without TensorFlow: clones of one bare remote, people with names, and runs whose records nobody trained for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expmgr.checkpoints.manifest import CheckpointMetadata
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.signature import DataContract, Fingerprint, Signature, TrainingSetup
from expmgr.log.events import Event
from expmgr.log.logs import Draft
from expmgr.log.refs import keep_ref
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.record import Attempt, Checkpoint, DataSplit, RunRecord, new_run_id
from expmgr.team.publish import tell, tell_runs
from expmgr.variants.code_digest import code_digest
from expmgr.variants.variants import find_variant, spec_of
from tables import index_bytes
from world import ROOT, Repo, Result, new_repo

ENVIRONMENT = {
    "tensorflow": "2.21.0", "keras": "3.15.0", "gpus": [], "machine": "x86_64", "precision_policy": "float32",
    "op_determinism": False, "onednn": None, "name": None,
}  # fmt: skip


def record_of(project: Project, variant: str, seed: int, value: float, **values: Any) -> RunRecord:
    """A finished run at the variant's newest commit that nothing is wrong with, but for `values`."""
    found = find_variant(project.repo, variant)
    spec = spec_of(project.repo, found)
    now = time.time()
    steps = spec.train.max_steps
    parts: dict[str, Any] = {
        "run_id": new_run_id(now), "variant": str(found.name), "seed": seed, "commit": found.commit,
        "tree": project.repo.tree_id(found.commit), "code_digest": code_digest(project.repo, found.commit, found.name),
        "spec": spec.resolved(), "created_at": now, "model_dir": f"models/{found.name}/seed-{seed}", "status": "finished",
        "attempts": [
            Attempt(number=1, status="finished", started_at=now, max_steps=steps, launcher={}, from_step=0, to_step=steps)
        ],
        "parameters": 193, "train_s": 20.0, "step": steps, "examples_seen": 100 * steps, "environment": ENVIRONMENT,
        "data": {
            "train": DataSplit(path="train.csv", rows=2000, sha256="a" * 64),
            "eval": DataSplit(path="eval.csv", rows=50_000, sha256="b" * 64, also_in_train=0),
        },
        "measures": {"metrics": "m", "loss": "l", "steps": ""}, "selected_step": steps, "user": "somebody",
        "checkpoints": [
            Checkpoint(step=steps, saved_at=now, files={"x.data-00000-of-00001": os.urandom(32).hex()})
        ],
        "metrics": {"selected": {"eval": {"accuracy": value, "loss": 1 - value}}},
    }  # fmt: skip
    return RunRecord(**{**parts, **values})


def ran(repo: Repo, variant: str, *values: float, first: int = 0, tell: bool = True, **about: Any) -> list[RunRecord]:
    """Runs of `variant`, a seed each from `first`, with these accuracies; as if `run` had made them."""
    project = Project.open(repo.path)
    records = [record_of(project, variant, first + number, value, **about) for number, value in enumerate(values)]
    for one in records:
        put(project, one)
    if tell:
        tell_runs(project)
    return records


def put(project: Project, record: RunRecord) -> None:
    folder = project.records.run_dir(record.run_id)
    folder.path.mkdir(parents=True)
    folder.record.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    project.repo.set_ref(keep_ref(record.run_id), record.commit, "a run")


def saved(repo: Repo, variant: str, seed: int, content: bytes, *, value: float = 0.9, steps: int = 1) -> RunRecord:
    """A run with a model_dir: checkpoints of `content`, `steps` of them, the last one selected; told in the log."""
    project = Project.open(repo.path)
    record = record_of(project, variant, seed, value)
    path = project.layout.model_dir(VariantName(*record.variant.split("/", 1)), seed)
    folder = ModelDir(path, shown=project.shown(path), variant=record.variant, seed=seed)
    folder.prepare(time.time())
    there = []
    for number in range(steps):
        step = record.step - steps + 1 + number

        def write(prefix: Path, number: int = number) -> None:
            prefix.with_name(f"{prefix.name}.index").write_bytes(index_bytes({}))
            prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(content + b"x" * number)

        one = folder.save(step, write, signature(step), CheckpointMetadata(time.time(), 100 * step))
        there.append(Checkpoint(step=step, saved_at=1.0, files={n: file.sha256 for n, file in one.files.items()}))
    put(project, record.model_copy(update={"checkpoints": there}))
    tell_runs(project)
    return record


def signature(step: int) -> Signature:
    """Of a model without a variable."""
    return Signature(
        step=step, variables=[], optimizer_variables=[], state=[], inference=Fingerprint(by="none"),
        training_step=Fingerprint(by="none"), layers={}, data=DataContract(features=[]),
        training=TrainingSetup(optimizer={}), provenance={},
    )  # fmt: skip


@dataclass
class Team:
    """A bare remote, and clones of it."""

    root: Path

    @property
    def hub(self) -> Repo:
        return Repo(self.root / "hub.git")

    def join(self, name: str, **config: str) -> Repo:
        """A clone of somebody called `name`."""
        subprocess.run(
            ["git", "clone", "--quiet", str(self.hub.path), str(self.root / name)], check=True, capture_output=True
        )
        repo = Repo(self.root / name)
        repo.git("config", "user.name", name.capitalize())
        repo.git("config", "user.email", f"{name}@example.com")
        for key, value in config.items():
            repo.git("config", key.replace("_", "."), value)
        return repo


def new_team(folder: Path) -> Team:
    """A bare remote in `folder` with the iris example on main."""
    found = Team(folder)
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(found.hub.path)], check=True)
    first = new_repo(folder / "first")
    shutil.copytree(ROOT / "experiments" / "iris", first.path / "experiments" / "iris")
    first.commit("Add experiment iris")
    first.git("push", "--quiet", str(found.hub.path), "main")
    return found


def copied_team(made: Path, folder: Path, *names: str) -> list[Repo]:
    """A copy of the team in `made`, as if it had been made in `folder`; the clones of these people."""
    shutil.copytree(made, folder, symlinks=True, dirs_exist_ok=True)
    clones = [Repo(folder / name) for name in names]
    for name, repo in zip(names, clones, strict=True):
        repo.git("config", "remote.origin.url", str(folder / "hub.git"))
        known = repo.path / ".git/expmgr/writer.json"  # or the copy would be another writer
        old, new = (str(place.stat().st_ino) for place in (made / name / ".git", repo.path / ".git"))
        if known.exists():
            known.write_text(known.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return clones


def ok(repo: Repo, *argv: str) -> str:
    """stdout of a command that has to succeed."""
    result = repo.expmgr(*argv)
    assert result.code == 0, (argv, result.stdout, result.stderr)
    return result.stdout


_WAITING = """
import sys
from expmgr.cli.main import main
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(sys.argv[1:]))
"""


def at_once(*commands: tuple[Repo, tuple[str, ...]]) -> list[Result]:
    """What commands say that begin at the same moment, each in a process of its own that has imported expmgr by then."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WAITING, *argv], cwd=repo.path, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for repo, argv in commands
    ]  # fmt: skip
    for one in processes:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in processes:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    ends = [(*one.communicate(timeout=120), one.returncode) for one in processes]
    return [Result(code, out, err) for out, err, code in ends]


def refuses(repo: Repo, *argv: str, code: int, words: str) -> None:
    """A command that has to fail with this exit code, say nothing on stdout, and begin its error with `words`."""
    result = repo.expmgr(*argv)
    said = " ".join(result.stderr.replace("│", " ").split())
    assert (result.code, result.stdout) == (code, ""), (argv, result.stdout, result.stderr)
    assert words in said, (argv, result.stderr)


def told(repo: Repo, *argv: str) -> Any:
    """What a command says as JSON, whatever its exit code."""
    return json.loads(repo.expmgr(*argv, "--json").stdout)


def logs_of(repo: Repo) -> list[str]:
    """The refs of the logs that are this clone's own."""
    return repo.git("for-each-ref", "--format=%(refname)", "refs/expmgr/log/").split()


# Reviews.


def asked(team: Team) -> Repo:
    """Ann has a baseline and a wider one, three seeds each, and has asked for a review."""
    repo = team.join("ann")
    ok(repo, "new", "iris/baseline")
    ok(repo, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    ran(repo, "iris/baseline", 0.90, 0.91, 0.93)
    ran(repo, "iris/wide", 0.95, 0.97, 0.96)
    ok(repo, "review", "open", "iris/wide", "--against", "iris/baseline", "-m", "Is it worth it?")
    ok(repo, "push")
    return repo


def shown(repo: Repo, name: str = "wide") -> dict[str, Any]:
    return dict(told(repo, "review", "show", name))


def state(repo: Repo, name: str = "wide") -> tuple[str, list[str]]:
    found = shown(repo, name)
    return found["state"], found["remarks"]


def meet(*repos: Repo) -> None:
    """Each knows what the others say."""
    for one in repos:
        ok(one, "push")
    for one in repos:
        ok(one, "pull")


def approved(ann: Repo, bob: Repo) -> None:
    ok(bob, "review", "approve", "wide")
    meet(bob, ann)
    assert state(ann)[0] == "approved"


def commit_on(repo: Repo, branch: str, path: str, text: str | None) -> None:
    """Commit a file on a branch (None: delete it), without touching the checkout."""
    folder = repo.path.parent / f"worktree-{repo.path.name}"
    repo.git("worktree", "add", "--quiet", "--force", str(folder), branch)
    target = folder / path
    if text is None:
        target.unlink()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    repo.git("add", "--all", folder=folder)
    repo.git("commit", "--quiet", "-m", f"change {path}", folder=folder)
    repo.git("worktree", "remove", "--force", str(folder))


def forge(repo: Repo, kind: type[Event], files: dict[str, bytes] | None = None, **values: object) -> str:
    """An event in one's own log, with nobody asked whether it makes sense."""
    project = Project.open(repo.path)
    (event,) = tell(project, [Draft(kind, values, files or {})])
    return event.id
