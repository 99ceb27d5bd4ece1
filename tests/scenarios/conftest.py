"""Repositories that take a while to make: variants trained once, looked at by many tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from once import made_once
from world import Repo

COMMANDS = (
    ("init", "--example", "iris", "--commit"),
    ("new", "iris/baseline", "-m", "as in the guide: two layers of ten"),
    ("new", "iris/wide", "--from", "iris/baseline", "--set", "model.hidden_units=[20, 20]", "-m", "twice the width"),
    ("run", "iris/baseline", "iris/wide", "--seeds", "0-2", "--max-steps", "200"),
)


@pytest.fixture(scope="session")
def _walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walk of the README, with 200 steps."""

    def walk(folder: Path) -> None:
        folder.mkdir()
        repo = Repo(folder)
        repo.git("init", "--quiet")
        for command in COMMANDS:
            result = repo.expmgr_process(*command)
            assert result.code == 0, (command, result.stderr)

    return made_once(tmp_path_factory, "walked", walk)


#: Variants of test_guide_rows.py, each trained to step 60: what is set in run_config.
ROWS = {
    "default": "",
    "quiet": "save_checkpoints_steps: 10, checkpoint_save_graph_def: false, log_step_count_steps: 20",
    "all": "save_checkpoints_steps: 10, keep_checkpoint_max: 0, tf_random_seed: 1",
    "silent": "save_checkpoints_steps: 10, keep_checkpoint_max: null, save_summary_steps: null, log_step_count_steps: null",
}


@pytest.fixture(scope="session")
def _rows(_walked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walked repository, and in it the variants of `ROWS`, trained by one call."""

    def train(folder: Path) -> None:
        shutil.copytree(_walked, folder, symlinks=True)
        repo = Repo(folder)
        for name, config in ROWS.items():
            made = repo.expmgr_process("new", f"iris/{name}", "--from", "iris/baseline", "--set", "train.max_steps=60")
            assert made.code == 0, made.stderr
            if config:
                old = "train:      {max_steps: 60}"
                new = f"{old}\nrun_config: {{{config}}}"
                commit_change(repo, tmp_path_factory.mktemp("row") / "worktree", f"iris/{name}", old, new)
        done = repo.expmgr_process("run", *(f"iris/{name}" for name in ROWS))
        assert done.code == 0, done.stderr

    return made_once(tmp_path_factory, "rows", train)


@pytest.fixture
def rows(_rows: Path) -> Repo:
    """The repository with the variants of `ROWS`, to look at. It is shared: leave it as it is."""
    return Repo(_rows)


@pytest.fixture
def walked(_walked: Path) -> Repo:
    """The walked repository, to look at. It is shared: leave it as it is."""
    return Repo(_walked)


@pytest.fixture
def copied(_walked: Path, tmp_path: Path) -> Repo:
    """A copy of the walked repository, to change."""
    shutil.copytree(_walked, tmp_path / "copied", symlinks=True)
    return Repo(tmp_path / "copied")


@pytest.fixture
def change(tmp_path: Path) -> Callable[[Repo, str, str, str], None]:
    """`change(repo, variant, old, new)`: commit another spec on a variant's own branch, from a worktree of it."""

    def do(repo: Repo, variant: str, old: str, new: str) -> None:
        commit_change(repo, tmp_path / "worktree", variant, old, new)

    return do


def commit_change(repo: Repo, folder: Path, variant: str, old: str, new: str) -> None:
    """Commit another spec on a variant's own branch, from a worktree of it at `folder`."""
    repo.git("worktree", "add", "--quiet", str(folder), f"exp/{variant}")
    path = folder / "experiments" / "iris" / "spec.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    repo.git("commit", "--quiet", "--all", "-m", "changed", folder=folder)
    repo.git("worktree", "remove", str(folder))
