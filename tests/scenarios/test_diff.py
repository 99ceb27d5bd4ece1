"""`expmgr diff`: what differs, and that nothing else does."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

import expmgr
from clones import refuses
from world import Repo

pytestmark = pytest.mark.tf

Change = Callable[[Repo, str, str, str], None]


def differing(repo: Repo, *names: str) -> dict[str, list[str]]:
    """Part to what differs in it."""
    told = json.loads(repo.expmgr("diff", *names, "--json").stdout)
    return {one["part"]: [row["what"] for row in one["differences"]] for one in told["parts"] if one["differences"]}


def test_a_key_of_the_spec_and_what_follows_from_it(walked: Repo) -> None:
    result = walked.expmgr("diff", "baseline", "wide")
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["spec", "iris/baseline", "iris/wide"],
        ["model.hidden_units", "[10,", "10]", "[20,", "20]"],
    ]
    assert lines[-1] == "nothing else differs: code, data, environment are the same"
    found = differing(walked, "baseline", "wide")
    assert [*found] == ["spec", "architecture", "training"]
    assert found["architecture"][:2] == ["parameters", "hidden_0/kernel"]
    assert "fingerprint: inference" in found["architecture"]
    assert found["training"] == ["fingerprint: training step"]
    rows = list(csv.DictReader(io.StringIO(walked.expmgr("diff", "baseline", "wide", "--csv").stdout)))
    assert rows[1] == {"part": "architecture", "what": "parameters", "iris/baseline": "193", "iris/wide": "583"}
    assert "| architecture | parameters | 193 | 583 |" in walked.expmgr("diff", "baseline", "wide", "--md").stdout
    everything = walked.expmgr("diff", "baseline", "wide", "--all").stdout
    assert "tensorflow " in everything
    assert "tensorflow " not in result.stdout


@pytest.mark.slow
def test_a_rate_moves_no_architecture(copied: Repo) -> None:
    assert copied.expmgr("new", "iris/slow", "--from", "baseline", "--set", "optimizer.learning_rate=0.01").code == 0
    assert copied.expmgr("run", "iris/slow", "--max-steps", "20").code == 0
    assert differing(copied, "baseline", "iris/slow") == {
        "spec": ["optimizer.learning_rate"],
        "training": ["optimizer.learning_rate"],
    }
    told = copied.expmgr("diff", "baseline", "wide", "slow").stdout.splitlines()
    assert [line.split() for line in told[:4]] == [
        ["variant", "model.hidden_units", "optimizer.learning_rate"],
        ["iris/baseline", "[10,", "10]", "0.1"],
        ["iris/wide", "[20,", "20]", "0.1"],
        ["iris/slow", "[10,", "10]", "0.01"],
    ]
    compared = copied.expmgr("compare", "baseline", "iris/slow", "--seeds", "0").stdout
    assert "Nothing else differs: code, data and environment are the same.\n" in compared


@pytest.mark.slow
def test_equal_variants_and_a_change_of_docs(copied: Repo, change: Change) -> None:
    assert copied.expmgr("new", "iris/again", "--from", "baseline").code == 0
    unknown = copied.expmgr("diff", "baseline", "again")
    assert unknown.stdout == "not known: data, environment, architecture, training; the same: spec, code\n"
    assert unknown.stderr == (
        "Not known of iris/again: data, environment, architecture, training, since it has no run that counts: "
        "expmgr run iris/again\n"
    )
    assert copied.expmgr("run", "iris/again", "--max-steps", "200").code == 0
    assert copied.expmgr("diff", "baseline", "again").stdout == "nothing differs\n"
    copied.git("switch", "--quiet", "exp/iris/again")
    copied.write("experiments/iris/README.md", "Other words.\n")
    copied.commit("Docs")
    assert copied.expmgr("diff", "baseline", "again").stdout == "nothing differs\n"


@pytest.mark.slow
def test_other_rows_and_files_of_the_experiment(copied: Repo) -> None:
    rows = copied.read("experiments/iris/iris_training.csv").splitlines()
    assert copied.expmgr("new", "iris/fewer", "--from", "baseline", "--switch").code == 0
    copied.write("experiments/iris/iris_training.csv", "\n".join(rows[:-5]) + "\n")
    assert copied.expmgr("run", "iris/fewer", "--commit", "fewer rows", "--max-steps", "20").code == 0
    found = differing(copied, "baseline", "iris/fewer")
    assert found["code"] == ["experiments/iris/iris_training.csv"]
    assert found["data"] == ["train"]
    shown = copied.expmgr("diff", "baseline", "iris/fewer").stdout
    assert "experiments/iris/iris_training.csv  as it is       +0 -5\n" in shown
    assert "train  120 rows, sha256 " in shown
    compared = copied.expmgr("compare", "baseline", "iris/fewer").stdout
    assert "Besides the spec differ code (experiments/iris/iris_training.csv) and data (train): expmgr diff" in compared


def test_nothing_is_written_and_one_variant_is_too_few(walked: Repo) -> None:
    before = walked.snapshot()
    assert walked.expmgr("diff", "baseline", "wide").code == 0
    assert walked.snapshot() == before
    refuses(walked, "diff", "baseline", code=2, words="two variants or more are compared with each other")
    assert walked.expmgr("diff", "baseline", "wied").stderr.endswith("Hint: did you mean wide?\n")


def test_from_python(walked: Repo) -> None:
    found: Any = expmgr.open(str(walked.path)).diff("baseline", "wide")
    assert found.as_dict()["nothing_else"] is True
    assert found._repr_html_().startswith("<table><tr><th>part</th><th>what</th><th>iris/baseline</th>")
    assert repr(found).splitlines()[-1] == "nothing else differs: code, data, environment are the same"
