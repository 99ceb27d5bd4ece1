"""Environments that are made once for all tests, on whichever core they run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from light import Light, hidden
from package import is_current, tracked
from world import ROOT

#: pip's own settings and cache, asked before the world is sealed.
OUTER = dict(os.environ)


def pip(python: Path | str, *argv: str) -> str:
    """stdout of `python -m pip <argv>`, which has to succeed."""
    done = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *argv],
        capture_output=True, text=True, check=False, env=OUTER, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)`: a folder that `make` fills, for this session and the others that run beside it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "installed"
    shared.mkdir(exist_ok=True)

    def found(name: str, make: Callable[[Path], object]) -> Path:
        with open(shared / f"{name}.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (shared / f"{name}.made").exists():
                shutil.rmtree(shared / name, ignore_errors=True)
                make(shared / name)
                (shared / f"{name}.made").touch()
        return shared / name

    return found


@pytest.fixture(scope="session")
def hidden_tensorflow(once: Once) -> Light:
    """This environment without TensorFlow: quick to make, for what is asked every day."""
    return Light((str(once("hidden", hidden) / "bin" / "python"), "-m", "expmgr"))


@pytest.fixture(scope="session")
def wheel(once: Once) -> Path:
    """The wheel of `make package`, where it holds what the folder has; else one that is built now."""
    files = tracked()
    for one in sorted((ROOT / "dist").glob("*.whl")):
        if is_current(one, files):
            return one

    def build(folder: Path) -> None:
        pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))

    (made,) = once("wheel", build).glob("*.whl")
    return made


@pytest.fixture(scope="session")
def light(once: Once, wheel: Path) -> Light:
    """What `pip install` makes of the wheel without an extra."""

    def make(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip(folder / "bin" / "python", "install", "--quiet", str(wheel))

    return Light((str(once("light", make) / "bin" / "expmgr"),))
