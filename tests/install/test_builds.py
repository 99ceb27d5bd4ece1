"""Whatever build of TensorFlow is installed is the one that is used: installing expmgr neither replaces it nor adds one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from light import Light
from package import main, problems, tracked
from world import Repo

from .conftest import pip

pytestmark = pytest.mark.slow
_TENSORFLOWS = ("tensorflow", "tf-nightly", "tf_nightly", "keras", "nvidia")


def packages(python: Path) -> dict[str, str]:
    return {
        one["name"].lower().replace("_", "-"): one["version"]
        for one in json.loads(pip(python, "list", "--format", "json"))
    }


def digests(python: Path) -> dict[str, str]:
    """What lies in the environment's `tensorflow/`."""
    (folder,) = python.parents[1].glob("lib/*/site-packages/tensorflow")
    files = [one for one in folder.rglob("*") if one.is_file() and "__pycache__" not in one.parts]
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def test_no_build_of_tensorflow_is_asked_for_without_an_extra(wheel: Path) -> None:
    """What pip would install into a bare environment."""
    how = ("--quiet", "--dry-run", "--ignore-installed", "--report", "-")
    report = json.loads(pip(sys.executable, "install", *how, str(wheel)))
    names = {one["metadata"]["name"].lower() for one in report["install"]}
    assert {"expmgr", "gitpython", "scipy"} <= names
    assert [name for name in names if name.startswith(_TENSORFLOWS)] == []


def test_the_extras_of_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    found = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: tensorflow")]
    assert found == [
        "tensorflow>=2.16; extra == 'dev'",
        "tensorflow[and-cuda]>=2.16; extra == 'gpu'",
        "tensorflow>=2.16; extra == 'tensorflow'",
    ]


@pytest.mark.nightly
def test_a_build_that_is_installed_first_stays(tmp_path: Path, wheel: Path, repo: Repo) -> None:
    """The real `tensorflow-cpu`, which has the files of `tensorflow` under another name."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip(python, "install", "--quiet", "tensorflow-cpu>=2.16")
    before, files = packages(python), digests(python)
    pip(python, "install", "--quiet", str(wheel))
    after = packages(python)
    assert {name: after[name] for name in before} == before
    assert [name for name in after.keys() - before.keys() if name.startswith(_TENSORFLOWS)] == []
    assert digests(python) == files
    pip(python, "check")
    light = Light((str(python.parent / "expmgr"),))
    for command in (
        ("init", "--example", "iris", "--commit"),
        ("new", "iris/first"),
        ("run", "iris/first", "--max-steps", "20"),
        ("check", "iris/first"),
        ("evaluate", "iris/first"),
    ):
        result = light.expmgr(repo, *command)
        assert result.code == 0, (command, result.stdout, result.stderr)
    told = json.loads(light.expmgr(repo, "show", "iris/first:0", "--json").stdout)
    assert told["environment"]["tensorflow"] == after["tensorflow-cpu"]
    shown = light.expmgr(repo, "check", "iris/first")  # without TensorFlow, since its version is known by any name
    assert shown.stdout.startswith("iris/first seed 0: same (")


def test_an_incomplete_wheel_is_found(tmp_path: Path, wheel: Path) -> None:
    """The check of `make package` can fail: a file that lacks, one too many, another content, a requirement."""
    files = tracked()
    subprocess.run(
        [sys.executable, "-m", "build", "--quiet", "--sdist", "--no-isolation", "--outdir", str(tmp_path / "dist"), "."],
        check=True, cwd=Path(__file__).parents[2], capture_output=True,
    )  # fmt: skip
    broken = tmp_path / "dist" / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(broken, "w") as new:
        for one in old.infolist():
            content = old.read(one)
            if one.filename == "expmgr/py.typed":
                continue
            if one.filename == "expmgr/errors.py":
                content += b"# changed\n"
            if one.filename.endswith("/METADATA"):
                content = content.replace(
                    b"Requires-Dist: typer", b"Requires-Dist: tensorflow>=2\nRequires-Dist: typer"
                )
            if not one.filename.endswith("licenses/LICENSE"):
                new.writestr(one, content)
        new.writestr("expmgr/notes.txt", "left behind")
    assert [*problems(tmp_path / "dist", files)] == [
        f"{wheel.name} {line}"
        for line in (
            "lacks expmgr/py.typed",
            "has expmgr/notes.txt, which git has not",
            "has another expmgr/errors.py than the folder",
            "lacks licenses/LICENSE beside the package",
            "has another licence than the project",
            "requires tensorflow, which is for an extra",
        )
    ]
    assert main(str(tmp_path / "dist")) == 1
    broken.write_bytes(wheel.read_bytes())
    assert main(str(tmp_path / "dist")) == 0
