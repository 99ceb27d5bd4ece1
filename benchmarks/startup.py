"""CPU seconds that a command needs before it says anything, beyond the interpreter's own."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPEAT = 9


def cpu_s(command: list[str], folder: Path) -> float:
    """User and system seconds of `command` and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
        subprocess.run(
            ["git", *environment, "commit", "--quiet", "--allow-empty", "-m", "first"], cwd=folder, check=True
        )
        expmgr = [sys.executable, "-m", "expmgr"]
        for arguments in (["init", "--example", "iris", "--commit"], ["new", "iris/baseline"], ["new", "iris/wide"]):
            subprocess.run([*expmgr, *arguments], cwd=folder, check=True, capture_output=True, env=_identity())
        commands = {
            "interpreter": [sys.executable, "-c", "pass"],
            "expmgr --help": [*expmgr, "--help"],
            "expmgr list": [*expmgr, "list"],
            "import tensorflow": [sys.executable, "-c", "import tensorflow"],
        }
        taken: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(REPEAT):
            for what, command in commands.items():
                taken[what].append(cpu_s(command, folder))
        median = {what: statistics.median(values) for what, values in taken.items()}
        bare = median.pop("interpreter")
        tensorflow = median["import tensorflow"] - bare
        print(f"{'command':<20} {'CPU s beyond the interpreter':>30} {'of importing TensorFlow':>25}")
        for what, value in median.items():
            print(f"{what:<20} {value - bare:>30.3f} {(value - bare) / tensorflow:>24.1%}")


def _identity() -> dict[str, str]:
    names = ("GIT_AUTHOR", "GIT_COMMITTER")
    who = {f"{name}_NAME": "a" for name in names} | {f"{name}_EMAIL": "a@example.com" for name in names}
    return {**os.environ, **who}


if __name__ == "__main__":
    main()
