"""The examples that ship with expmgr: the same files as `experiments/` in its own repository."""

from __future__ import annotations

from pathlib import Path

from expmgr.errors import ExpmgrError, did_you_mean


class UnknownExample(ExpmgrError):
    """No example of that name ships with expmgr."""


def examples_dir() -> Path:
    """Where the examples lie: in the installed package, or beside it in a checkout of expmgr."""
    package = Path(__file__).parents[1]
    installed = package / "examples"
    return installed if installed.is_dir() else package.parent / "experiments"


def example_names() -> list[str]:
    return sorted(path.parent.name for path in examples_dir().glob("*/spec.yaml"))


def example_files(name: str) -> dict[str, bytes]:
    """The files of example `name`, by path relative to its experiment's folder; `UnknownExample` for another name."""
    names = example_names()
    if name not in names:
        raise UnknownExample(
            f"there is no example {name}",
            left_alone="Nothing was changed.",
            hint=did_you_mean(name, names, f"one of {', '.join(names)}"),
        )
    folder = examples_dir() / name
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
