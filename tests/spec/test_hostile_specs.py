"""Specs that somebody pushed to exhaust or break a reader: each ends in an error with its place, before anything expands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from clones import Team, commit_on, ok, ran
from expmgr.errors import ExpmgrError, SpecProblem
from expmgr.spec.limits import MOST_VALUES
from expmgr.spec.yaml_file import read_spec, set_values, yaml_value
from world import ROOT, Repo

IRIS = (ROOT / "experiments/iris/spec.yaml").read_text(encoding="utf-8")
SPEC = "experiments/iris/spec.yaml"
LINE = IRIS.count("\n") + 1


def bomb(levels: int = 7, width: int = 10) -> str:
    """Aliases of aliases: `width ** levels` values in some hundred bytes."""
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, levels)]
    return "".join(f"{line}\n" for line in lines)


def merging(levels: int = 7, width: int = 10) -> str:
    """The same with merge keys."""
    lines = [f"a0: &a0 {{{', '.join(f'k{n}: x' for n in range(width))}}}"]
    lines += [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * width)}]}}" for level in range(1, levels)]
    return "".join(f"{line}\n" for line in lines)


def deep(levels: int) -> str:
    """Anchors that are flat as they are written, and deep when they are expanded."""
    lines = ["a0: &a0 [x]", *(f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, levels))]
    return "".join(f"{line}\n" for line in lines)


_VALUES = "a spec has at most 10,000 values, with aliases expanded"
_LEVELS = "a spec has at most 50 levels of mappings and lists"
#: The last lines of a spec, and what is said of them after the name of the file.
HOSTILE = {
    "a bomb": (bomb(), f"{LINE + 3}: a3.7: {_VALUES}"),
    "a bomb of merge keys": (merging(), f"{LINE + 3}: a3.<<.3: {_VALUES}"),
    "a long text, often": ("a: &a '" + "x" * 5000 + "'\n" + "b: [" + "*a, " * 300 + "]\n",
                           f"{LINE + 1}: b.198: a spec has at most 1,000,000 characters, with aliases expanded"),
    "aliases that are deep": (deep(60), f"{LINE + 48}: a48.0: {_LEVELS}"),
    "an alias of itself": ("a: &a [*a]\n", f"{LINE}: a.0: *a is inside of the value that it names"),
    "open brackets": ("a: " + "[" * 5000, f"{LINE}: {_LEVELS}"),
    "open braces": ("a: " + "{a: " * 1500, f"{LINE}: a.a.a.a.a.a.a.a...: {_LEVELS}"),
    "dashes": ("a:\n" + "- " * 60 + "x\n", f"{LINE + 1}: a.0.0.0.0.0.0.0...: {_LEVELS}"),
    "question marks": ("? " * 60 + "x\n", f"{LINE}: {_LEVELS}"),
    "many values": ("a: [" + "1, " * 11_000 + "]\n", f"{LINE}: a.9953: {_VALUES}"),
    "a bool that is none": ("x: !!bool maybe\n", f"{LINE}: x: maybe does not fit its tag !!bool"),
    "an int that is none": ("x: !!int ''\n", f"{LINE}: x:  does not fit its tag !!int"),
    "a float that is none": ("x: {y: !!float one}\n", f"{LINE}: x.y: one does not fit its tag !!float"),
    "a null that is none": ("x: !!null 1\n", f"{LINE}: x: 1 does not fit its tag !!null"),
    "a list that is none": ("x: !!seq {a: 1}\n", f"{LINE}: x: is not what its tag !!seq says"),
    "a number of underscores": ("x: -_\n", f"{LINE}: x: -_ is not a number: put it in quotes"),
    "a long hex number": ("x: 0x" + "f" * 200_000 + "\n",
                          f"{LINE}: x: is a number with 200,002 characters; a spec takes at most 400"),
    "a long number": ("x: " + "9" * 5000 + "\n",
                      f"{LINE}: x: is a number with 5,000 characters; a spec takes at most 400"),
    "more than 64 bits": ("x: 18446744073709551616\n", f"{LINE}: x: is an integer of 65 bits; a spec takes at most 64"),
    "infinity": ("x: .inf\n", f"{LINE}: x: input should be a finite number, is inf"),
    "more than a float holds": ("x: 1e999\n", f"{LINE}: x: input should be a finite number, is inf"),
    "no number": ("x: [1, .nan]\n", f"{LINE}: x.1: input should be a finite number, is nan"),
    "an unknown tag": ("x: !secret 1\n", f"{LINE}: x: the tag !secret is not taken: a spec contains plain values only"),
    "an object": ("x: !!python/object/apply:os.system [ls]\n",
                  f"{LINE}: x: the tag !!python/object/apply:os.system is not taken: a spec contains plain values only"),
    "a tuple": ("x: !!python/tuple [1]\n",
                f"{LINE}: x: the tag !!python/tuple is not taken: a spec contains plain values only"),
    "bytes": ("x: !!binary aGk=\n", f"{LINE}: x: the tag !!binary is not taken: a spec contains plain values only"),
    "a date that is none": ("x: !!timestamp 2001-13-45\n",
                            f"{LINE}: x: the tag !!timestamp is not taken: a spec contains plain values only"),
    "a set": ("x: !!set {a}\n", f"{LINE}: x: the tag !!set is not taken: a spec contains plain values only"),
    "an ordered map": ("x: !!omap [a: 1, a: 2]\n", f"{LINE}: x: the tag !!omap is not taken: a spec contains plain values only"),
    "a list as a key": ("? [a]\n: 1\n", f"{LINE}: a key is a single value, not a mapping or a list"),
    "half a character": ('x: "\\ud800"\n', f"{LINE}: x: contains U+D800, which no file can hold as text"),
    "a NUL": ('x: "\\0"\n', f"{LINE}: x: contains U+0000, which no file can hold as text"),
    "a character beyond all": ('x: "\\U00ffffff"\n', " is not YAML: chr() arg not in range(0x110000)"),
}  # fmt: skip


def problem(content: bytes) -> str:
    with pytest.raises(SpecProblem) as caught:
        read_spec(content, "spec.yaml", "iris")
    return caught.value.message


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_spec_ends_in_an_error_with_its_place(case: str) -> None:
    text, words = HOSTILE[case]
    assert problem(f"{IRIS}{text}".encode()) == f"spec.yaml{'' if words.startswith(' ') else ':'}{words}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%YAML 1.1\n---\n" + IRIS.encode(), "spec.yaml:2: a spec is YAML 1.2: take the %YAML line out"),
        (IRIS.encode("utf-16"), "spec.yaml:1: byte 0xff is not UTF-8"),
        (IRIS.encode() + b"x: \xe9\n", f"spec.yaml:{LINE}: byte 0xe9 is not UTF-8"),
        (IRIS.encode() + b'1: a\n"1": b\n',
         "spec.yaml: 1: is there twice, once as text and once as another value"),
        (IRIS.encode() + b"x: \0\n",
         "spec.yaml is not YAML: unacceptable character #x0000: special characters are not allowed"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_yaml_end_in_an_error(content: bytes, words: str) -> None:
    assert problem(content) == words


def test_no_message_is_longer_than_a_screen() -> None:
    for text in (f"? {'k' * 200_000}\n: 1\n", f"question: [{'x' * 200_000}]\n", f"x: !{'t' * 200_000} 1\n",
                 f"x: *{'a' * 200_000}\n", "".join(f"key{n}: 1\n" for n in range(5000)),
                 f"selection: {{metric: {'m' * 200_000}}}\n"):  # fmt: skip
        with pytest.raises(SpecProblem) as caught:
            read_spec(f"{IRIS}{text}".encode(), "spec.yaml", "iris")
        assert sum(map(len, caught.value.lines())) < 5000, text[:20]


def test_a_key_is_shown_on_one_line() -> None:
    assert problem(f'{IRIS}"a\\nError: b": 1\n'.encode()) == rf"spec.yaml:{LINE}: 'a\nError: b': unknown key"


#: Reads each spec of the list on stdin within 200 MB, and prints what is said of it.
_LIMITED = """
import json, sys
from expmgr.errors import SpecProblem
from expmgr.spec.yaml_file import read_spec
from memory import at_most
texts, told = json.load(sys.stdin), []
read_spec(texts[0].encode(), "spec.yaml", "iris")
with at_most(200_000_000):
    for text in texts[1:]:
        try:
            told.append(read_spec(text.encode(), "spec.yaml", "iris"))
        except SpecProblem as error:
            told.append(error.message)
