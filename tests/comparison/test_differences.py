"""What differs between variants, part by part, and what is said where a part is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from clones import ok, saved, told
from comparison.test_checks import ENVIRONMENT, run, split, subject
from expmgr.checkpoints.signature import DataContract, Fingerprint, Signature, TrainingSetup, Variable
from expmgr.comparison.differences import (
    Differences,
    PartRow,
    VariantPart,
    _architecture,
    _data,
    _environment,
    _has_other_code,
    _lines,
    _runs,
    _training,
    differences,
    differences_of,
)
from expmgr.errors import BadArgument
from expmgr.project import Project
from world import Repo

NAMES = ["iris/base", "iris/wide"]


def part(name: str, *rows: PartRow, unknown: dict[str, str] | None = None) -> VariantPart:
    return VariantPart(name, list(rows), NAMES, unknown or {})


SAME, OTHER = PartRow("a", (1, 1)), PartRow("b", (1, 2))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ([part("spec", SAME), part("code", SAME)], "nothing differs"),
        ([part("spec", OTHER), part("code", SAME), part("data")], "nothing else differs: code, data are the same"),
        ([part("spec", OTHER), part("code", SAME)], "nothing else differs: code is the same"),
        ([part("spec", OTHER, SAME), part("code", OTHER)], "every part differs"),
        ([part("spec", OTHER), part("data", unknown={"iris/wide": "x"})], "not known: data"),
        ([part("spec", SAME), part("data", unknown={"iris/wide": "x"})], "not known: data; the same: spec"),
        (
            [part("spec", SAME), part("code", SAME), part("data", OTHER, unknown={"iris/wide": "x"})],
            "not known: data; the same: spec, code",
        ),
    ],
)
def test_the_sentence(parts: list[VariantPart], sentence: str) -> None:
    found = Differences(NAMES, parts, {})
    assert found.sentence == sentence
    assert found.as_dict()["nothing_else"] is ("not known" not in sentence)


def test_parts_as_data() -> None:
    found = Differences(NAMES, [part("spec", SAME, OTHER)], {}).as_dict()
    assert {key: found[key] for key in ("format", "variants", "nothing_else")} == {
        "format": 1, "variants": NAMES, "nothing_else": True,
    }  # fmt: skip
    assert found["sentence"] == "every part differs"
    assert found["parts"] == [
        {"part": "spec", "differences": [{"what": "b", "values": [1, 2]}], "same": ["a"], "unknown": {}}
    ]
    three = VariantPart(
        "spec", [PartRow("a", (1, 9, 1)), PartRow("b", (1, 1, 2))], [*NAMES, "iris/deep"], {NAMES[1]: "x"}
    )
    assert [row.what for row in three.changed] == ["b"]  # of what is not known, nothing is said
    assert [row.what for row in three.same] == ["a"]


def test_the_run_of_the_lowest_seed_that_all_have() -> None:
    def of(*seeds: int) -> Any:
        return subject("wide", [run("iris/wide", seed, 0.5) for seed in seeds])

    def chosen(*subjects: Any) -> list[int | None]:
        return [one.seed if one else None for one in _runs(subjects)]

    assert chosen(of(3, 1, 2), of(2, 3)) == [2, 2]
    assert chosen(of(0, 1), of(2, 3)) == [1, 3]  # none in common: the newest of each
    assert chosen(of(), of(1)) == [None, 1]
    assert chosen() == []


def test_a_file_that_came_went_or_changed() -> None:
    counts: dict[str, tuple[int, int] | None] = {"a": (3, 1), "b": None}
    assert _lines("a", ("1", "m"), None, counts) is None
    assert _lines("a", ("1", "m"), ("1", "m"), counts) == "as it is"
    assert _lines("a", ("1", "m"), ("2", "m"), counts) == "+3 -1"
    assert _lines("b", None, ("2", "m"), counts) == "changed"
    assert _lines("c", None, ("2", "m"), counts) == "changed"
    one, two = subject("base", []), subject("wide", [])
    assert not _has_other_code([one, two])
    assert _has_other_code([one, replace(two, code_digest="other")])


def test_data_and_environment_as_they_are_shown() -> None:
    assert (_data(None), _environment(None)) == ({}, {})
    sha = "0123456789abcdef" * 4
    found = run("iris/wide", 0, 0.5, data=split("eval", rows=1234567, sha256=sha))
    assert _data(found)["eval"] == "1,234,567 rows, sha256 0123456789ab"
    assert _data(run("iris/wide", 0, 0.5, data=split("eval", rows=None, sha256=None)))["eval"] == "? rows, sha256 ?"
    locked = _environment(run("iris/wide", 0, 0.5, environment={**ENVIRONMENT, "lock": sha, "other": sha}))
    assert (locked["lock"], locked["other"], locked["keras"]) == (sha[:12], sha, "3.15.0")
    assert _environment(run("iris/wide", 0, 0.5, environment={"lock": None})) == {"lock": None}


def test_architecture_and_training_as_they_are_shown() -> None:
    assert (_architecture(None), _training(None)) == ({}, {})
    variables = [
        Variable(path="a/kernel", shape=[4, 10], dtype="float32"), Variable(path="a/bias", shape=[10], dtype="float32"),
        Variable(path="n/mean", shape=[7], dtype="float32", trainable=False),
        Variable(path="scale", shape=[], dtype="float32"),
    ]  # fmt: skip
    signature = Signature(
        step=1, variables=variables, optimizer_variables=[], state=[], provenance={}, data=DataContract(features=[]),
        inference=Fingerprint(by="graph", digest="i" * 64), training_step=Fingerprint(by="graph", digest="t" * 64),
        layers={"a": {"class": "Dense", "units": 10, "name": "a"}},
        training=TrainingSetup(optimizer={"kind": "adam", "name": "mine", "rate": {"class": "X", "name": "x"}}, seed=3),
    )  # fmt: skip
    assert _architecture(signature) == {
        "parameters": 51, "a/kernel": "float32 (4, 10)", "a/bias": "float32 (10)", "n/mean": "float32 (7), not trained",
        "scale": "float32 ()", "a: class": "Dense", "a: units": 10, "fingerprint: inference": "i" * 12,
    }  # fmt: skip
    found = _training(signature)
    assert (found["optimizer.kind"], found["optimizer.rate.class"]) == ("adam", "X")
    assert found["fingerprint: training step"] == "t" * 12
    assert not {"seed", "optimizer.name", "optimizer.rate.name"} & found.keys()


def test_variants_of_one_repository(iris: Repo) -> None:
    ok(iris, "new", "iris/baseline")
    ok(iris, "new", "iris/wide", "--from", "baseline", "--set", "model.hidden_units=[20, 20]")
    project = Project.open(iris.path)
    with pytest.raises(BadArgument, match="two variants or more are compared with each other"):
        differences_of(project, ["iris/wide"])
    nothing = differences_of(project, ["iris/baseline", "iris/wide"])
    assert nothing.sentence == "not known: data, environment, architecture, training; the same: code"
    assert {part.name: dict(part.unknown) for part in nothing.parts}["training"] == dict.fromkeys(
        ("iris/baseline", "iris/wide"), "it has no run that counts"
    )
    assert nothing.mends == {name: f"expmgr run {name}" for name in ("iris/baseline", "iris/wide")}
    saved(iris, "iris/baseline", 0, b"one")
    saved(iris, "iris/wide", 0, b"two")
    project = Project.open(iris.path)
    found = differences_of(project, ["iris/baseline", "iris/wide"])
    assert (found.sentence, found.mends) == (
        "nothing else differs: code, data, environment, architecture, training are the same", {},
    )  # fmt: skip
    spec = found.parts[0]
    assert [(row.what, row.values) for row in spec.changed] == [("model.hidden_units", ([10, 10], [20, 20]))]
    assert found.parts[1].changed == []
    assert found.parts[1].same != []
    from expmgr.comparison.used_runs import chosen

    subjects = chosen(project, ["iris/baseline", "iris/wide"], "iris/baseline").subjects
    brief = differences(project, subjects, with_same=False).parts[1]
    assert list(brief.same) == []
    folder = iris.path / "models/iris/wide/seed-0"
    (folder / "manifest.json").unlink()
    broken = differences_of(project, ["iris/baseline", "iris/wide"])
    assert [one.name for one in broken.parts if one.unknown] == ["architecture", "training"]
    assert list(broken.mends) == ["iris/wide"]
    assert told(iris, "diff", "baseline", "wide")["sentence"].startswith("not known: architecture, training")
