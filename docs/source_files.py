"""Writes the tables of folders and files in docs/ from the first line of each module's docstring: `make source-files`.

The order of the folders is that of the import contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "expmgr"
#: Written as a whole.
FILES_PAGE = ROOT / "docs" / "reference" / "source-files.md"
#: Written between the markers.
FOLDERS_PAGE = ROOT / "docs" / "architecture.md"

_INTRO = (
    "# Source files\n\n"
    "Every file of `expmgr/`, with the first line of its docstring. Folders are in the order of their imports: "
    "a folder imports only folders further down ([architecture](../architecture.md#folders)). "
    "`make source-files` writes this page.\n"
)


def subject_of(file: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""


def layers_of(container: str) -> list[list[str]]:
    """The layers of `container` in pyproject.toml, the highest first; names on one line import each other neither way."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (lines,) = (one["layers"] for one in contracts if one.get("containers") == [container])
    return [[name.strip() for name in line.split("|")] for line in lines]


def files_page() -> str:
    sections = [_section(folder) for folder in _folders()]
    return "\n".join([_INTRO, *sections])


def folders_table(container: str) -> str:
    """The folders and files of `expmgr` or of `expmgr.train` with their layers, the highest first."""
    base = PACKAGE.joinpath(*container.split(".")[1:])
    layers = layers_of(container)
    rows = ["| layer | folder or file | for |", "|---|---|---|"]
    for number, names in zip(range(len(layers), 0, -1), layers, strict=True):
        for name in names:
            is_folder = (base / name).is_dir()
            subject = subject_of(base / name / "__init__.py" if is_folder else base / f"{name}.py")
            rows.append(f"| {number} | `{name}{'/' if is_folder else '.py'}` | {subject} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """`page` with the table between each pair of markers written again."""
    for container in ("expmgr", "expmgr.train"):
        start, end = f"<!-- folders of {container}: make source-files -->\n", f"<!-- end of {container} -->"
        before, rest = page.split(start)
        page = f"{before}{start}\n{folders_table(container)}\n\n{end}{rest.split(end)[1]}"
    return page


def _folders() -> Iterator[Path]:
    """Each folder, in the order of the layers, then the folders in it."""
    yield PACKAGE
    for name in (name for layer in layers_of("expmgr") for name in layer):
        if not (PACKAGE / name).is_dir():
            continue
        yield PACKAGE / name
        if name == "train":
            inner = [PACKAGE / "train" / one for layer in layers_of("expmgr.train") for one in layer]
        else:
            inner = sorted((PACKAGE / name).iterdir())
        yield from (folder for folder in inner if (folder / "__init__.py").exists())


def _section(folder: Path) -> str:
    rows = [
        f"| [`{file.name}`](../../{file.relative_to(ROOT)}) | {subject_of(file)} |"
        for file in sorted(folder.glob("*.py"))
        if file.name != "__init__.py"
    ]
    lines = [f"## `{folder.relative_to(ROOT)}/`", "", subject_of(folder / "__init__.py")]
    if rows:
        lines += ["", "| file | subject |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    FILES_PAGE.write_text(files_page(), encoding="utf-8")
    FOLDERS_PAGE.write_text(with_tables(FOLDERS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
