"""The mutants that no test can kill, because they change nothing: equivalent.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Known:
    """An equivalent mutant. What finds it again, also after lines have moved: file, function, and the lines' text."""

    file: str
    function: str
    line: str
    becomes: str


def known() -> dict[Known, str]:
    """Each equivalent mutant with its reason."""
    entries: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["equivalent"]
    return {Known(**{name: entry[name] for name in Known.__annotations__}): entry["reason"] for entry in entries}
