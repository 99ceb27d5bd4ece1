"""Every test runs in a sealed world (`world.py`)."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import seed, settings

from clones import Team, new_team, ok
from once import made_once
from warmth import warm_workers, with_warmth, without_warmth
from world import ROOT, Repo, new_repo, sealed

SEED = "PROPERTY_SEED"
"""Names the seed of the randomized property tests (make nightly)."""

settings.register_profile("ci", max_examples=25, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=500, deadline=None, print_blob=True)
settings.load_profile("ci")


def _is_randomized(config: pytest.Config) -> bool:
    return bool(config.getoption("--hypothesis-profile", None) == "nightly")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """One seed for all processes of the session."""
    if _is_randomized(config):
        os.environ.setdefault(SEED, str(int.from_bytes(os.urandom(4), "big")))


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"property tests: randomized, make nightly {SEED}={os.environ[SEED]}"] if _is_randomized(config) else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Not pytest's --hypothesis-seed: with it, the database of examples that failed before is not read.
    if _is_randomized(config):
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item.obj, "hypothesis"):
                seed(int(os.environ[SEED]))(item.function)


def pytest_collection_finish() -> None:
    # Keras' clear_session collects garbage each time, which takes half of the tests of the guard: test modules have
    # imported TensorFlow by now, and what was imported is no garbage.
    gc.collect()
    gc.freeze()


_GIVEN = dict(os.environ)  # before a test imports TensorFlow, which leaves variables behind


@pytest.fixture(scope="session", autouse=True)
def warm_requests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Workers that the tests start are forks of one process that has imported TensorFlow, except for `cold` tests.

    The file in which that process says what it was asked for.
    """
    home = tmp_path_factory.mktemp("warm")
    told = home / "requests.jsonl"
    _forget_what_imports_left(_GIVEN)
    if sys.platform != "linux":
        yield told
        return
    with warm_workers(told, sealed(home, _GIVEN)) as path, pytest.MonkeyPatch.context() as patch:
        for name, value in with_warmth(os.environ, path).items():
            if os.environ.get(name) != value:
                patch.setenv(name, value)
        yield told


@pytest.fixture(autouse=True)
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty home, and no variable of the outer world that git or expmgr would listen to."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("home")
    (folder / ".gitconfig").write_text(
        "[user]\n\tname = Ann\n\temail = ann@example.com\n[init]\n\tdefaultBranch = main\n"
    )
    environ = sealed(folder, os.environ)
    if request.node.get_closest_marker("cold"):
        environ = without_warmth(environ)
    for name in set(os.environ) - set(environ):
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    yield folder
    _forget_what_imports_left({**before, **environ})


def _forget_what_imports_left(known: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(known):
        if not name.startswith("PYTEST_"):  # pytest takes away its own
            del os.environ[name]


@pytest.fixture
def empty(tmp_path: Path) -> Repo:
    """A repository without a commit."""
    return new_repo(tmp_path / "repo")


@pytest.fixture
def repo(empty: Repo) -> Repo:
    """A repository with one commit."""
    empty.commit("first")
    return empty


@pytest.fixture
def iris(repo: Repo) -> Repo:
    """A repository with the iris example, committed."""
    shutil.copytree(ROOT / "experiments" / "iris", repo.path / "experiments" / "iris")
    repo.commit("Add experiment iris")
    return repo


def _make_wide(folder: Path) -> None:
    repo = new_repo(folder)
    shutil.copytree(ROOT / "experiments" / "iris", repo.path / "experiments" / "iris")
    repo.commit("Add experiment iris")
    ok(repo, "new", "iris/wide")


@pytest.fixture
def wide(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The iris example with a variant, iris/wide: a copy of one that is made once."""
    shutil.copytree(made_once(tmp_path_factory, "wide", _make_wide), tmp_path / "repo", symlinks=True)
    return Repo(tmp_path / "repo")


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A bare remote with the iris example on main."""
    return new_team(tmp_path)
