"""Experiments whose model is an Estimator, in an environment with TensorFlow 2.15 (`make test-estimators` makes it)."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from once import made_once
from warmth import OTHER_SOCKET, warm_interpreter, warm_workers
from world import ROOT, Repo, sealed

#: Asked before the world is sealed.
PYTHON = os.environ.get("EXPMGR_ESTIMATOR_PYTHON") or str(ROOT / ".venv-tf215" / "bin" / "python")

SPEC = """\
experiment: iris
environment: estimator
data:       {kind: csv, train: iris_training.csv, eval: iris_test.csv, label: species, batch_size: 100,
             labels: [setosa, versicolor, virginica]}
model:      {kind: estimator, build: "model:build_v2", params: {hidden_units: [10, 10]}}
train:      {max_steps: 100}
run_config: {save_checkpoints_steps: 50}
compare:    {metric: accuracy}
"""


@pytest.fixture(scope="session")
def cold_python() -> str:
    """An interpreter that has TensorFlow 2.15."""
    if not Path(PYTHON).exists():
        pytest.skip("no environment with TensorFlow 2.15: make test-estimators makes one")
    return PYTHON


@pytest.fixture(scope="session")
def estimator_python(cold_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """It too, but its workers are forks of one process that has imported TensorFlow 2.15."""
    if sys.platform != "linux":
        yield cold_python
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        warm_interpreter(folder / "python", cold_python)

    home = tmp_path_factory.mktemp("warm-estimators")
    told = home / "requests.jsonl"
    with (
        warm_workers(told, sealed(home, os.environ), python=cold_python, trainer="estimator") as address,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(OTHER_SOCKET, address)
        yield str(made_once(tmp_path_factory, "estimator-python", write) / "python")


def made(folder: Path, python: str) -> Repo:
    """A repository with the iris data, the three Estimators, and a variant of each: `iris/v2`, `iris/v1`, `iris/own`."""
    folder.mkdir()
    repo = Repo(folder)
    repo.git("init", "--quiet")
    for name in ("iris_training.csv", "iris_test.csv"):
        repo.write(f"experiments/iris/{name}", (ROOT / "experiments/iris" / name).read_bytes())
    repo.write("experiments/iris/model.py", (ROOT / "tests/estimators/model.py").read_bytes())
    repo.write("experiments/iris/spec.yaml", SPEC)
    repo.write("pyproject.toml", f'[tool.expmgr.environments]\nestimator = "{python}"\n')
    repo.commit("Three Estimators")
    for kind in ("v2", "v1", "own"):
        result = repo.expmgr_process("new", f"iris/{kind}", "--set", f"model.build=model:build_{kind}")
        assert result.code == 0, result.stderr
    return repo


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory, estimator_python: str) -> Path:
    """Each of them trained to step 100 by one call."""

    def train(folder: Path) -> None:
        repo = made(folder, estimator_python)
        result = repo.expmgr_process("run", "iris/v2", "iris/v1", "iris/own")
        assert result.code == 0, result.stderr

    return made_once(tmp_path_factory, "estimators", train)


@pytest.fixture
def trained(_trained: Path) -> Repo:
    """The repository with three trained Estimators, to look at. It is shared: leave it as it is."""
    return Repo(_trained)


@pytest.fixture
def copied(_trained: Path, tmp_path: Path) -> Repo:
    """A copy of it, to change."""
    shutil.copytree(_trained, tmp_path / "copied", symlinks=True)
    return Repo(tmp_path / "copied")


@pytest.fixture
def change(tmp_path: Path) -> Callable[[Repo, str, str, str], None]:
    """`change(repo, variant, old, new)`: commit another spec on a variant's own branch, from a worktree of it."""

    def do(repo: Repo, variant: str, old: str, new: str, file: str = "spec.yaml") -> None:
        folder = tmp_path / "worktree"
        repo.git("worktree", "add", "--quiet", str(folder), f"exp/{variant}")
        path = folder / "experiments/iris" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        repo.git("commit", "--quiet", "--all", "-m", "change", folder=folder)
        repo.git("worktree", "remove", "--force", str(folder))

    return do
