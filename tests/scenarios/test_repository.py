"""The commands from Python: made, trained, compared, shown in a notebook; and what the code of a run may log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import expmgr
from world import Repo

pytestmark = pytest.mark.tf


def test_variants_are_made_trained_and_compared(iris: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    repository = expmgr.open(iris.path)
    assert repository.new("iris/baseline", set={"train.max_steps": 100}) == "iris/baseline"
    repository.new("iris/wide", base="iris/baseline", set={"model.hidden_units": [20, 20]}, why="twice the width")
    assert repository.variants == ["iris/baseline", "iris/wide"]
    runs = repository.run("iris/baseline", "iris/wide", seeds=[0, 1])
    assert [(one.variant, one.seed, one.status) for one in runs] == [
        ("iris/baseline", 0, "finished"),
        ("iris/baseline", 1, "finished"),
        ("iris/wide", 0, "finished"),
        ("iris/wide", 1, "finished"),
    ]
    told = capfd.readouterr().err
    assert "iris/wide seed 1: finished at step 100" in told
    assert runs[0].metrics["selected"]["eval"]["accuracy"] > 0.5
    page = runs._repr_html_()
    assert page.count("<tr>") == 5
    table = repository.compare("iris/baseline", "iris/wide")
    assert (
        table.as_dict()["variants"]
        == json.loads(iris.expmgr("compare", "iris/baseline", "iris/wide", "--json").stdout)["variants"]
    )
    assert "<td>baseline</td>" in table._repr_html_()
    assert "iris/wide" in repr(table)
    assert len(repository.runs("iris/wide")) == 2


def test_errors_have_the_names_that_the_docs_say_and_show_what_differs() -> None:
    import expmgr
    from expmgr.errors import ExitCode, reported

    names = ("CheckpointRefused", "Busy", "SpecProblem", "DataProblem", "UserCodeFailed", "TrainingFailed", "Stopped")
    for name in names:
        kind = getattr(expmgr, name)
        told = reported(kind("no", details=["a line"], hint="so").as_dict())
        assert type(told) is kind
        assert (str(told), told.hint, told.exit_code) == ("no\n  a line\nHint: so", "so", kind("no").exit_code)
    unknown = reported({**kind("no").as_dict(), "error": "OfSomebodyElse", "exit_code": 3})
    assert unknown.as_dict()["error"] == "OfSomebodyElse"
    assert unknown.exit_code is ExitCode.REFUSED


@pytest.mark.slow
def test_a_refusal_is_an_error_with_its_story(iris: Repo) -> None:
    repository = expmgr.open(iris.path)
    repository.new("iris/baseline", set={"train.max_steps": 20})
    repository.run("iris/baseline", quiet=True)
    iris.git("switch", "--quiet", "exp/iris/baseline")
    path = iris.path / "experiments/iris/spec.yaml"
    path.write_text(path.read_text().replace("[10, 10]", "[20, 20]"))
    iris.commit("wider")
    before = iris.digest("models")
    with pytest.raises(expmgr.ExpmgrError, match="does not fit variant iris/baseline") as caught:
        repository.run("iris/baseline", max_steps=40, quiet=True)
    assert any("model.hidden_units" in line or "kernel" in line for line in caught.value.details)
    assert iris.digest("models") == before
    with pytest.raises(expmgr.ExpmgrError, match=r"did you mean|unknown key"):
        repository.new("iris/other", set={"model.hidden_unit": [3]})


def test_importing_it_is_light() -> None:
    code = "import sys, expmgr; expmgr.open; expmgr.log_metrics(1, {'a': 1.0}); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


LOGGING = """
import expmgr
import keras

class Logs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs):
        expmgr.log_metrics(epoch, {"epoch_loss": logs["loss"], "nothing": float("nan")})

    def on_train_end(self, logs=None):
        with open("note.txt", "w") as file:
            file.write("done")
        expmgr.log_artifact("note.txt")
"""


@pytest.mark.wide
def test_the_code_of_a_run_logs_more(iris: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iris.write("experiments/iris/mine.py", LOGGING)
    iris.commit()
    repository = expmgr.open(iris.path)
    repository.new("iris/baseline", set={"train.max_steps": 6, "callbacks": ["mine:Logs"]})
    (run,) = repository.run("iris/baseline", quiet=True)
    assert [step for step, _ in run.curves["logged"]["epoch_loss"]] == [0, 1, 2]
    assert "nothing" not in run.curves["logged"]
    assert list(
        (iris.path / "models/iris/baseline/seed-0/logged").glob("events.out.tfevents.*")
    )  # TensorBoard shows it
    note = iris.path / ".git/expmgr/runs" / run.run_id / "artifacts/note.txt"
    assert note.read_text() == "done"
    monkeypatch.delenv("EXPMGR_RUN_DIR", raising=False)
    expmgr.log_artifact(tmp_path / "not there")  # outside of a run: nothing
    monkeypatch.setenv("EXPMGR_RUN_DIR", str(tmp_path))
    for name, path in (("../x", __file__), (None, tmp_path / "not there")):
        with pytest.raises(expmgr.ExpmgrError):
            expmgr.log_artifact(path, name)
    assert [path.name for path in tmp_path.rglob("*") if path.name in ("x", "not there")] == []
