"""Where the code comes from that a spec names: the repository, or packages that it may name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from expmgr.errors import UserCodeFailed
from expmgr.train.user.code import UserCode

MINE = """
import collections, dataclasses, enum, functools, json, os, subprocess
from os import getcwd
from shlex import split as cut
from json import JSONDecoder
from own_package.inner import helper

def build(): return "built"
class Watch: ...
@functools.lru_cache
def cached(): return "cached"
later = functools.partial(build)
system = os.system
look_up = os.environ.get
class Rows:
    def __call__(self): return []
rows = Rows()

Params = dataclasses.make_dataclass("Params", ["units"])
Pair = collections.namedtuple("Pair", "a b")
Kind = enum.Enum("Kind", "A B")
wrapped = functools.wraps(os.getcwd)(lambda: build())
closed = functools.cache(build)
either = functools.singledispatch(build)
from mock_exporting import closure
cwd = os.getcwd
loaded = json.loads
bound = json.JSONDecoder().decode
unbound = json.JSONDecoder.decode

import mock_decorators
@mock_decorators.plain
def decorated(): ...
made = mock_decorators.plain(build)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserCode]:
    root, installed = tmp_path / "code", tmp_path / "site-packages"
    folder = root / "experiments/own"
    (folder / "own_package").mkdir(parents=True)
    installed.mkdir()
    (folder / "own_model.py").write_text(MINE)
    (folder / "own_package/inner.py").write_text("def helper(): ...\n")
    (folder / "json.py").write_text("raise RuntimeError('never imported')\n")
    wrapper = "def plain(given):\n    def wrapper(): return given()\n    return wrapper\n"
    (installed / "mock_decorators.py").write_text(wrapper)
    (installed / "mock_bad.py").write_text("raise RuntimeError('never imported')\n")
    (installed / "mock_exporting.py").write_text(f"{wrapper}closure = plain(print)\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed)])
    before = set(sys.modules)
    yield UserCode(folder, root, tmp_path / "repository", packages=["mock_decorators", "os"])
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("own_model", "own_package", "mock_decorators", "mock_exporting"):
            del sys.modules[name]


@pytest.mark.parametrize(
    "reference",
    [
        *(f"own_model:{name}" for name in ("build", "Watch", "cached", "later", "rows", "decorated", "helper")),
        *(f"own_model:{name}" for name in ("Params", "Pair", "Kind", "closed", "either", "made", "wrapped")),
        *("own_package.inner:helper", "mock_decorators:plain", "numpy:zeros", "numpy:float32", "numpy:exp"),
    ],
)
def test_code_of_the_repository_and_of_allowed_packages_is_found(code: UserCode, reference: str) -> None:
    assert callable(code.find(reference, "model.build"))


@pytest.mark.parametrize(
    ("reference", "module"),
    [
        *(("os:getcwd", "os"), ("os.path:join", "os"), ("posix:getcwd", "posix"), ("sys:exit", "sys")),
        *(("subprocess:run", "subprocess"), ("builtins:exec", "builtins"), ("__main__:main", "__main__")),
        *(("mock_bad:f", "mock_bad"), ("pytest:main", "pytest"), ("expmgr.errors:worst", "expmgr")),
        *(("own_model:getcwd", "posix"), ("own_model:system", "posix"), ("own_model:cut", "shlex")),
        *(("own_model:JSONDecoder", "json"), ("own_model:look_up", "collections"), ("json:loads", "json")),
        *(
            ("own_model:cwd", "posix"),
            ("own_model:loaded", "json"),
            ("own_model:bound", "json"),
            ("own_model:unbound", "json"),
        ),
        ("own_model:closure", "mock_exporting"),
    ],
)
def test_code_from_elsewhere_is_refused_before_it_is_imported(code: UserCode, reference: str, module: str) -> None:
    with pytest.raises(UserCodeFailed) as refused:
        code.find(reference, "data.train")
    told = f"data.train: {reference} is code of {module}, not of the repository, Keras, TensorFlow or NumPy"
    assert refused.value.message == told
    assert refused.value.left_alone == "Nothing was changed."
    assert "mock_bad" not in sys.modules


def test_a_module_is_no_way_to_another(code: UserCode) -> None:
    """`numpy.os` is Python's own: as a module of NumPy it is not there, as a name in it no function."""
    for reference in ("numpy.os:getcwd", "own_model.os:system"):
        with pytest.raises(UserCodeFailed, match="cannot be imported"):
            code.find(reference, "data.train")
    with pytest.raises(UserCodeFailed, match="is no function"):
        code.call("own_model:os", "data.train", {})


@pytest.mark.parametrize(
    ("reference", "file"),
    [
        ("own_compiled:build", "own_compiled.pyc"),
        ("own_compiled:build", "own_compiled.so"),
        ("own_model:build", "own_model.so"),  # Python prefers it to the source beside it
        ("own_package.deep:build", "own_package/deep.pyc"),
        ("own_package.inner:helper", "own_package/__init__.so"),
        ("keras_own:build", "keras_own.pyc"),
    ],
)
def test_compiled_code_of_the_repository_is_refused_before_it_is_imported(
    code: UserCode, reference: str, file: str
) -> None:
    (code.experiment_dir / file).write_bytes(b"never read")
    with pytest.raises(UserCodeFailed) as refused:
        code.find(reference, "model.build")
    path = f"experiments/own/{file}"
    assert refused.value.lines() == [
        f"Error: model.build: {reference} is in {path}, which is compiled; a spec can only name Python source",
        "Nothing was changed.",
        f"Hint: git rm {path}, and commit the source",
    ]
