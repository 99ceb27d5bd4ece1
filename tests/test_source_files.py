"""The tables of folders and files in docs/ are those that `make source-files` writes, and each line of them says something."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from world import ROOT


@pytest.fixture(scope="module")
def source_files() -> ModuleType:
    spec = importlib.util.spec_from_file_location("source_files", ROOT / "docs" / "source_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_current(source_files: ModuleType) -> None:
    page = source_files.FOLDERS_PAGE.read_text(encoding="utf-8")
    assert page == source_files.with_tables(page), "make source-files"
    assert source_files.FILES_PAGE.read_text(encoding="utf-8") == source_files.files_page(), "make source-files"


def test_each_module_is_in_the_table(source_files: ModuleType) -> None:
    page = source_files.files_page()
    for file in (ROOT / "expmgr").rglob("*.py"):
        is_folder = file.name == "__init__.py"
        line = f"\n## `{file.parent.relative_to(ROOT)}/`\n" if is_folder else f"](../../{file.relative_to(ROOT)}) |"
        assert page.count(line) == 1, file


def test_each_docstring_begins_with_a_short_sentence_that_no_other_module_has(source_files: ModuleType) -> None:
    seen = {}
    for file in (ROOT / "expmgr").rglob("*.py"):
        subject = source_files.subject_of(file)
        assert subject.endswith("."), file
        assert 20 < len(subject) <= 105, (file, len(subject))
        assert "|" not in subject, file
        assert seen.setdefault(subject, file) == file
