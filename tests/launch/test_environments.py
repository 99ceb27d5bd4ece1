"""What a long process, such as a notebook's, knows of an environment that packages are installed into meanwhile."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from expmgr.errors import EnvironmentProblem, NoTensorFlow
from expmgr.launch import environments
from expmgr.launch.environments import environment_of
from expmgr.project import Project
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.yaml_file import read_spec
from world import ROOT, Repo

SPEC = read_spec((ROOT / "experiments/iris/spec.yaml").read_bytes(), "spec.yaml")
OTHER = """
[tool.expmgr.environments]
other = "other"
"""
#: An interpreter that answers what a file holds.
PYTHON = """#!/bin/sh
cat "$(dirname "$0")/../told.json"
"""


def spec_in(environment: str | None = None, kind: str | None = None) -> ExperimentSpec:
    values = SPEC.resolved()
    values["environment"] = environment
    if kind is not None:
        values["model"] = {"kind": kind, "build": "model:model_fn"}
        del values["optimizer"]
    return ExperimentSpec.model_validate(values)


def install(packages: Path, name: str, version: str) -> None:
    folder = packages / f"{name}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_what_is_installed_after_a_refusal_is_in_the_lock(
    iris: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    os.utime(packages, (1, 1))
    monkeypatch.syspath_prepend(str(packages))
    project = Project.open(iris.path)
    monkeypatch.setattr(environments, "has_tensorflow", lambda: False)
    with pytest.raises(NoTensorFlow):
        environment_of(project, spec_in())
    install(packages, "one-of-the-tests", "2.99")
    monkeypatch.setattr(environments, "has_tensorflow", lambda: True)
    found = environment_of(project, spec_in())
    assert "one-of-the-tests==2.99\n" in found.lock
    os.utime(packages, (2, 2))
    install(packages, "another-of-the-tests", "1.0")
    later = environment_of(project, spec_in())
    assert "another-of-the-tests==1.0\n" in later.lock
    assert later.lock_digest != found.lock_digest


def test_what_is_installed_into_another_environment_is_seen(iris: Repo, tmp_path: Path) -> None:
    other = iris.path / "other"
    packages = other / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    python = other / "bin/python"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    iris.write("pyproject.toml", OTHER)

    def answer(tensorflow: str, at: int) -> None:
        told = {"python": [3, 11, 9], "packages": {"tensorflow": tensorflow, "pydantic": "2.9"}, "has_tensorflow": True}
        (other / "told.json").write_text(json.dumps(told))
        os.utime(packages, (at, at))

    project = Project.open(iris.path)
    answer("2.16.1", 1)
    with pytest.raises(EnvironmentProblem, match=r"environment other has 2\.16\.1"):
        environment_of(project, spec_in("other", "estimator"))
    answer("2.15.1", 2)
    assert environment_of(project, spec_in("other", "estimator")).packages["tensorflow"] == "2.15.1"
