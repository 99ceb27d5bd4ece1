"""Repositories that take a while to make: variants trained once, looked at by many tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from world import Repo, sealed

COMMANDS = (
    ("init", "--example", "iris", "--commit"),
    ("new", "iris/baseline", "-m", "as in the guide: two layers of ten"),
    ("new", "iris/wide", "--from", "iris/baseline", "--set", "model.hidden_units=[20, 20]", "-m", "twice the width"),
    ("run", "iris/baseline", "iris/wide", "--seeds", "0-2", "--max-steps", "200"),
)


@pytest.fixture(scope="session")
def _walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walk of the README, with 200 steps, in a sealed world of its own."""
    home = tmp_path_factory.mktemp("walked-home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Ann\n\temail = ann@example.com\n[init]\n\tdefaultBranch = main\n"
    )
    patch = pytest.MonkeyPatch()
    for name, value in sealed(home, os.environ).items():
        patch.setenv(name, value)
    folder = tmp_path_factory.mktemp("walked") / "repo"
    folder.mkdir()
    repo = Repo(folder)
    repo.git("init", "--quiet")
    for command in COMMANDS:
        result = repo.expmgr_process(*command)
        assert result.code == 0, (command, result.stderr)
    patch.undo()
    return folder


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
        folder = tmp_path / "worktree"
        repo.git("worktree", "add", "--quiet", str(folder), f"exp/{variant}")
        path = folder / "experiments" / "iris" / "spec.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        repo.git("commit", "--quiet", "--all", "-m", "changed", folder=folder)
        repo.git("worktree", "remove", str(folder))

    return do
