"""Each folder keeps to its dependencies: forbidden imports, planted in a copy of `expmgr/`, are found by import-linter.

import-linter reads import statements, at the top of a module and inside functions. It cannot see a module that is
imported by its name as text, as in `import_module("git")`, nor a folder without an `__init__.py` (a test is here).
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from world import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOWN = "Each folder imports only folders below it"
DOWN_IN_TRAIN = "Inside train/, each folder imports only folders below it"
ACYCLIC = "No import cycles, not even through imports inside functions"
TENSORFLOW = "Only train/ and api/ import TensorFlow and Keras, and only api/ imports train/"
COMMANDS = "Commands do not reach TensorFlow, not even through other folders"
WORKER = "train/ reaches neither git nor commands, not even through other folders"

#: Who may import what, and the contract that says so. `expmgr.train.environment` is as good as any module of train/.
MAY_IMPORT = {
    "git": ("Only git/ imports GitPython", ["expmgr.git"]),
    "tensorflow": (TENSORFLOW, ["expmgr.api", "expmgr.train"]),
    "keras": (TENSORFLOW, ["expmgr.api", "expmgr.train"]),
    "expmgr.train.environment": (TENSORFLOW, ["expmgr.api", "expmgr.train"]),
    "typer": ("Only cli/ imports typer and rich", ["expmgr.cli"]),
    "rich": ("Only cli/ imports typer and rich", ["expmgr.cli"]),
    "ruamel": ("Only spec/ imports ruamel.yaml", ["expmgr.spec"]),
    "scipy": ("Only comparison/ imports scipy", ["expmgr.comparison"]),
    "matplotlib": ("Only render/ imports matplotlib", ["expmgr.render"]),
    "fsspec": ("Only data/ and store/ import fsspec", ["expmgr.data", "expmgr.store"]),
    "jinja2": ("Only report/ imports Jinja2, Starlette and uvicorn", ["expmgr.report"]),
    "starlette": ("Only report/ imports Jinja2, Starlette and uvicorn", ["expmgr.report"]),
    "uvicorn": ("Only report/ imports Jinja2, Starlette and uvicorn", ["expmgr.report"]),
    "ray": ("Only launch/ray.py imports Ray", ["expmgr.launch.ray"]),
    "optuna": ("Only sweep/ imports Optuna", ["expmgr.sweep"]),
}
#: Where the dependencies that nobody imports yet will be imported.
TO_COME = ("report/html.py", "launch/ray.py", "sweep/study.py")


@dataclass(frozen=True)
class Lint:
    """What import-linter printed."""

    returncode: int
    text: str

    @property
    def contracts(self) -> dict[str, bool]:
        """Whether each contract is kept."""
        found = re.findall(r"^(.+) (KEPT|BROKEN)$", self.text, re.MULTILINE)
        return {name: answer == "KEPT" for name, answer in found}

    @property
    def broken(self) -> list[str]:
        return [name for name, is_kept in self.contracts.items() if not is_kept]

    def section(self, contract: str) -> str:
        """What is said about a broken contract; nothing if it is kept."""
        parts = re.split(r"^(.+)\n-{5,}\n", self.text.partition("\nBroken contracts\n")[2], flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True)).get(contract, "")

    def imports(self, contract: str) -> set[tuple[str, str]]:
        """Importer and imported of each line of a broken contract."""
        return set(re.findall(r"^[- ] +([\w.]+) -> ([\w.]+) \(l\.", self.section(contract), re.MULTILINE))

    def not_allowed(self, contract: str) -> set[tuple[str, str]]:
        return set(re.findall(r"^([\w.]+) is not allowed to import ([\w.]+):$", self.section(contract), re.MULTILINE))


class Copy:
    """A copy of `expmgr/` and of its contracts, to plant imports in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "expmgr"
        shutil.copytree(ROOT / "expmgr", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)

    def name(self, path: Path) -> str:
        """The dotted name of a file or folder."""
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def plant(self, path: str | Path, imported: Iterable[str]) -> None:
        """Imports inside a function, at the end of a module: the place where they are easily overlooked."""
        file = self.package / path
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        with file.open("a", encoding="utf-8") as stream:
            stream.write("\n\ndef planted():\n    pass\n" + "".join(f"    import {name}\n" for name in imported))

    def lint(self) -> Lint:
        program = Path(sys.executable).with_name("lint-imports")
        done = subprocess.run(
            [program, "--no-cache"],
            cwd=self.root,
            env={**os.environ, "COLUMNS": "500", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        lint = Lint(done.returncode, done.stdout + done.stderr)
        assert lint.contracts, lint.text
        return lint


def folders_of(package: Path) -> list[Path]:
    """Every folder that contains Python files."""
    return sorted({path.parent for path in package.rglob("*.py")})


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def contracts() -> list[dict[str, object]]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    assert isinstance(found, list)
    return found


def layers(container: str) -> list[list[str]]:
    """The lines of a contract of layers, the highest first."""
    (found,) = [one["layers"] for one in contracts() if one.get("containers") == [container]]
    assert isinstance(found, list)
    return [[name.strip() for name in line.split("|")] for line in found]


def test_the_package_keeps_its_contracts(copy: Copy) -> None:
    lint = copy.lint()
    assert lint.returncode == 0, lint.text
    assert lint.contracts == {str(one["name"]): True for one in contracts()}


def test_each_folder_is_a_package_whose_init_holds_a_docstring_only() -> None:
    """import-linter overlooks a folder without `__init__.py`; and importing a folder must import nothing else."""
    for folder in folders_of(ROOT / "expmgr"):
        tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), folder
        assert len(tree.body) == 1 or folder == ROOT / "expmgr", folder


def test_each_dependency_has_its_folders_and_no_other_module_imports_it(copy: Copy) -> None:
    modules = [*copy.package.rglob("*.py"), *(copy.package / file for file in TO_COME)]
    for path in modules:
        copy.plant(path, MAY_IMPORT)
    lint = copy.lint()

    wanted: dict[str, set[tuple[str, str]]] = {contract: set() for contract, _ in MAY_IMPORT.values()}
    for imported, (contract, allowed) in MAY_IMPORT.items():
        for module in map(copy.name, modules):
            if not any(f"{module}.".startswith(f"{one}.") for one in allowed):
                wanted[contract].add((module, imported))
    for contract, imports in wanted.items():
        assert lint.imports(contract) == imports, contract
        assert len(imports) > len(modules) / 2
    assert {COMMANDS, WORKER} < set(lint.broken)


@pytest.mark.parametrize(("container", "contract"), [("expmgr", DOWN), ("expmgr.train", DOWN_IN_TRAIN)])
def test_no_folder_imports_a_higher_one_or_its_neighbour(copy: Copy, container: str, contract: str) -> None:
    base = Path(*container.split(".")[1:])
    lines = layers(container)
    higher: list[str] = []
    wanted = set()
    for line in lines:
        for name in line:
            is_folder = (copy.package / base / name).is_dir()
            forbidden = [f"{container}.{other}" for other in (*higher, *line) if other != name]
            copy.plant(base / name / "planted.py" if is_folder else base / f"{name}.py", forbidden)
            wanted |= {(f"{container}.{name}", other) for other in forbidden}
        higher += line
    lint = copy.lint()
    assert lint.not_allowed(contract) == wanted
    assert len(wanted) > len(lines)


def test_two_files_of_one_folder_do_not_import_each_other(copy: Copy) -> None:
    folders = folders_of(copy.package)
    for folder in folders:
        for one, other in (("planted", "planted_too"), ("planted_too", "planted")):
            copy.plant(folder / f"{one}.py", [f"{copy.name(folder)}.{other}"])
    found = re.findall(r"No cycles are allowed in ([\w.]+)\.$", copy.lint().section(ACYCLIC), re.MULTILINE)
    assert sorted(found) == sorted(map(copy.name, folders))


def test_a_detour_is_found(copy: Copy) -> None:
    """The planted import is one that its own folder may make, or breaks another contract; what it leads to is forbidden."""
    detours = [
        (COMMANDS, "expmgr.cli.show", "expmgr.api.save_restore"),
        (WORKER, "expmgr.runs.request", "expmgr.git.repo"),
        (WORKER, "expmgr.data.files", "rich"),
    ]
    for _, importer, imported in detours:
        copy.plant(Path(*importer.split(".")[1:]).with_suffix(".py"), [imported])
    lint = copy.lint()
    for contract, importer, imported in detours:
        assert (importer, imported) in lint.imports(contract)


def test_a_new_folder_needs_a_place(copy: Copy) -> None:
    for container in ("", "train"):
        copy.plant(Path(container, "new_folder", "new_file.py"), ["os"])
    lint = copy.lint()
    assert lint.broken == [DOWN, DOWN_IN_TRAIN]
    assert "\n- expmgr.new_folder\n" in lint.section(DOWN)
    assert "\n- expmgr.train.new_folder\n" in lint.section(DOWN_IN_TRAIN)
