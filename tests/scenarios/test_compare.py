"""Comparisons of real runs: what is said, what is refused, and what is drawn."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import expmgr
from world import Repo

pytestmark = pytest.mark.tf

Change = Callable[[Repo, str, str, str], None]


def told(repo: Repo, *argv: str) -> dict[str, Any]:
    return dict(json.loads(repo.expmgr("compare", *argv, "--json").stdout))


def checks(repo: Repo, *argv: str) -> dict[str, str]:
    """What each check answers of the second variant."""
    return {one["id"]: one["answer"] for one in told(repo, *argv)["variants"][1]["result"]["checks"]}


def test_three_seeds_are_judged(walked: Repo) -> None:
    result = walked.expmgr("compare", "baseline", "wide")
    assert result.code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == [
        "variant", "seeds", "accuracy", "(eval)", "std", "difference", "values", "parameters", "time", "course"
    ]  # fmt: skip
    sentence = next(line for line in lines if line.startswith("iris/wide: "))
    assert "points (95 %, 3 seeds)" in sentence
    assert "few seeds" in sentence
    assert "significant" not in result.stdout + result.stderr
    assert any("├" in line and "┤" in line for line in lines)
    assert "Warning (budget): iris/baseline was trained for 200 steps, its spec says 1,000" in result.stderr
    assert "evaluation-noise" in result.stderr
    found = checks(walked, "baseline", "wide")
    assert {name for name, answer in found.items() if answer != "ok"} == {"budget", "evaluation-noise", "got-worse"}


def test_one_and_two_seeds_claim_nothing(walked: Repo) -> None:
    one = walked.expmgr("compare", "baseline", "wide", "--seeds", "0")
    assert one.code == 0
    assert "iris/wide: no claim: one seed; the rows that are evaluated are themselves good for " in one.stdout
    assert " points either way (30 rows)\n" in one.stdout
    two = walked.expmgr("compare", "baseline", "wide", "--seeds", "0-1")
    assert "iris/wide: no claim: two seeds, 3 are wanted\n" in two.stdout
    assert "Warning (left-out): iris/baseline seeds 2 have results that were not asked for" in two.stderr
    assert "├" not in two.stdout


@pytest.mark.wide
def test_other_rows_block_with_exit_5_and_the_numbers(copied: Repo, change: Change) -> None:
    rows = copied.read("experiments/iris/iris_test.csv").splitlines()
    assert copied.expmgr("new", "iris/fewer", "--from", "iris/wide", "--switch").code == 0
    copied.write("experiments/iris/iris_test.csv", "\n".join(rows[:-5]) + "\n")
    assert (
        copied.expmgr("run", "iris/fewer", "--commit", "fewer rows", "--seeds", "0-2", "--max-steps", "200").code == 0
    )
    before = copied.snapshot()
    result = copied.expmgr("compare", "iris/wide", "iris/fewer")
    assert (result.code, copied.snapshot()) == (5, before)
    assert "iris/fewer: not comparable (evaluated-rows)\n" in result.stdout
    assert result.stdout.splitlines()[2].split()[:2] == ["iris/fewer", "3"]
    assert "Not comparable (evaluated-rows): evaluated on other rows (eval): iris/wide: 30 rows" in result.stderr
    found = told(copied, "iris/wide", "iris/fewer")
    assert (found["is_blocked"], found["variants"][1]["result"]["verdict"]) == (True, None)
    assert found["variants"][1]["mean"] is not None
    with_all = copied.expmgr("compare", "iris/wide", "iris/fewer", "--md")
    assert (with_all.code, "- Not comparable (evaluated-rows)" in with_all.stdout) == (5, True)
    # On fresh seeds the two would be as incomparable, at the price of ten runs.
    confirmed = copied.expmgr("compare", "iris/wide", "iris/fewer", "--confirm")
    assert (confirmed.code, copied.snapshot()) == (5, before)
    assert confirmed.stderr.startswith("Nothing was run: other seeds do not make these comparable\n")
    assert "Not comparable (evaluated-rows)" in confirmed.stderr


def test_a_change_of_docs_is_fresh_and_a_change_of_code_is_stale(copied: Repo, change: Change) -> None:
    change(copied, "iris/wide", "question: ", "question: Once more - ")
    assert checks(copied, "baseline", "wide")["stale"] == "ok"
    change(copied, "iris/wide", "hidden_units: [20, 20]", "hidden_units: [21, 20]")
    result = copied.expmgr("compare", "baseline", "wide")
    assert result.code == 5
    assert (
        "Not comparable (stale): iris/wide has changed since seeds 0-2 were run, which are left aside: "
        "expmgr run iris/wide --seeds 0-2\n"
    ) in result.stderr


@pytest.mark.slow
def test_what_was_declared_after_the_first_result_is_said(copied: Repo, change: Change) -> None:
    assert checks(copied, "baseline", "wide")["declared-late"] == "ok"
    change(copied, "iris/baseline", "minimum_effect: 0.005", "minimum_effect: 0.001")
    result = copied.expmgr("compare", "baseline", "wide")
    assert "Warning (declared-late): the minimum effect was declared after the first result" in result.stderr


@pytest.mark.slow
def test_variants_that_are_gone_were_tried_all_the_same(copied: Repo) -> None:
    assert checks(copied, "baseline", "wide")["many-tried"] == "ok"
    assert copied.expmgr("new", "iris/deep", "--from", "iris/wide", "--set", "model.hidden_units=[5, 5, 5]").code == 0
    assert copied.expmgr("run", "iris/deep", "--max-steps", "20").code == 0
    copied.git("branch", "--quiet", "-D", "exp/iris/deep")
    found = told(copied, "baseline", "wide")
    assert found["tried"] == 2
    answers = {one["id"]: one for one in found["variants"][1]["result"]["checks"]}
    assert answers["many-tried"]["told"] == "2 variants were tried against iris/baseline: the best of many is flattered"
    assert answers["screening-seeds"]["told"].startswith("seeds 0 of iris/wide are those on which it was picked")


@pytest.mark.slow
def test_a_checkpoint_or_a_commit_that_is_gone_is_said(copied: Repo) -> None:
    assert checks(copied, "baseline", "wide")["checkpoint"] == "ok"
    aside = copied.path / "models/iris/wide/seed-1"
    shutil.move(aside, copied.path / "elsewhere")
    found = told(copied, "baseline", "wide")["variants"][1]["result"]["checks"]
    (check,) = [one for one in found if one["id"] == "checkpoint"]
    assert check["answer"] == "warn"
    assert check["told"] == (
        "iris/wide seeds 1: its selected checkpoint, of step 200, is not in its model_dir any more"
    )
    shutil.move(copied.path / "elsewhere", aside)
    # The same spec and code at another commit; nothing keeps the one that was run.
    copied.git("switch", "--quiet", "exp/iris/wide")
    copied.git("commit", "--quiet", "--amend", "--no-edit", "--date", "2030-01-01T00:00:00")
    for ref in copied.git("for-each-ref", "--format=%(refname)", "refs/expmgr").split():  # pins and logs
        copied.git("update-ref", "-d", ref)
    copied.git("reflog", "expire", "--expire=all", "--all")
    copied.git("gc", "--quiet", "--prune=now")
    result = copied.expmgr("compare", "baseline", "wide")
    assert result.code == 5
    assert "Not comparable (checkpoint): iris/wide seeds 0-2: its commit " in result.stderr
    assert " is gone, and its code with it: expmgr run iris/wide --seeds 0-2 --fresh\n" in result.stderr


def test_pictures(walked: Repo, tmp_path: Path) -> None:
    begins = {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}
    for kind, head in begins.items():
        path = tmp_path / f"picture.{kind}"
        result = walked.expmgr("compare", "baseline", "wide", "--plot", str(path))
        assert (result.code, path.read_bytes()[: len(head)]) == (0, head), result.stderr
        assert f"wrote {path}\n" in result.stderr
    text = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    for words in ("iris/wide", "iris/baseline", "difference", "accuracy (eval), a point a seed", "mean and range"):
        assert words in text
    page = (tmp_path / "picture.html").read_text(encoding="utf-8")
    assert "evaluation-noise" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)  # it needs nothing else
    again = tmp_path / "again.svg"
    walked.expmgr("compare", "baseline", "wide", "--plot", str(again))
    assert again.read_bytes() == (tmp_path / "picture.svg").read_bytes()


def test_a_picture_that_cannot_be_made_is_told_before_anything(walked: Repo, tmp_path: Path) -> None:
    gif = walked.expmgr("compare", "baseline", "wide", "--plot", str(tmp_path / "picture.gif"))
    assert (gif.code, gif.stdout) == (1, "")
    assert gif.stderr == "Error: a picture is .svg, .png, .html, not .gif\n"
    lost = walked.expmgr("compare", "baseline", "wide", "--plot", str(tmp_path / "no" / "picture.svg"))
    assert lost.stderr == f"Error: there is no folder {tmp_path / 'no'}\n"
    (tmp_path / "folder.svg").mkdir()
    taken = walked.expmgr("compare", "baseline", "wide", "--plot", str(tmp_path / "folder.svg"))
    assert taken.code == 1
    assert f"Error: {tmp_path / 'folder.svg'} cannot be written: " in taken.stderr
    assert "Traceback" not in taken.stderr
    assert "picture.gif" not in os.listdir(tmp_path)


def test_in_a_notebook(walked: Repo) -> None:
    table = expmgr.open(str(walked.path)).compare("baseline", "wide")
    assert table.verdict in (
        "better",
        "worse",
        "equivalent",
        "inconclusive",
        "better, size unsure",
        "worse, size unsure",
    )
    shown = table._repr_html_()
    assert "<svg" in shown
    assert "points (95 %, 3 seeds)" in shown
    assert "budget" in shown
    frame = table.to_pandas()
    assert [*frame.columns][:4] == ["variant", "seed", "run", "value"]
    assert (len(frame), frame["value"].tolist() == frame["accuracy"].tolist()) == (6, True)
    assert {one.id for one in table.checks if one.answer.value == "warn"} >= {"budget", "evaluation-noise"}
    assert repr(table).splitlines()[0].startswith("variant  seeds  accuracy (eval)")
    same = expmgr.compare(["baseline", "wide"], seeds=range(3), path=walked.path)
    assert same.as_dict() == table.as_dict()
    with pytest.raises(expmgr.ExpmgrError, match="takes the names of variants"):
        expmgr.compare([], path=walked.path)
    with pytest.raises(expmgr.ExpmgrError, match="seeds are numbers"):
        expmgr.compare(["baseline", "wide"], seeds="0-2", path=walked.path)  # type: ignore[arg-type]


@pytest.mark.slow
def test_confirmed_on_fresh_seeds(copied: Repo, change: Change) -> None:
    for variant in ("iris/baseline", "iris/wide"):
        change(copied, variant, "max_steps: 1000", "max_steps: 50")
    result = copied.expmgr("compare", "baseline", "wide", "--metric", "loss")
    assert result.code == 5  # all that there is was trained for 1,000 steps, as the spec said then
    nothing = copied.expmgr("compare", "baseline", "wide", "--confirm")
    assert nothing.code == 1
    assert nothing.stderr.startswith("Error: no variant beside iris/baseline has a result")
    assert copied.expmgr("run", "baseline", "wide", "--seeds", "0", "--fresh").code == 0
    result = copied.expmgr("compare", "baseline", "wide", "--confirm")
    assert result.code == 0, result.stderr
    assert "iris/wide and iris/baseline are run on seeds 3-7\n" in result.stderr
    assert "5 seeds)" in result.stdout
    again = told(copied, "baseline", "wide", "--confirm", "--seeds", "3-7")
    assert (again["is_confirmed"], again["variants"][1]["seeds"]) == (True, [3, 4, 5, 6, 7])
    answers = {one["id"]: one["answer"] for one in again["variants"][1]["result"]["checks"]}
    assert (answers["many-tried"], answers["screening-seeds"], answers["left-out"]) == ("ok", "ok", "ok")
    # Another call has other seeds to take.
    assert "on seeds 8-12\n" in copied.expmgr("compare", "baseline", "wide", "--confirm").stderr


SURE = '''
import tensorflow as tf


def sure(targets, logits):
    """Share of rows whose class has more than half of the probability."""
    shares = tf.nn.softmax(logits)
    picked = tf.gather(shares, tf.cast(targets, tf.int32), axis=1, batch_dims=1)
    return tf.cast(picked > 0.5, tf.float32)
'''


@pytest.mark.slow
def test_checkpoints_that_are_there_are_evaluated_by_other_code_without_training(repo: Repo) -> None:
    assert repo.expmgr("init", "--example", "digits", "--commit").code == 0
    path, spec = "experiments/digits/measure.py", "experiments/digits/spec.yaml"
    repo.write(path, SURE)
    text = repo.read(spec).replace("metrics: [accuracy]", 'metrics: [accuracy, "measure:sure"]')
    text = text.replace("compare: {metric: accuracy}", "compare: {metric: sure, mode: max}")
    repo.write(spec, text.replace("max_steps: 1500", "max_steps: 150"))
    repo.commit("A measure of one's own")
    names = ("digits/base", "digits/wide")
    for name, setting in zip(names, ("model.params.filters=4", "model.params.filters=6"), strict=True):
        assert repo.expmgr("new", name, "--set", setting).code == 0
    assert repo.expmgr("run", *names, "--seeds", "0-2").code == 0
    before = told(repo, *names)
    assert checks(repo, *names)["measures"] == "ok"
    # One branch measures otherwise now: its results are stale, then evaluated without training, then not comparable.
    for number, name in enumerate(names):
        repo.git("switch", "--quiet", f"exp/{name}")
        repo.write(path, SURE.replace("0.5", "0.9"))
        repo.commit("Surer")
        assert checks(repo, *names)["stale"] == "block"
        assert repo.expmgr("run", name, "--seeds", "0-2").code == 0
        record = json.loads(repo.expmgr("show", f"{name}:0", "--json").stdout)
        assert (record["attempts"][-1]["from_step"], record["step"]) == (150, 150)
        assert record["parent_run"] == before["variants"][number]["runs"][0]
        assert checks(repo, *names)["measures"] == ("block" if number == 0 else "ok")
    after = told(repo, *names)
    assert after["is_blocked"] is False
    assert all(
        new < old
        for new, old in zip(
            after["variants"][0]["values"].values(), before["variants"][0]["values"].values(), strict=True
        )
    )
