"""Finds and checks the Python environment of a run: expmgr's own, or one that the settings name.

Another interpreter is asked what it has before a worker is started in it; it needs TensorFlow and pydantic, not expmgr.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from expmgr.disk import durable
from expmgr.errors import EnvironmentProblem, NoTensorFlow, did_you_mean
from expmgr.paths import has_tensorflow, home_path
from expmgr.project import Project
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import EstimatorModel

_OLDEST_PYTHON = (3, 10)
_ASK_SECS = 60
#: Names under which TensorFlow is installed.
TENSORFLOWS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-rocm",
    "tensorflow-macos",
    "tensorflow-intel",
    "tensorflow-gpu",
    "tensorflow-cpu-aws",
    "intel-tensorflow",
    "tf-nightly",
    "tf-nightly-cpu",
    "tf-nightly-rocm",
)
#: Asked of an interpreter, whatever its version: no word of it may need a newer Python than it has.
_QUESTION = """
import importlib.metadata, importlib.util, json, sys
packages = {}
for one in importlib.metadata.distributions():
    name = one.metadata["Name"]
    if name:
        packages[name.lower().replace("_", "-")] = one.version
found = importlib.util.find_spec("tensorflow")
told = {"python": list(sys.version_info[:3]), "packages": packages}
told["has_tensorflow"] = found is not None and found.origin is not None
print(json.dumps(told))
"""
_UNTOUCHED = "Nothing was started."


@dataclass(frozen=True)
class Environment:
    """A Python environment: the interpreter, and what is installed in it."""

    name: str | None
    """Its name in the settings; None: expmgr's own."""
    python: Path
    version: str
    packages: Mapping[str, str]
    """Normalised name of each distribution to its version."""

    @property
    def lock(self) -> str:
        """What is installed, as `pip freeze` writes it: a line `name==version` each, in order."""
        return "".join(f"{name}=={version}\n" for name, version in sorted(self.packages.items()))

    @property
    def lock_digest(self) -> str:
        """sha256 of the version of Python and of `lock`."""
        return hashlib.sha256(f"python=={self.version}\n{self.lock}".encode()).hexdigest()

    def version_of(self, *names: str) -> str | None:
        """The version of the first of `names` that is installed."""
        return next((self.packages[name] for name in names if name in self.packages), None)

    def as_dict(self) -> dict[str, str | None]:
        """What a record holds of it."""
        return {"name": self.name, "lock": self.lock_digest}

    def keep_lock(self, folder: Path) -> None:
        """Write `lock` to `<digest>.txt` in `folder`, once: what a record's digest stands for."""
        path = folder / f"{self.lock_digest}.txt"
        if not path.exists():
            durable.make_folder(folder)
            durable.write_bytes(path, f"# Python {self.version}\n{self.lock}".encode())


def environment_of(project: Project, spec: ExperimentSpec) -> Environment:
    """The environment that a run of `spec` happens in.

    Raises `EnvironmentProblem` where the settings do not name it, its interpreter is not there, or it lacks what a
    worker needs.
    """
    name = spec.environment
    if name is None:
        found = _asked(None, sys.executable)
    else:
        found = _asked(name, str(interpreter_of(project.settings.environments, name, project.repo.main_root)))
    if isinstance(spec.model, EstimatorModel):
        _require_estimators(found)
    elif name is None and not has_tensorflow():
        raise no_tensorflow()
    return found


def interpreter_of(environments: Mapping[str, str], name: str, root: Path) -> Path:
    """The Python that the setting `environments` gives to `name`; `EnvironmentProblem` if there is none."""
    if name not in environments:
        raise EnvironmentProblem(
            f"the spec runs in environment {name}, and the settings name none of that name",
            left_alone=_UNTOUCHED,
            hint=did_you_mean(
                name,
                environments,
                f'in pyproject.toml: [tool.expmgr.environments] {name} = ".venv-{name}"; '
                "or, for this machine alone, in .git/expmgr/config.toml: [environments]",
            ),
        )
    path = root / home_path(environments[name], f"environments.{name}")
    if path.is_dir():
        path = path / "bin" / "python"
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise EnvironmentProblem(
            f"environment {name}: there is no Python at {path}",
            left_alone=_UNTOUCHED,
            hint=f"python3.11 -m venv {environments[name]}, and install into it what the experiment needs and pydantic",
        )
    return path


