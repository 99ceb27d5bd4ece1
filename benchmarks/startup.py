"""What a command costs before it says anything: `python benchmarks/startup.py [REPEATS]`.

CPU seconds (user and system) of whole processes with the git processes that they start, medians of interleaved repetitions,
beside a process that imports TensorFlow and does nothing else. The repository has ten variants with ten runs each. Its index is
warm, as the command before leaves it, except for `list, cold`. stdout is no terminal.

Then, for `--help` and `list`, where the seconds go: parts of the process, git processes, and the imports that take longest.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from index import repository, sealed

REPEATS = 15
EXPMGR = [sys.executable, "-m", "expmgr"]
COMMANDS = {
    "expmgr --help": ["--help"],
    "expmgr list": ["list"],
    "expmgr list, cold": ["list"],
    "expmgr list --help": ["list", "--help"],
    "expmgr show VARIANT": ["show", "iris/v0003"],
    "expmgr log": ["log"],
    "expmgr review list": ["review", "list"],
    "expmgr new --set": ["new", "iris/new", "--set", "train.max_steps=500"],
    "expmgr compare": ["compare", "iris/v0000", "iris/v0001"],
}
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)")
#: Shown by name; the others are mostly of Python's own library.
PACKAGES = ("expmgr", "typer", "pydantic", "pydantic_core", "git", "gitdb", "rich", "ruamel", "scipy", "numpy")
#: Runs a command with its parts timed, and prints their CPU seconds to stderr, git processes included.
PARTS = """
import json, resource, sys

def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

parts = {"Python starts": cpu()}
calls = dict.fromkeys(parts, 1)

def timed(name, function):
    def call(*args, **kwargs):
        before = cpu()
        try:
            return function(*args, **kwargs)
        finally:
            parts[name] = parts.get(name, 0) + cpu() - before
            calls[name] = calls.get(name, 0) + 1
    return call

def imported(name, *modules):
    timed(f"import of {name}", lambda: [__import__(one) for one in modules])()

imported("typer", "typer.main")
imported("expmgr.cli.main", "expmgr.cli.main")
import typer.core
from expmgr.cli import main, output
main.make_app = timed("import of the command's module, or of all", main.make_app)
typer.main.get_command = timed("typer reads parameters", typer.main.get_command)
typer.core.TyperGroup.format_help = timed("rendering", typer.core.TyperGroup.format_help)
output.Table.show = timed("rendering", output.Table.show)
if sys.argv[1] != "--help":
    imported("pydantic, which typer needs to read values", "pydantic.type_adapter", "pydantic.json_schema")
    imported("expmgr.git.process, with GitPython's runner", "expmgr.git.process")
    imported("expmgr.project", "expmgr.project")
    from expmgr.git import process
    process._Git.execute = timed("git processes", process._Git.execute)
from expmgr.__main__ import entry
try:
    entry()
finally:
    parts["the rest of the command"] = cpu() - sum(parts.values())
    print(json.dumps({"parts": parts, "calls": calls}), file=sys.stderr)
"""


def cpu_s(command: list[str], folder: Path, env: dict[str, str]) -> tuple[float, str]:
    """User and system seconds of `command` and its children, and what it wrote to stderr."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


def compare_commands(folder: Path, env: dict[str, str], repeats: int) -> None:
    """Print the CPU seconds of each command, and what part they are of importing TensorFlow."""
    taken: dict[str, list[float]] = {what: [] for what in ("python -c pass", *COMMANDS, "import tensorflow")}
    for _ in range(repeats):
        for what, seconds in taken.items():
            code = what.removeprefix("python -c ")
            command = [*EXPMGR, *COMMANDS[what]] if what in COMMANDS else [sys.executable, "-c", code]
            if what.endswith("cold"):
                (folder / ".git/expmgr/index.sqlite").unlink()
            seconds.append(cpu_s(command, folder, env)[0])
        subprocess.run(["git", "branch", "--quiet", "-D", "exp/iris/new"], cwd=folder, env=env, check=True)
    median = {what: statistics.median(values) for what, values in taken.items()}
    print(f"{'process':<24}{'CPU s':>8}{'least':>8}{'of import tensorflow':>23}")
    for what, value in median.items():
        print(f"{what:<24}{value:>8.3f}{min(taken[what]):>8.3f}{value / median['import tensorflow']:>23.1%}")


def show_parts(arguments: list[str], folder: Path, env: dict[str, str], repeats: int) -> None:
    """Print the CPU seconds of each part of a command, and the number of git processes."""
    taken: dict[str, list[float]] = {}
    calls: dict[str, int] = {}
    for _ in range(repeats):
        total, told = cpu_s([sys.executable, "-c", PARTS, *arguments], folder, env)
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        calls = found["calls"]
        for part, seconds in {**found["parts"], "Python ends": total - sum(found["parts"].values())}.items():
            taken.setdefault(part, []).append(seconds)
    for part, values in taken.items():
        count = f" ({calls[part]})" if part == "git processes" else ""
        print(f"  {statistics.median(values) * 1000:>6.1f} ms  {part}{count}")


def show_imports(arguments: list[str], folder: Path, env: dict[str, str], repeats: int) -> None:
    """Print the imports of a command that take longest: by package, and the ten longest modules, each the least of all
    repetitions. These are seconds of a clock, a little more than without `-X importtime`."""
    own: dict[str, float] = {}
    for _ in range(repeats):
        command = [sys.executable, "-X", "importtime", "-m", "expmgr", *arguments]
        for line in cpu_s(command, folder, env)[1].splitlines():
            if told := IMPORT.match(line):
                own[told[3]] = min(own.get(told[3], float("inf")), int(told[1]) / 1000)
    packages: dict[str, list[float]] = {}
    for name, spent in own.items():
        package = name.partition(".")[0]
        packages.setdefault(package if package in PACKAGES else "others", []).append(spent)
    told_packages = (
        f"{package} {sum(spent):.1f} ms ({len(spent)} modules)"
        for package, spent in sorted(packages.items(), key=lambda item: -sum(item[1]))
    )
    print(f"  imports: {', '.join(told_packages)}")
    longest = sorted(own.items(), key=lambda item: -item[1])[:10]
    print(f"  longest: {', '.join(f'{name} {spent:.1f}' for name, spent in longest)}")


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    with tempfile.TemporaryDirectory() as name:
        env = sealed(Path(name))
        folder = Path(name) / "repository"
        repository(folder, 100, env)
        for arguments in COMMANDS.values():  # Python compiles what it imports for the first time, and the index is made
            cpu_s([*EXPMGR, *arguments], folder, env)
        subprocess.run(["git", "branch", "--quiet", "-D", "exp/iris/new"], cwd=folder, env=env, check=True)
        compare_commands(folder, env, repeats)
        for arguments in (["--help"], ["list"]):
            print(f"\nexpmgr {' '.join(arguments)}")
            show_parts(arguments, folder, env, repeats)
            show_imports(arguments, folder, env, repeats)


if __name__ == "__main__":
    main()
