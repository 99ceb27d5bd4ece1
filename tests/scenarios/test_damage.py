"""Damaged files of a trained variant: the error names the file, and the command in its hint gets back what was trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import ok, told
from train.runs import tree
from world import Repo

pytestmark = pytest.mark.tf

MODEL_DIR = "models/iris/baseline/seed-0"
REBUILD = "expmgr checkpoints iris/baseline --rebuild"


def hinted(stderr: str) -> list[str]:
    """The command of the last hint."""
    hint = [line for line in stderr.splitlines() if line.startswith("Hint: ")][-1]
    return hint.rpartition(": expmgr ")[2].split()


def weights(repo: Repo, step: int) -> bytes:
    return (repo.path / f"{MODEL_DIR}/model.ckpt-{step}.data-00000-of-00001").read_bytes()


def test_after_a_rebuild_a_run_resumes_bit_for_bit(copied: Repo, change: Callable[[Repo, str, str, str], None]) -> None:
    """With a selection, early stopping and a callback, whose state is in no tensor."""
    change(copied, "iris/baseline", "train:      {max_steps: 1000}", (
        "train:      {max_steps: 60, early_stopping: {metric: loss, patience: 50}}\n"
        "eval:       {every_steps: 10}\n"
        "selection:  {metric: accuracy}\n"
        "run_config: {save_checkpoints_steps: 20, keep_checkpoint_max: 2}"
    ))  # fmt: skip
    ok(copied, "run", "iris/baseline", "--fresh")
    other = Repo(copied.path.parent / "other")
    shutil.copytree(copied.path, other.path, symlinks=True)
    manifest = other.path / MODEL_DIR / "manifest.json"
    before = manifest.read_bytes()
    assert b'"early_stopping"' in before
    manifest.write_bytes(before[:100])
    damaged = tree(other.path / "models")
    (other.path / "rows.csv").write_text(other.read("experiments/iris/iris_test.csv"))
    for command in (
        ("run", "iris/baseline", "--max-steps", "90"), ("evaluate", "iris/baseline"),
        ("export", "iris/baseline", "-o", "served"), ("predict", "iris/baseline", "--data", "rows.csv", "-o", "predicted.csv"),
    ):  # fmt: skip
        refused = other.expmgr(*command)
        assert refused.code == 3, refused.stderr
        assert f"{MODEL_DIR}/manifest.json cannot be read" in refused.stderr
        assert hinted(refused.stderr) == REBUILD.split()[1:]
        assert tree(other.path / "models") == damaged
    ok(other, *hinted(refused.stderr))
    # What was deleted before is nobody's concern any more.
    assert json.loads(manifest.read_bytes()) == {**json.loads(before), "removed": []}
    for repo in (copied, other):
        ok(repo, "run", "iris/baseline", "--max-steps", "90")
    assert weights(copied, 90) == weights(other, 90)
    records = [told(repo, "show", "iris/baseline:0") for repo in (copied, other)]
    for key in ("metrics", "selected_step", "step", "curves"):
        assert records[0][key] == records[1][key], key


def test_files_that_were_deleted_behind_the_manifest(copied: Repo, walked: Repo) -> None:
    (copied.path / MODEL_DIR / "model.ckpt-200.index").unlink()
    result = copied.expmgr("run", "iris/baseline", "--max-steps", "200")
    assert result.code == 3, (result.stdout, result.stderr)
    assert f"Error: {MODEL_DIR}/model.ckpt-200 was not restored: it is damaged\n" in result.stderr
    assert "  model.ckpt-200.index is missing\n" in result.stderr
    compared = copied.expmgr("compare", "iris/baseline", "iris/wide", "--seeds", "0")
    assert "its selected checkpoint, of step 200, is damaged: model.ckpt-200.index is missing" in compared.stderr
    assert hinted(result.stderr)[:2] == ["run", "iris/baseline"]
    ok(copied, *hinted(result.stderr), "--max-steps", "200")
    assert weights(copied, 200) == weights(walked, 200)
    assert "is damaged" not in copied.expmgr("compare", "iris/baseline", "iris/wide", "--seeds", "0").stderr


_WIDE = pytest.mark.wide


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [
        ("deleted", "index"),
        ("cut", "data-00000-of-00001"),
        *(pytest.param(*one, marks=_WIDE) for one in (("cut", "index"), ("deleted", "json"), ("cut", "json"))),
        pytest.param("deleted", "data-00000-of-00001", marks=_WIDE),
    ],
)
def test_the_store_gives_back_what_is_damaged_here(copied: Repo, suffix: str, damage: str, tmp_path: Path) -> None:
    copied.git("init", "--quiet", "--bare", str(tmp_path / "hub.git"))
    copied.git("remote", "add", "origin", str(tmp_path / "hub.git"))
    (copied.path / "expmgr.toml").write_text(f'store = "{tmp_path / "shared"}"\n')
    ok(copied, "push")
    before = tree(copied.path / MODEL_DIR)
    path = copied.path / MODEL_DIR / f"model.ckpt-200.{suffix}"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    compared = copied.expmgr("compare", "iris/baseline", "iris/wide", "--seeds", "0")
    assert f"{path.name} " in compared.stderr
    refused = copied.expmgr("run", "iris/baseline", "--max-steps", "200")
    checked = copied.expmgr("check", "iris/baseline")
    assert (refused.code, checked.code) == (3, 3)
    assert hinted(refused.stderr) == hinted(checked.stderr)
    assert refused.stderr.splitlines()[-1].startswith("Hint: fetch it again from the store: expmgr pull ")
    ok(copied, *hinted(refused.stderr))
    after = tree(copied.path / MODEL_DIR)
    assert {name: after[name] for name in before} == before
    done = copied.expmgr("run", "iris/baseline", "--max-steps", "200", "--json")
    assert json.loads(done.stdout)["runs"][0]["complete_before"] is True