def _asked(name: str | None, python: str) -> Environment:
    """What the environment has now: a process that lives long, such as a notebook's, sees what was installed meanwhile."""
    return _asked_once(name, python, _changed_at(python))


def _changed_at(python: str) -> tuple[tuple[str, int], ...]:
    """When the folders that packages are installed into changed last. An install, upgrade or removal changes one."""
    if python == sys.executable:
        folders = [Path(one) for one in sys.path if one]
    else:
        folders = sorted(Path(python).parent.parent.glob("lib*/python*/site-packages"))
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            found.append((str(folder), folder.stat().st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=16)
def _asked_once(name: str | None, python: str, _: tuple[tuple[str, int], ...]) -> Environment:
    if python == sys.executable:
        told = _own()
    else:
        environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        try:
            done = subprocess.run(
                [python, "-c", _QUESTION],
                capture_output=True,
                text=True,
                timeout=_ASK_SECS,
                check=True,
                env=environ,
                cwd="/",
            )
            told = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise EnvironmentProblem(
                f"environment {name}: {python} does not run", details=lines[-3:], left_alone=_UNTOUCHED
            ) from None
    found = Environment(name, Path(python), ".".join(map(str, told["python"])), told["packages"])
    if name is not None:
        _require_worker(found, told["python"], has_tensorflow=told["has_tensorflow"])
    return found


def _own() -> dict[str, Any]:
    import importlib.metadata

    packages = {
        one.metadata["Name"].lower().replace("_", "-"): one.version
        for one in importlib.metadata.distributions()
        if one.metadata["Name"]
    }
    return {"python": list(sys.version_info[:3]), "packages": packages, "has_tensorflow": has_tensorflow()}


def no_tensorflow(*, in_python: bool = False) -> NoTensorFlow:
    """The error of expmgr's own environment, where it was installed without TensorFlow. With `in_python` the message has
    what to type: a traceback shows no hint."""
    what = f"expmgr's own environment ({sys.executable}) has no TensorFlow, which this needs"
    way = f"install it: {sys.executable} -m pip install 'expmgr[tensorflow]'"
    if in_python:
        return NoTensorFlow(f"{what}; {way}", left_alone="Nothing was changed.")
    return NoTensorFlow(what, left_alone=_UNTOUCHED, hint=way)


def _require_worker(found: Environment, version: Sequence[int], *, has_tensorflow: bool) -> None:
    """What a worker in another environment needs; to expmgr's own all but TensorFlow came with it."""
    what = f"environment {found.name} ({found.python})"
    if tuple(version[:2]) < _OLDEST_PYTHON:
        raise EnvironmentProblem(
            f"{what} has Python {found.version}, a worker needs 3.10 or newer",
            left_alone=_UNTOUCHED,
            hint=f"TensorFlow 2.14 and 2.15 have Python 3.10 and 3.11: python3.11 -m venv {found.python.parent.parent}",
        )
    missing = [name for name in ("pydantic",) if name not in found.packages]
    if int(str(found.packages.get("pydantic", "2")).partition(".")[0]) < 2:
        missing.append("pydantic 2")
    if not has_tensorflow:
        missing.append("TensorFlow")
    if missing:
        packages = " ".join(
            {"TensorFlow": "tensorflow", "pydantic 2": "'pydantic>=2.9'"}.get(one, one) for one in missing
        )
        raise EnvironmentProblem(
            f"{what} lacks {' and '.join(missing)}",
            left_alone=_UNTOUCHED,
            hint=f"{found.python} -m pip install {packages}",
        )


def _require_estimators(found: Environment) -> None:
    version = found.version_of(*TENSORFLOWS) or "none"
    numbers = [int(part) if part.isdigit() else 0 for part in (*version.split("."), "0")[:2]]
    if numbers[:1] == [2] and numbers[1] in (14, 15):
        return
    where = "expmgr's own environment" if found.name is None else f"environment {found.name}"
    raise EnvironmentProblem(
        f"model.kind estimator needs TensorFlow 2.14 or 2.15; {where} has {version}",
        left_alone=_UNTOUCHED,
        hint="python3.11 -m venv .venv-tf215; .venv-tf215/bin/pip install 'tensorflow==2.15.*' 'pydantic>=2.9'; "
        'in pyproject.toml [tool.expmgr.environments] estimator = ".venv-tf215"; in the spec environment: estimator',
    )
