"""Hostile versions of real files go through every parser: only documented errors come out (docs/testing.md)."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expmgr.checkpoints.bundle import NotAnIndex, read_index
from expmgr.checkpoints.rebuild import Known, rebuilt
from fuzz import seeds
from fuzz.hostile import mutated, zipped
from fuzz.targets import TARGETS, Broken, Target
from once import made_once
from world import ROOT

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")


def _zipped(content: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as packed:
        packed.writestr("part_0.npy", content)
    return file.getvalue()


def _signature_with(architecture: str) -> bytes:
    return json.dumps(
        {**json.loads(seeds.signature_of_one().model_dump_json()), "architecture": zipped(architecture)}
    ).encode()


#: What a signature may say of its checkpoint, and no expmgr writes.
NOT_SAVED: dict[str, dict[str, object]] = {
    "a list of files": {"files": []}, "a size that is a text": {"files": {"x": {"size_bytes": "a"}}},
    "a file elsewhere": {"files": {"../x": {"size_bytes": 1, "sha256": ""}}}, "nothing carried": {"carried": None},
    "a pending number": {"carried": {"pending": 3}, "metrics": {}}, "pending numbers": {"carried": {"pending": [3]}},
    "state that is a list": {"carried": {"callbacks": []}}, "a time that is a text": {"saved_at": "x"},
    "a time before 1970": {"saved_at": -1}, "fewer rows than none": {"examples_seen": -1}, "a list of metrics": {"metrics": [1]},
    "a metric that is a text": {"metrics": {"eval": {"accuracy": "x"}}}, "rows that are a number": {"evaluated_on": {"eval": 1}},
    "another time that is a text": {"last_preserved_at": "x"}, "a time that never comes": {"last_preserved_at": 1e300},
    "perhaps": {"finite": "perhaps"},
}  # fmt: skip
#: Inputs that once broke a target: it hung, ate the memory, or raised what nobody documents.
FOUND: dict[str, tuple[str, bytes]] = {
    "an event that is deep": ("event", b'{"format":1,"x":' + b"[" * 950 + b"]" * 950 + b"}"),
    "an event of a long number": ("event", b'{"format":1,"x":' + b"9" * 5000 + b"}"),
    "run events that are deep": ("run-events", b'{"kind":"ready","at":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    "run events that are none": ("run-events", b'[]\n1\n{"kind":[]}\n{"kind":"point"}\n{"kind":"ready","at":1,"data":3}'),
    "a writer with a number that is none": ("small-files", b'{"writers":[{"id":"a","place":[NaN]}]}'),
    "a small file that is deep": ("small-files", b"[" * 100_000),
    "a signature that unpacks to 70 megabytes": ("signature", b'{"layers":"zlib+base64:' + base64.b64encode(
        zlib.compress(b"0" * 70_000_000, 1)) + b'"}'),
    "a signature that is deep": ("signature", b'{"format":' + b"[" * 100_000),
    "code with many signs": ("code", b"x = " + b"-" * 5000 + b"1"),
    "code with many names": ("code", b"x = a" + b".b" * 30_000),
    "code with many sums": ("code", b"x = 1" + b"+1" * 30_000),
    "code with many brackets": ("code", b"x = " + b"(" * 5000 + b"1" + b")" * 5000),
    "code with a deep call": ("code", b"from a import *\nx.a" + b".b" * 1500 + b"()"),
    "code with a long number": ("code", b"from a import *\n(0xN).real()\nexpmgr.params({0xN: 1})".replace(b"N", b"f" * 9000)),
    "code with many functions": ("code", b"".join(b"def f%d(): ...\n" % n for n in range(9000))),
    **{f"a signature with a packed {what}": ("signature", _signature_with(text)) for what, text in {
        "half of a pair": '{"kind":"\\ud800"}', "long number": f'{{"kind":"x","a":{"9" * 4000}}}',
        "number that is none": '{"kind":"x","a":NaN}', "depth": f'{{"kind":"x","a":{"[" * 900}{"]" * 900}}}'}.items()},
    **{f"a signature whose checkpoint has {key}": ("rebuild", seeds.signature_that_tells(**change).model_dump_json().encode())
       for key, change in NOT_SAVED.items()},
    **{f"a run_id that is {value}": ("rebuild", seeds.signature_of_one().model_copy(
        update={"provenance": {"run_id": value}}).model_dump_json().encode()) for value in ([1], {"a": 1}, 3, None)},
    "settings that are deep": ("settings", b"a = " + b"[" * 5000),
    "settings with a long number": ("settings", b"a = " + b"9" * 5000),
    "a tool that is no table": ("settings", b"tool = 5"),
    "settings of expmgr that are no table": ("settings", b"[tool]\nexpmgr = 5"),
    "a date that is none": ("settings", b"a = 2001-02-30"),
    "a home folder that is not there": ("settings", b'models_dir = "~nobodyx/a"'),
    "a store that is not there": ("settings", b'store = "file://~nobodyx/a"\ndata_root = "~nobodyx"'),
    "an environment that is not there": ("settings", b'environments = {a = "~nobodyx/a"}'),
    "a folder with a zero byte": ("settings", b'models_dir = "a\\u0000b"\nenvironments = {a = "\\u0000"}'),
    "spaces in a line of signers": ("signers", b"a openpgp " + b" " * 60_000 + b"x"),
    "a person with many addresses": ("signers", b"".join(b"a%d@x,b%d@x openpgp %020x\n" % (n, n + 1, n) for n in range(9000))),
    "a number without an end": ("bundle", b"\xff" * 300_000 + _MAGIC),
    "a list of files that are numbers": ("dvc", b"[1, 2]"),
    "a list of files with other names": ("dvc", b'[{"md5": "x", "relpath": "y"}]'),
    "a hash that is a path": ("dvc", b'[{"md5": "../../../../../../etc/passwd", "relpath": "y"}]'),
    "rows that are packed": ("probe-rows", _zipped(b"0" * 50_000_000)),
    "rows that are larger than their file": ("probe-rows", _zipped(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }".ljust(117) + b"\n",
        zipfile.ZIP_STORED)),
}  # fmt: skip
#: Inputs per example of hypothesis.
PER_EXAMPLE = 4


@pytest.mark.parametrize("case", FOUND)
def test_what_once_broke_a_target_does_not(case: str, real: seeds.Real) -> None:
    name, content = FOUND[case]
    start = time.process_time()
    TARGETS[name].run(content, real)
    assert time.process_time() - start < 10


#: Prints by how much each case made the process larger. A process that did other work has been as large before.
_MEASURED = """
import sys
from pathlib import Path
from fuzz import seeds
from fuzz.targets import TARGETS
from fuzz.test_fuzz import FOUND
from memory import most_bytes
real = seeds.real(Path(sys.argv[1]))
for case, (name, content) in FOUND.items():
    before = most_bytes()
    TARGETS[name].run(content, real)
    print(most_bytes() - before, case)
