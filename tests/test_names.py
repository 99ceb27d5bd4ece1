"""One idea, one class, one name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]


def classes_of(folder: Path) -> dict[str, list[str]]:
    """Name of a class to the modules that define it."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(path.relative_to(folder).as_posix())
    return dict(found)


def test_no_two_classes_have_one_name() -> None:
    found = classes_of(ROOT / "expmgr")
    assert len(found) > 200, "not everything was read"
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_a_class_that_is_defined_twice_is_found(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("def made():\n    class Twin:\n        pass\n")
    assert classes_of(tmp_path) == {"Twin": ["one.py", "two.py"]}
