"""The case of TensorFlow's guide: another architecture in the same model_dir.

TensorFlow 2.15's Estimator takes it without a word and trains a (4, 10) kernel in a model that was asked for (4, 20).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from world import Repo

pytestmark = pytest.mark.tf

REFUSAL = """\
iris/baseline seed 0: not run
Error: models/iris/baseline/seed-0/model.ckpt-200 was not restored: it does not fit variant iris/baseline
  hidden_0/kernel   saved float32 (4, 10)    wanted float32 (4, 20)
  hidden_0/bias     saved float32 (10)       wanted float32 (20)
  hidden_1/kernel   saved float32 (10, 10)   wanted float32 (20, 20)
  hidden_1/bias     saved float32 (10)       wanted float32 (20)
  logits/kernel     saved float32 (10, 3)    wanted float32 (20, 3)
  and 6 more (expmgr check iris/baseline --all)
Nothing was changed on disk.
Hint: give the change a variant of its own: expmgr new iris/baseline-2 --from iris/baseline; \
or start anew, with the old model_dir kept aside: expmgr run iris/baseline --fresh
"""


def test_ten_ten_then_twenty_twenty_is_refused(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/baseline", "[10, 10]", "[20, 20]")
    before = copied.snapshot()
    result = copied.expmgr("run", "iris/baseline")
    assert result.stderr == REFUSAL
    assert (result.code, result.stdout) == (3, "")
    assert copied.snapshot() == before

    told = json.loads(copied.expmgr("check", "iris/baseline", "--json").stdout)
    (check,) = told["checks"]
    assert (told["exit_code"], check["judgement"]["verdict"]) == (3, "refuse")
    assert len(check["judgement"]["differences"]) == 11
    assert copied.snapshot() == before


def test_the_same_change_in_a_variant_of_its_own_is_trained(walked: Repo) -> None:
    told = json.loads(walked.expmgr("compare", "iris/baseline", "iris/wide", "--json").stdout)
    assert [(one["variant"], one["parameters"], one["seeds"]) for one in told["variants"]] == [
        ("iris/baseline", 4 * 10 + 10 + 10 * 10 + 10 + 10 * 3 + 3, [0, 1, 2]),
        ("iris/wide", 4 * 20 + 20 + 20 * 20 + 20 + 20 * 3 + 3, [0, 1, 2]),
    ]


@pytest.mark.wide
def test_fresh_sets_the_old_model_dir_aside(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/baseline", "[10, 10]", "[20, 20]")
    old = {name.rpartition("/seed-0/")[2]: what for name, what in copied.digest("models/iris/baseline/seed-0").items()}
    result = copied.expmgr("run", "iris/baseline", "--max-steps", "10", "--fresh")
    assert result.code == 0, result.stderr
    (aside,) = (copied.path / "models/iris/baseline/.set-aside").iterdir()
    assert {name.rpartition(f"/{aside.name}/")[2]: what for name, what in copied.digest(aside).items()} == old
    record = json.loads(copied.expmgr("show", "iris/baseline:0", "--json").stdout)
    assert (record["step"], record["parent_run"], record["attempts"][0]["from_step"]) == (10, None, 0)


@pytest.mark.wide
def test_a_changed_learning_rate_takes_effect_and_is_said(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/wide", "learning_rate: 0.1", "learning_rate: 0.01")
    before = json.loads(copied.expmgr("show", "iris/wide:1", "--json").stdout)
    result = copied.expmgr("run", "iris/wide", "--seeds", "1", "--max-steps", "300")
    assert result.code == 0, result.stderr
    record = json.loads(copied.expmgr("show", "iris/wide:1", "--json").stdout)
    assert record["run_id"] != before["run_id"]
    assert record["parent_run"] == before["run_id"]
    (attempt,) = record["attempts"]
    assert (attempt["from_step"], attempt["to_step"]) == (200, 300)
    assert [(one["rule"], one["what"], one["saved"], one["wanted"]) for one in attempt["changes"]] == [
        ("optimizer-setting", "optimizer.learning_rate", "0.1", "0.01")
    ]
    assert "  optimizer.learning_rate: 0.1 -> 0.01, takes effect now (only how training goes on)\n" in result.stderr
    assert json.loads((copied.path / "models/iris/wide/seed-1/model.ckpt-300.json").read_text())["training"][
        "optimizer"
    ]["learning_rate"] == pytest.approx(0.01)


@pytest.mark.wide
def test_a_refusal_that_a_person_lets_pass_is_recorded_and_shown(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/wide", "hidden_units: [20, 20]", "hidden_units: [20, 20], activation: tanh")
    before = copied.snapshot()
    refused = copied.expmgr("run", "iris/wide", "--seeds", "1", "--max-steps", "300")
    assert refused.code == 3
    assert "  model.activation   saved relu   wanted tanh\n" in refused.stderr
    assert copied.snapshot() == before
    result = copied.expmgr("run", "iris/wide", "--seeds", "1", "--max-steps", "300", "--allow", "activation")
    assert result.code == 0, result.stderr
    told = "model.activation: relu -> tanh, allowed by --allow activation (the weights were trained for another one)"
    assert f"  {told}\n" in result.stderr
    assert "model.activation relu -> tanh, allowed by --allow activation" in copied.expmgr("show", "iris/wide:1").stdout
    compared = copied.expmgr("compare", "iris/baseline", "iris/wide")
    assert "(guard): iris/wide has runs that the guard refused, allowed by --allow activation: " in compared.stderr


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("activaton", "there is no rule 'activaton': did you mean activation?"),
        ("variables", "variables is never allowed: the weights do not fit"),
    ],
)
def test_what_cannot_be_let_pass(walked: Repo, rule: str, why: str) -> None:
    result = walked.expmgr("run", "iris/wide", "--allow", rule)
    assert result.code == 2
    assert why in " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.mark.slow
def test_the_hints_name_the_seeds(copied: Repo, change: Callable[..., None]) -> None:
    """Typed as it stands, the hint for seed 1 must not set the good seed 0 aside; and one story is told once."""
    change(copied, "iris/wide", "[20, 20]", "[30, 30]")
    one = copied.expmgr("run", "iris/wide", "--seeds", "1").stderr
    assert "(expmgr check iris/wide --seeds 1 --all)" in one
    assert "expmgr run iris/wide --seeds 1 --fresh" in one
    both = copied.expmgr("run", "iris/wide", "--seeds", "0-2").stderr
    assert both.count("Error: ") == 1
    assert "iris/wide seeds 0-2:\n" in both
    assert "expmgr run iris/wide --seeds 0-2 --fresh" in both


def test_old_results_do_not_stand_under_a_new_spec(copied: Repo, change: Callable[..., None]) -> None:
    change(copied, "iris/wide", "[20, 20]", "[30, 30]")
    told = copied.expmgr("compare", "iris/baseline", "iris/wide")
    assert told.code == 5
    row = next(line for line in told.stdout.splitlines() if line.startswith("iris/wide"))
    assert row.split() == ["iris/wide", "0", "-", "-", "-", "-", "-"]
    note = "iris/wide has changed since seeds 0-2 were run, which are left aside: expmgr run iris/wide --seeds 0-2"
    assert f"Not comparable (stale): {note}\n" in told.stderr
    assert "- (changed since it was run)" in copied.expmgr("list").stdout
    assert copied.expmgr("show", "iris/wide").stdout.count(" no\n") == 3


def test_a_name_that_was_used_before(copied: Repo) -> None:
    copied.git("branch", "--quiet", "-D", "exp/iris/wide")
    made = copied.expmgr("new", "iris/wide", "--from", "iris/baseline", "--set", "model.hidden_units=[8]")
    assert made.code == 0
    assert "Note: a variant iris/wide existed before: 3 runs are on record" in made.stderr
    assert "- (changed since it was run)" in copied.expmgr("list").stdout


def test_a_model_dir_that_is_gone_is_no_fresh_start(copied: Repo) -> None:
    (copied.path / "models").rename(copied.path.parent / "unmounted")
    run_id = json.loads(copied.expmgr("show", "iris/wide:0", "--json").stdout)["run_id"]
    before = copied.digest(".git/expmgr/runs")
    result = copied.expmgr("run", "iris/wide", "--max-steps", "300")
    assert result.stderr == (
        "iris/wide seed 0: not run\n"
        f"Error: models/iris/wide/seed-0 is empty, but run {run_id} trained iris/wide seed 0 to step 200\n"
        "  its checkpoints were saved in models/iris/wide/seed-0\n"
        "Nothing was changed on disk.\n"
        "Hint: bring the folder back (is its disk mounted?), or start anew: expmgr run iris/wide --max-steps 300 --fresh\n"
    )
    assert result.code == 3
    assert copied.expmgr("check", "iris/wide").code == 3
    assert copied.digest(".git/expmgr/runs") == before
