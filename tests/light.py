"""Environments without TensorFlow, and what a user types in them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from world import Repo, Result

_HIDDEN = ("tensorflow", "keras", "tf_")


@dataclass(frozen=True)
class Light:
    """An installed expmgr: how it is called."""

    command: Sequence[str]

    @property
    def python(self) -> Path:
        return Path(self.command[0]).parent / "python"

    def expmgr(self, repo: Repo, *argv: str, env: Mapping[str, str] | None = None) -> Result:
        """The command, in a process of its own that finds nothing of this checkout."""
        return self._call([*self.command, *argv], repo.path, env)

    def run_python(self, folder: Path, text: str) -> Result:
        """`python -c text`."""
        return self._call([str(self.python), "-c", text], folder, None)

    @staticmethod
    def _call(command: Sequence[str], folder: Path, env: Mapping[str, str] | None) -> Result:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(env or {})
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environ)
        return Result(done.returncode, done.stdout, done.stderr)


def hidden(folder: Path) -> None:
    """This environment without TensorFlow and Keras: an environment of links to all else that is installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = Path(subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    for one in Path(sysconfig.get_path("purelib")).iterdir():
        if not one.name.lower().startswith((*_HIDDEN, "__pycache__")):
            (target / one.name).symlink_to(one)