print(json.dumps(told))
"""


def test_a_hostile_spec_costs_neither_time_nor_memory() -> None:
    """An error of memory would be told as another problem, so the words are compared."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED],
        input=json.dumps([IRIS, *(f"{IRIS}{text}" for text, _ in HOSTILE.values())]),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.perf_counter() - start < 20  # one of them alone took minutes
    assert done.returncode == 0, done.stderr
    told = dict(zip(HOSTILE, json.loads(done.stdout), strict=True))
    assert told == {case: f"spec.yaml{'' if words[0] == ' ' else ':'}{words}" for case, (_, words) in HOSTILE.items()}


@pytest.mark.parametrize("line", ["#\n", "\n", "#\r", "# \r\n", "#\u2028", "\x85", "  # a\n"])
def test_a_spec_of_nothing_but_lines_is_refused_at_once(line: str) -> None:
    text = f"{IRIS}{line * (800_000 // len(line.encode()))}"
    lines = IRIS.count("\n") + 1 + 800_000 // len(line.encode())
    start = time.perf_counter()
    assert problem(text.encode()) == f"spec.yaml has {lines:,} lines; a spec has at most 20,000"
    assert time.perf_counter() - start < 5  # it took 11 s
    assert read_spec(f"{IRIS}{line[:-1]}{line * 1000}".encode(), "spec.yaml", "iris") is not None