"""


def test_what_once_broke_a_target_takes_little_memory(real: seeds.Real) -> None:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(real.folder)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [case for _, case in found] == list(FOUND)
    assert {case: size for size, case in found if int(size) > 250_000_000} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds the limit")
def test_a_target_that_takes_all_memory_is_broken(real: seeds.Real) -> None:
    with pytest.raises(Broken, match="greedy: took more than 1500 MB"):
        Target("greedy", "bytes", lambda content, _folder, _real: len(content * 2_000_000_000)).run(b"x", real)


@pytest.mark.parametrize("size", [1, 2000])
def test_an_index_whose_blocks_overlap_is_none(tmp_path: Path, size: int) -> None:
    """Each entry of the index block names the same block, whose keys grow: a megabyte would stand for terabytes."""
    block = b"\x00\x01\x00k" + b"".join(bytes([*_varint(1 + n), 1, 0]) + b"k" for n in range(size)) + b"\0" * 4
    handle = bytes([0, *_varint(len(block))])
    index = b"".join(bytes([0, 1, len(handle)]) + b"k" + handle for _ in range(size)) + b"\0" * 4
    content = block + b"\0" * 5 + index + b"\0" * 5
    footer = bytes([0, 0, *_varint(len(block) + 5), *_varint(len(index))])
    path = tmp_path / "model.ckpt-1.index"
    path.write_bytes(content + footer.ljust(40, b"\0") + _MAGIC)
    if size == 1:
        assert list(read_index(path)) == ["k", "kk"]
    else:
        with pytest.raises(NotAnIndex, match="its blocks or keys overlap"):
            read_index(path)


def _varint(number: int) -> list[int]:
    return [number] if number < 0x80 else [number & 0x7F | 0x80, *_varint(number >> 7)]


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> seeds.Real:
    return seeds.real(made_once(tmp_path_factory, "fuzz-seeds", seeds.make))


@pytest.mark.parametrize("name", TARGETS)
def test_real_files_are_accepted(name: str, real: seeds.Real) -> None:
    accepted = [TARGETS[name].run(content, real) for content in real.files[name]]
    assert accepted[0], name


@pytest.mark.parametrize("name", TARGETS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(number=st.integers(0, 2**32 - 1))
def test_hostile_files_end_in_documented_errors(name: str, real: seeds.Real, number: int) -> None:
    target, rnd = TARGETS[name], random.Random(number)
    for _ in range(PER_EXAMPLE):
        target.run(mutated(rnd, target.form, real.files[name]), real)


@pytest.mark.parametrize("change", NOT_SAVED.values(), ids=list(NOT_SAVED))
def test_a_checkpoint_whose_signature_says_nonsense_of_it_is_not_taken(
    tmp_path: Path, real: seeds.Real, change: dict[str, object]
) -> None:
    content = seeds.signature_that_tells(**change).model_dump_json().encode()
    for name, held in {"json": content, "index": real.index, "data-00000-of-00001": seeds.WEIGHTS}.items():
        (tmp_path / f"model.ckpt-1.{name}").write_bytes(held)
    (left,) = rebuilt(tmp_path, "models/iris/wide/seed-0", "iris/wide", 0, Known()).not_taken
    assert left.why.startswith(f"model.ckpt-1.json has a saved.{next(iter(change))}")
