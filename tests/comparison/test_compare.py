"""Comparisons: the numbers, from records and specs alone."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from expmgr.comparison.comparison import Subject, compare
from expmgr.errors import UnknownMetric, UnknownVariant
from expmgr.paths import VariantName
from expmgr.runs.record import Attempt, RunRecord
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.yaml_file import read_spec
from world import ROOT

SPEC = read_spec((ROOT / "experiments/iris/spec.yaml").read_bytes(), "spec.yaml")


def spec(**model: Any) -> ExperimentSpec:
    values = SPEC.resolved()
    return ExperimentSpec.model_validate({**values, "model": {**values["model"], **model}})


def run(variant: str, seed: int, value: float | None, *, of: ExperimentSpec = SPEC, **values: Any) -> RunRecord:
    parts: dict[str, Any] = {
        "run_id": f"2026-{variant}-{seed}", "variant": variant, "seed": seed, "commit": "c", "tree": "t",
        "code_digest": "d", "spec": of.resolved(), "created_at": 1.0, "model_dir": "m", "status": "finished",
        "attempts": [Attempt(number=1, started_at=1.0, max_steps=9, launcher={})], "parameters": 193, "train_s": 2.0,
        "metrics": {} if value is None else {"selected": {"eval": {"accuracy": value, "loss": 1 - value}}},
    }  # fmt: skip
    return RunRecord(**{**parts, **values})


def subject(name: str, *runs: RunRecord, of: ExperimentSpec = SPEC, code: str = "d") -> Subject:
    return Subject(VariantName("iris", name), of, code, runs)


WIDE = spec(hidden_units=[20, 20])
BASE = subject("base", *(run("iris/base", seed, value) for seed, value in enumerate([0.90, 0.94, 0.92])))
OTHER = subject("wide", *(run("iris/wide", seed, value, of=WIDE) for seed, value in enumerate([0.95, 0.97])), of=WIDE)


def test_the_numbers() -> None:
    found = compare([BASE, OTHER])
    base, wide = found.rows
    assert (found.metric, found.mode, found.split, found.baseline) == ("accuracy", "max", "eval", "iris/base")
    assert (base.mean, base.std) == (pytest.approx(0.92), pytest.approx(statistics.stdev([0.90, 0.94, 0.92])))
    assert base.difference is None
    assert wide.difference == pytest.approx(0.96 - 0.92)
    assert wide.changes == {"model.hidden_units": ([10, 10], [20, 20])}
    assert base.changes == {}
    assert (wide.values, wide.parameters, wide.train_s) == ({0: 0.95, 1: 0.97}, 193, 2.0)
    assert (wide.side.left_aside, wide.side.waiting, wide.side.without_metric) == ({}, {}, [])


def test_another_baseline_comes_first() -> None:
    found = compare([BASE, OTHER], baseline=OTHER.name)
    assert [row.variant for row in found.rows] == ["iris/wide", "iris/base"]
    assert found.rows[1].difference == pytest.approx(0.92 - 0.96)
    with pytest.raises(UnknownVariant):
        compare([BASE], baseline=OTHER.name)


def test_one_seed_has_no_deviation_and_no_run_no_number() -> None:
    one = subject("one", run("iris/one", 4, 0.5))
    none = subject("none", run("iris/none", 0, None, status="failed"))
    found = compare([BASE, one, none]).rows
    assert (found[1].mean, found[1].std) == (0.5, None)
    assert (found[2].mean, found[2].difference, found[2].parameters, found[2].side.waiting) == (
        None,
        None,
        None,
        {0: "failed"},
    )
    assert compare([none, BASE]).rows[1].difference is None


def test_another_metric() -> None:
    found = compare([BASE, OTHER], metric="loss")
    assert (found.metric, found.mode) == ("loss", "min")
    assert found.rows[1].difference == pytest.approx(-0.04)
    with pytest.raises(UnknownMetric) as caught:
        compare([BASE], metric="acuracy")
    assert caught.value.lines() == ["Error: there is no metric acuracy", "Hint: did you mean accuracy?"]


def test_a_param_that_one_spec_does_not_name_is_shown_with_the_default_of_the_code() -> None:
    def made(**params: Any) -> ExperimentSpec:
        model = {"kind": "script", "script": "train.py", "params": params}
        return ExperimentSpec.model_validate({"experiment": "iris", "model": model, "train": {"max_steps": 9}})

    specs = {"base": made(), "wide": made(units=64), "same": made(rate=0.1)}
    given = {"base": (32, 0.1), "wide": (64, 0.1), "same": (32, 0.1)}
    subjects = []
    for name, (units, rate) in given.items():
        params = {"model.params.units": units, "model.params.rate": rate}
        subjects.append(subject(name, run(f"iris/{name}", 0, 0.5, of=specs[name], params=params), of=specs[name]))
    base, wide, same = compare(subjects).rows
    assert (base.changes, wide.changes) == ({}, {"model.params.units": (32, 64)})
    assert same.changes == {}  # it names the default
    unknown = compare([subject("base", of=specs["base"]), subjects[1]]).rows[1]
    assert unknown.changes == {"model.params.units": (None, 64)}


def test_runs_of_another_spec_or_code_are_left_aside() -> None:
    """One seed that was run again must not be averaged with seeds of the model before."""
    new = spec(hidden_units=[30])
    moved = subject("base", *BASE.runs, of=new)
    row = compare([moved]).rows[0]
    assert (row.values, row.mean, set(row.side.left_aside)) == ({}, None, {0, 1, 2})
    again = subject("base", *BASE.runs, run("iris/base", 1, 0.5, of=new, run_id="2027-base-1"), of=new)
    row = compare([again]).rows[0]
    assert (row.values, set(row.side.left_aside)) == ({1: 0.5}, {0, 2})
    assert set(compare([subject("base", *BASE.runs, code="other")]).rows[0].side.left_aside) == {0, 1, 2}
    asked = SPEC.model_copy(update={"question": "another one?"})
    assert compare([subject("base", *BASE.runs, of=asked)]).rows[0].side.left_aside == {}


def test_the_time_is_that_of_all_the_training() -> None:
    """A run that was evaluated at another commit took no time to train: the run that it goes on from did."""
    first = run("iris/base", 0, 0.5, of=spec(dropout=0.5), run_id="1", train_s=10.0)
    attempt = Attempt(number=1, started_at=1.0, max_steps=9, launcher={}, from_step=9)
    second = run("iris/base", 0, 0.6, run_id="2", parent_run="1", train_s=0.5, attempts=[attempt])
    row = compare([subject("base", first, second)]).rows[0]
    assert (row.values, row.train_s) == ({0: 0.6}, 10.5)


def test_everything_shows_all_keys() -> None:
    keys = compare([BASE, OTHER], everything=True).rows[0].changes
    assert keys["optimizer.learning_rate"] == (0.1, 0.1)
    assert len(keys) > 30


def test_the_order_of_the_columns_is_a_change() -> None:
    values = SPEC.resolved()
    columns = {"a": "numeric", "b": "numeric"}
    one, two = (
        ExperimentSpec.model_validate({**values, "data": {**values["data"], "features": features}})
        for features in (columns, dict(reversed(columns.items())))
    )
    rows = compare([subject("base", of=one), subject("turned", of=two)]).rows
    assert rows[1].changes == {"data.features": (["a", "b"], ["b", "a"])}


def test_other_code_than_the_baseline_s_is_said() -> None:
    assert [row.other_code for row in compare([BASE, OTHER, subject("own", of=WIDE, code="e")]).rows] == [
        False,
        False,
        True,
    ]


def test_a_metric_that_no_run_of_own_code_has_is_told() -> None:
    values = {
        **SPEC.resolved(),
        "model": {"kind": "python", "build": "m:b"},
        "loss": None,
        "optimizer": None,
        "metrics": [],
    }
    own = ExperimentSpec.model_validate(values)
    runs = [run("iris/own", seed, 0.9, of=own) for seed in range(2)]
    assert compare([subject("own", *runs, of=own)], metric="accuracy").rows[0].mean == 0.9
    with pytest.raises(UnknownMetric) as raised:
        compare([subject("own", *runs, of=own)], metric="acuracy")
    assert raised.value.hint == "did you mean accuracy?"