def test_brackets_are_refused_at_once() -> None:
    start = time.perf_counter()
    problem(b"[" * 5000)
    assert time.perf_counter() - start < 0.2


def test_anchors_of_people_go_on_working() -> None:
    text = """\
experiment: iris
data: {kind: csv, train: a.csv, eval: b.csv, label: species, batch_size: &rows 100}
model: {kind: python, build: "model:build", params: {shared: &shared {rate: 0.1, units: [1, 2]},
        one: *shared, two: {<<: *shared, rate: 0.2}, rows: *rows, since: 2001-13-45, day: 2024-01-31, equal: =}}
optimizer: {kind: adagrad, learning_rate: !!float 1}
train: {max_steps: !!int 1_000}
"""
    params = {
        "shared": {"rate": 0.1, "units": [1, 2]}, "one": {"rate": 0.1, "units": [1, 2]},
        "two": {"rate": 0.2, "units": [1, 2]}, "rows": 100, "since": "2001-13-45", "day": "2024-01-31", "equal": "=",
    }  # fmt: skip
    spec = read_spec(text.encode(), "spec.yaml", "iris")
    assert (spec.model.params, spec.train.max_steps, spec.optimizer.learning_rate) == (params, 1000, 1.0)
    new = set_values(text.encode(), ["model.params.one.rate=3"], "spec.yaml", "iris")
    assert read_spec(new, "spec.yaml", "iris").model.params["two"] == params["two"]


def test_a_long_list_is_a_spec() -> None:
    labels = ", ".join(f"class {number}" for number in range(9_000))
    text = IRIS.replace("label: species", f"label: species, labels: [{labels}]", 1)
    assert text != IRIS
    assert len(read_spec(text.encode(), "spec.yaml", "iris").data.labels) == 9_000 < MOST_VALUES


@pytest.mark.parametrize("value", ["[" * 5000, "0x" + "f" * 5000, "!!bool maybe", "{a: &a [*a]}", '"\\ud800"'])
def test_set_and_where_go_through_the_same_door(value: str) -> None:
    with pytest.raises(ExpmgrError):
        set_values(IRIS.encode(), [f"train.max_steps={value}"], "spec.yaml", "iris")
    if "ud800" not in value:
        with pytest.raises(SpecProblem):
            yaml_value(value, "condition")


#: Commands that read the spec of a branch, and their exit code where it is hostile.
COMMANDS: dict[tuple[str, ...], int] = {
    ("list", "--where", "model.kind=dnn_classifier"): 0,
    ("list", "--sort", "train.max_steps"): 0,
    ("compare", "iris/good", "iris/evil"): 1,
    ("diff", "iris/good", "iris/evil"): 1,
    ("checkpoints", "iris/evil"): 1,
    ("review", "open", "iris/evil", "--against", "iris/good"): 1,
    ("new", "iris/more", "--from", "iris/evil"): 1,
}
_FAST = ("a bomb", "a bool that is none", "a long hex number", "open brackets")


@pytest.mark.parametrize("cases", [_FAST, pytest.param(tuple(HOSTILE), marks=pytest.mark.wide)], ids=["some", "all"])
def test_a_branch_that_somebody_pushed_stops_nobody(team: Team, cases: tuple[str, ...]) -> None:
    eve, ann = team.join("eve"), team.join("ann")
    ok(eve, "new", "iris/good")
    ran(eve, "iris/good", 0.9, 0.91)
    evil = {f"iris/evil-{number}": case for number, case in enumerate(cases)}
    for name, case in evil.items():
        ok(eve, "new", name)
        commit_on(eve, f"exp/{name}", SPEC, f"{IRIS}{HOSTILE[case][0]}")
    ok(eve, "push")
    ok(ann, "pull")
    for name, case in evil.items():
        start = time.perf_counter()
        for argv, code in COMMANDS.items():
            done = ann.expmgr(*(part.replace("iris/evil", name) for part in argv))
            assert done.code == code, (case, argv, done)
            assert f"exp/{name}:{SPEC}" in done.stderr, (case, argv, done)
            if argv[0] == "list":
                assert f"Note: conditions and order know no spec of {name}: exp/{name}:{SPEC}" in done.stderr
                assert "iris/good" in done.stdout
        assert time.perf_counter() - start < 60
    everything = ok(ann, "list")
    assert all(name in everything for name in ("iris/good", *evil))
    assert "exp/iris/more" not in ann.git("branch", "--list", "exp/*")


def test_a_hostile_spec_in_the_checkout_is_an_error_too(iris: Repo) -> None:
    iris.write(SPEC, f"{IRIS}{bomb()}")
    iris.commit("boom")
    done = iris.expmgr("new", "iris/wide")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"Error: {SPEC}:{LINE + 3}: a3.7: {_VALUES}\n"
