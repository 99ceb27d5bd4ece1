"""`.ci/run` and the workflow files: what they run, what they say at the end, and that they end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from world import ROOT

#: Each target of the Makefile as `.ci/run` calls it, which takes no time.
TARGETS = """\
.PHONY: env lint package demo test test-all test-alone matrix estimator-env matrix-env
env estimator-env matrix-env lint package demo matrix:
	@echo this is $@
env: ; @mkdir -p .venv; touch .venv/.made
test: ; @echo '====== 1 passed in 1.50s ======'
test-all: ; @echo '====== 3 passed, 1 skipped in 2.50s ======'
test-alone: ; @echo '====== 2 passed in 61.00s (0:01:01) ======'
"""
PHASES = ["other-environments", "environment", "lint", "package", "demo", "tests", "lonely-tests", "oldest-tensorflow"]


def ci(folder: Path, makefile: str, limit_s: int = 60) -> tuple[int, str, dict[str, str]]:
    """Exit code, output, and what the table says of each phase."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    (folder / "Makefile").write_text(makefile)
    done = subprocess.run(
        ["bash", str(folder / ".ci" / "run")], env={**os.environ, "CI_LIMIT_S": str(limit_s)}, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    table = done.stdout.split("\nphase ")[1].splitlines()[1:]
    rows = [re.fullmatch(r"(\S+) +(\d+)  (.*)", line) for line in table]
    return done.returncode, done.stdout, {row[1]: row[3].strip() for row in rows if row}


def test_ci_shows_what_each_phase_took_and_what_pytest_said(tmp_path: Path) -> None:
    code, output, table = ci(tmp_path, TARGETS)
    assert code == 0, output
    newest = {"newest-tensorflow"} & table.keys()
    assert sorted(table) == sorted([*PHASES, *newest])
    assert table["tests"] == "ok      ====== 3 passed, 1 skipped in 2.50s ======"
    assert table["lonely-tests"] == "ok      ====== 2 passed in 61.00s (0:01:01) ======"
    assert table["lint"] == "ok"
    assert "this is matrix-env" in output
    assert re.search(r"^all, side by side +\d+$", output, re.MULTILINE)


def test_ci_goes_on_after_a_failure_and_fails(tmp_path: Path) -> None:
    failing = "test-all: ; @echo '====== 1 failed in 2.50s ======'; false"
    code, output, table = ci(tmp_path, re.sub(r"^test-all:.*$", failing, TARGETS, flags=re.MULTILINE))
    assert code == 1, output
    assert table["tests"] == "FAILED  ====== 1 failed in 2.50s ======"
    assert table["lonely-tests"].startswith("ok")


@pytest.mark.parametrize("target", ["matrix-env", "estimator-env"])
def test_ci_without_the_other_environments_tests_what_needs_the_main_one_and_fails(tmp_path: Path, target: str) -> None:
    code, output, table = ci(tmp_path, TARGETS + f"{target}: ; @false\n")
    assert code == 1, output
    assert table["other-environments"] == "FAILED"
    assert table["tests"] == "ok      ====== 1 passed in 1.50s ======"
    assert [name for name, told in table.items() if name != "other-environments" and not told.startswith("ok")] == []
    assert sorted(table) == ["demo", "environment", "lint", "other-environments", "package", "tests"]


@pytest.mark.parametrize("others", ["", "matrix-env: ; @false\n"])
def test_ci_without_the_main_environment_runs_no_test_and_fails(tmp_path: Path, others: str) -> None:
    code, output, table = ci(tmp_path, TARGETS + "env: ; @false\n" + others)
    assert code == 1, output
    assert (table["environment"], "tests" in table) == ("FAILED", False)


@pytest.mark.skipif(shutil.which("timeout") is None, reason="needs timeout of coreutils")
def test_ci_ends_whatever_happens(tmp_path: Path) -> None:
    code, output, table = ci(tmp_path, TARGETS + "lint: ; @sleep 600\n", limit_s=3)
    assert code == 1, output
    assert table["lint"] == "no time"


def test_the_docs_name_every_file_of_tests_and_every_mark() -> None:
    text = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    promises = text.split("## Promises")[1].split("## Warm")[0]
    assert set(re.findall(r"`(test_\w+\.py)`", promises)) == {path.name for path in ROOT.glob("tests/**/test_*.py")}
    markers = re.findall(r'^  "(\w+): ', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(markers)
    lonely = {path.name for path in ROOT.glob("tests/**/test_*.py") if "pytest.mark.alone" in path.read_text("utf-8")}
    assert set(re.findall(r"\*\*`(test_\w+\.py)`\*\*", promises)) == lonely - {Path(__file__).name}


def _workflow(path: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((ROOT / path).read_text(encoding="utf-8"))


def test_the_workflow_files_run_ci_and_nightly() -> None:
    github = {path.stem: _workflow(f".github/workflows/{path.name}") for path in ROOT.glob(".github/workflows/*.yml")}
    assert sorted(github) == ["ci", "nightly"]
    gitlab = _workflow(".gitlab-ci.yml")
    assert set(github["nightly"]["on"]) == {"schedule", "workflow_dispatch"}
    assert gitlab["nightly"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    for name, command in (("ci", "bash .ci/run"), ("nightly", "make nightly")):
        (job,) = github[name]["jobs"].values()
        assert job["steps"][-1] == {"run": command}
        assert gitlab[name]["script"] == [command]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = re.findall(r'"\$\{make\[@\]\}" (?:-j2 )?([a-z -]+)', (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert {one for line in called for one in line.split()} | {"nightly"} <= targets
