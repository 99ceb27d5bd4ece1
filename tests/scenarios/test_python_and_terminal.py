"""A notebook can do what the terminal does: each method and its command say the same of runs that were trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import expmgr
from expmgr.api.details import RunDetails, VariantDetails
from expmgr.guard.rules import Verdict
from world import Repo

pytestmark = pytest.mark.tf


def said(repo: Repo, *typed: str, code: int = 0) -> dict[str, object]:
    done = repo.expmgr(*typed, "--json")
    assert done.code == code, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_what_there_is(walked: Repo) -> None:
    repository = expmgr.open(walked.path)
    assert repr(repository) == f"<expmgr repository {walked.path}: 2 variants, 6 runs>"
    found = repository.list(where="accuracy>0.1", sort="-accuracy")
    assert found.as_dict() == said(walked, "list", "--where", "accuracy>0.1", "--sort=-accuracy")
    assert found[0].mean is not None
    assert repr(found[0]).startswith(f"<variant {found[0].variant}: accuracy {found[0].mean:.4f} ± ")
    variant = repository.show("iris/wide")
    assert isinstance(variant, VariantDetails)
    assert variant.as_dict() == said(walked, "show", "iris/wide")
    assert len(variant.runs) == len(variant.counted) == 3
    run = repository.show("iris/wide:1")
    assert isinstance(run, RunDetails)
    assert run.as_dict() == said(walked, "show", "iris/wide:1")
    assert (run.progress, run.notes) == ({}, [])
    value = run.record.metrics["selected"]["eval"]["accuracy"]
    told = f"iris/wide seed 1, finished at step 200, accuracy {value:.4f} (eval)"
    assert repr(run) == str(run.record) == f"<run {run.record.run_id}: {told}>"
    changes = repository.diff("iris/baseline", "iris/wide")
    assert changes.as_dict() == said(walked, "diff", "iris/baseline", "iris/wide")


def test_what_the_guard_says(walked: Repo) -> None:
    repository = expmgr.open(walked.path)
    (own,) = repository.check("iris/wide")
    assert repository.check("iris/wide").as_dict() == said(walked, "check", "iris/wide")
    assert (own.verdict, own.error, own.step) == (Verdict.SAME, None, 200)
    assert repr(own) == f"<iris/wide seed 0: same ({own.checkpoint})>"
    both = repository.check("iris/wide", against="iris/baseline", seeds=[1])
    assert both.as_dict() == said(walked, "check", "iris/wide", "--against", "iris/baseline", "--seeds", "1", code=3)
    assert (both.exit_code, list(both.sources)) == (3, ["iris/wide", "iris/baseline"])
    verdicts = {(one.variant, one.source): one.verdict for one in both}
    assert verdicts["iris/wide", "iris/baseline"] is Verdict.REFUSE
    assert verdicts["iris/wide", "iris/wide"] is Verdict.SAME
    kept = repository.checkpoints("iris/wide", seeds=range(2))
    assert kept.as_dict() == said(walked, "checkpoints", "iris/wide", "--seeds", "0-1")
    assert {one.seed for one in kept} == {0, 1}
    assert kept.to_pandas()["step"].max() == 200


def test_what_a_checkpoint_is_used_for(copied: Repo, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    repository = expmgr.open(copied.path)
    found = repository.evaluate("iris/wide", split="train")
    assert found.as_dict() == said(copied, "evaluate", "iris/wide", "--split", "train")
    assert found.metrics["accuracy"] > 0.5
    assert repr(found).startswith(f"<{found.checkpoint} on ")
    logged = repository.evaluate("iris/wide", seed=1, log=True)
    assert logged.event is not None
    assert logged.event[:12] in copied.expmgr("log").stdout

    data = copied.path / "experiments/iris/iris_test.csv"
    predicted = repository.predict("iris/wide", data, tmp_path / "mine.csv")
    told = said(copied, "predict", "iris/wide", "--data", str(data), "-o", str(tmp_path / "typed.csv"))
    assert {**predicted.as_dict(), "output": told["output"]} == told
    assert (tmp_path / "mine.csv").read_bytes() == (tmp_path / "typed.csv").read_bytes()
    assert len(predicted.to_pandas()) == predicted.rows
    with pytest.raises(expmgr.ExpmgrError, match="is there already"):
        repository.predict("iris/wide", data, tmp_path / "mine.csv")

    served = repository.export("iris/wide", tmp_path / "served.keras")
    told = said(copied, "export", "iris/wide", "-o", str(tmp_path / "typed.keras"))
    assert {**served.as_dict(), "output": told["output"]} == told
    assert (served.form, (tmp_path / "served.keras").is_file()) == ("keras", True)
    assert capfd.readouterr().out == ""


def test_a_refusal_is_an_answer_of_check_and_an_error_elsewhere(copied: Repo, change: object) -> None:
    change(copied, "iris/wide", "[20, 20]", "[30, 20]")  # type: ignore[operator]
    repository = expmgr.open(copied.path)
    before = copied.digest("models")
    (answer,) = repository.check("iris/wide")
    assert answer.verdict is Verdict.REFUSE
    assert answer.judgement is not None
    assert answer.judgement.differences[0].rule.id == "variables"
    with pytest.raises(expmgr.CheckpointRefused, match="does not fit variant iris/wide"):
        repository.evaluate("iris/wide")
    with pytest.raises(expmgr.CheckpointRefused, match="does not fit variant iris/wide"):
        repository.run("iris/wide", quiet=True)
    assert copied.digest("models") == before
    with pytest.raises(expmgr.BadArgument, match="variables is never allowed"):
        repository.run("iris/wide", allow=["variables"])


def test_runs_begin_from_other_weights_and_with_a_commit(copied: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    repository = expmgr.open(copied.path)
    repository.new("iris/warm", base="iris/wide", set={"train.max_steps": 20})
    copied.git("switch", "--quiet", "exp/iris/warm")
    spec = copied.path / "experiments/iris/spec.yaml"
    spec.write_text(spec.read_text().replace("max_steps: 20", "max_steps: 10"))
    (run,) = repository.run("iris/warm", warm_start_from="iris/wide:1@200", commit="fewer steps")
    assert (run.step, run.status) == (10, "finished")
    assert run.warm_start is not None
    assert (run.warm_start["variant"], run.warm_start["seed"], run.warm_start["step"]) == ("iris/wide", 1, 200)
    assert copied.git("log", "-1", "--format=%s").strip() == "fewer steps"
    assert copied.git("rev-parse", "HEAD").strip() == run.commit
    assert repository.list("iris", where="variant=iris/warm")[0].warm_start == "iris/wide@200"
    assert "iris/warm seed 0: finished at step 10" in capfd.readouterr().err


def test_reviews(copied: Repo) -> None:
    repository = expmgr.open(copied.path)
    assert (len(repository.reviews()), repr(repository.reviews())) == (0, "no review")
    assert copied.expmgr("review", "open", "iris/wide", "--against", "iris/baseline", "-m", "wider?").code == 0
    (found,) = repository.reviews()
    assert repository.reviews().as_dict() == said(copied, "review", "list")
    assert repository.review("iris/wide").as_dict() == said(copied, "review", "show", found.id[:8])
    assert (found.candidate, found.baseline, found.state) == ("iris/wide", "iris/baseline", "open")
    assert any("approval" in one for one in found.missing)
    assert repr(found).startswith(f"<review {found.id[:12]}: iris/wide against iris/baseline: open")
    assert "# iris/wide against iris/baseline" in found._repr_markdown_()
    done = copied.expmgr("review", "close", found.id[:8], "--reason", "no gain")
    assert done.code == 0, done.stderr
    assert len(repository.reviews()) == 0
    assert [one.state for one in repository.reviews(everything=True)] == ["closed"]
    with pytest.raises(expmgr.ExpmgrError, match="there is no review abcd"):
        repository.review("abcd")
