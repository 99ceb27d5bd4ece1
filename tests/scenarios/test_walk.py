"""The walk of the README: what a user types, and reads."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from world import ROOT, Repo

pytestmark = pytest.mark.tf


def test_list(walked: Repo) -> None:
    result = walked.expmgr("list")
    assert result.stderr == ""
    lines = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()]
    assert lines[0] == ["variant", "from", "runs", "result", "last run", "why"]
    assert [line[:3] + line[5:] for line in lines[1:]] == [
        ["iris/baseline", "main", "3 finished", "as in the guide: two layers of ten"],
        ["iris/wide", "iris/baseline", "3 finished", "twice the width"],
    ]
    assert all(re.fullmatch(r"accuracy \d\.\d{4} ± \d\.\d{4}", line[3]) for line in lines[1:])


def test_compare_in_every_form(walked: Repo) -> None:
    told = json.loads(walked.expmgr("compare", "iris/baseline", "iris/wide", "--json").stdout)
    base, wide = told["variants"]
    assert (told["metric"], told["mode"], told["split"], told["baseline"]) == (
        "accuracy",
        "max",
        "eval",
        "iris/baseline",
    )
    assert wide["changes"] == {"model.hidden_units": {"baseline": [10, 10], "variant": [20, 20]}}
    assert wide["difference"] == pytest.approx(wide["mean"] - base["mean"])
    values = list(base["values"].values())
    assert base["mean"] == pytest.approx(sum(values) / 3)
    assert (base["left_aside"], base["waiting"], base["without_metric"]) == ({}, {}, [])

    rows = list(csv.DictReader(io.StringIO(walked.expmgr("compare", "baseline", "wide", "--csv").stdout)))
    assert [(row["variant"], row["seeds"], row["parameters"]) for row in rows] == [
        ("iris/baseline", "3", "193"),
        ("iris/wide", "3", "583"),
    ]
    markdown = walked.expmgr("compare", "baseline", "wide", "--md").stdout.splitlines()
    assert markdown[1] == "|---|---:|---:|---:|---:|---|---:|---:|---|---|"
    assert r"model.hidden\_units=\[20, 20\]" in markdown[3]
    swapped = json.loads(walked.expmgr("compare", "iris/baseline", "--baseline", "wide", "--json").stdout)
    assert [one["variant"] for one in swapped["variants"]] == ["iris/wide", "iris/baseline"]
    loss = json.loads(walked.expmgr("compare", "baseline", "wide", "--metric", "loss", "--json").stdout)
    assert (loss["metric"], loss["mode"]) == ("loss", "min")


def test_show_a_variant_and_a_run(walked: Repo) -> None:
    shown = walked.expmgr("show", "wide")
    assert shown.code == 0
    assert "model_dir  models/iris/wide/\n" in shown.stdout
    assert "hidden_units: [20, 20]" in shown.stdout
    record = json.loads(walked.expmgr("show", "iris/wide:2", "--json").stdout)
    by_prefix = walked.expmgr("show", record["run_id"][:-3])
    assert by_prefix.stdout.splitlines()[:3] == [
        f"run            {record['run_id']}",
        "variant        iris/wide, seed 2",
        "status         finished at step 200 of 200",
    ]


def test_a_record_holds_what_is_known(walked: Repo) -> None:
    record = json.loads(walked.expmgr("show", "iris/wide:2", "--json").stdout)
    commit = walked.git("rev-parse", "exp/iris/wide").strip()
    assert (record["format"], record["variant"], record["seed"], record["status"]) == (1, "iris/wide", 2, "finished")
    assert record["commit"] == commit
    assert record["tree"] == walked.git("rev-parse", "exp/iris/wide^{tree}").strip()
    (log,) = walked.git("for-each-ref", "--format=%(refname)", "refs/expmgr/log/").split()
    assert commit in walked.git("rev-list", log).split()  # which keeps it from gc
    assert walked.git("for-each-ref", "refs/expmgr/keep/") == ""
    assert record["model_dir"] == "models/iris/wide/seed-2"
    assert record["spec"]["run_config"]["save_checkpoints_secs"] == 600
    assert {split: one["rows"] for split, one in record["data"].items()} == {"train": 120, "eval": 30}
    assert record["examples_seen"] == 200 * 100
    assert record["selected_step"] == 200
    assert set(record["metrics"]["selected"]["eval"]) == {"loss", "accuracy"}
    assert [step for step, _ in record["curves"]["train"]["loss"]] == [100, 200]
    assert {"tensorflow", "keras", "python"} <= set(record["environment"])
    assert [one["step"] for one in record["checkpoints"]] == [0, 200]
    assert not any(name in json.dumps(record) for name in ("ann@example.com", "GIT_"))


def test_the_model_dir_is_an_estimators(walked: Repo) -> None:
    folder = walked.path / "models/iris/wide/seed-1"
    names = {path.name for path in folder.iterdir()}
    for step in (0, 200):
        assert {
            f"model.ckpt-{step}.index",
            f"model.ckpt-{step}.data-00000-of-00001",
            f"model.ckpt-{step}.json",
        } <= names
    assert {"checkpoint", "manifest.json", "graph.pbtxt", "eval"} <= names
    assert any(name.startswith("events.out.tfevents.") for name in names)
    assert 'model_checkpoint_path: "model.ckpt-200"' in (folder / "checkpoint").read_text()
    assert walked.git("status", "--porcelain") == ""


def test_a_complete_run_says_so_at_once(walked: Repo) -> None:
    before = walked.snapshot()
    result = walked.expmgr("run", "iris/wide", "--max-steps", "200", "--seeds", "0")
    assert result.code == 0
    assert result.stderr.splitlines()[0] == "iris/wide seed 0: complete at step 200, nothing to do"
    assert walked.snapshot() == before


def test_a_second_run_goes_on(copied: Repo) -> None:
    before = json.loads(copied.expmgr("show", "iris/baseline:0", "--json").stdout)
    result = copied.expmgr("run", "iris/baseline", "--max-steps", "250")
    assert result.code == 0, result.stderr
    assert f"iris/baseline seed 0: resumes at step 200, to step 250 (run {before['run_id']})\n" in result.stderr
    after = json.loads(copied.expmgr("show", "iris/baseline:0", "--json").stdout)
    assert after["attempts"][0] == before["attempts"][0]
    assert [(one["from_step"], one["to_step"]) for one in after["attempts"]] == [(0, 200), (200, 250)]
    assert (after["step"], after["status"], after["examples_seen"]) == (250, "finished", 25_000)


@pytest.mark.parametrize(
    "command", [["--help"], ["list"], ["show", "iris/wide"], ["log"], ["compare", "baseline", "wide"]]
)
def test_tensorflow_is_not_imported(walked: Repo, command: list[str]) -> None:
    """Nor what else takes long to import and is not needed, of variants that have runs."""
    code = (
        "import sys; from expmgr.cli.main import main; main(sys.argv[1:]);"
        "heavy = {'tensorflow', 'keras', 'scipy.stats', 'matplotlib', 'pandas', 'rich', 'git'};"
        "heavy |= {'numpy', 'scipy', 'ruamel', 'expmgr.spec.experiment'} if sys.argv[1] != 'compare' else set();"
        "heavy |= {'expmgr.runs.record', 'expmgr.log.events'} if sys.argv[1] == 'list' else set();"
        "found = heavy & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=walked.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def keys(value: Any, depth: int = 0) -> Iterator[str]:
    """The keys of what a command prints, but for those that are names of something (a metric, a seed, a key)."""
    named = {"changes", "values", "steps", "data", "metrics", "left_aside", "waiting", "runs", "renames"}
    if isinstance(value, list):
        for one in value[:1]:
            yield from keys(one, depth)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield key
            if not (key in named and isinstance(one, dict)):
                yield from keys(one, depth + 1)


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["show", "iris/wide"],
        ["compare", "iris/baseline", "iris/wide"],
        ["check", "iris/wide", "--against", "iris/baseline"],
        ["checkpoints", "iris/wide"],
        ["run", "iris/wide", "--max-steps", "200"],
        ["show", "nothing"],
    ],
)
def test_every_key_of_the_json_is_in_the_docs(walked: Repo, command: list[str]) -> None:
    text = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
    told = json.loads(walked.expmgr(*command, "--json").stdout)
    assert told["format"] == 1
    assert [key for key in keys(told) if f"`{key}`" not in text and f'"{key}"' not in text] == []
