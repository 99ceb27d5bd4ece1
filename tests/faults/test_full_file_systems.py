"""A small file system, or one that may not be written to, in the place of a folder: what a person reads, and what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clones import ok, told
from world import Repo

pytestmark = [
    pytest.mark.tf,
    pytest.mark.skipif(
        not shutil.which("unshare")
        or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
        reason="needs unshare --mount",
    ),
]

#: Mounts a file system of 20 KB at $1 with what lies there, fills it up to $2 bytes that stay free, and runs the rest.
FULL = """
set -e
place=$1 free=$2; shift 2
cp -a "$place" "$place.was"
mount -t tmpfs -o size=4m,mode=1777 tmpfs "$place"
cp -a "$place.was/." "$place"; rm -rf "$place.was"
avail=$(( $(stat -f -c '%a * %S' "$place") - free ))
head -c $avail /dev/zero > "$place/.filler"
set +e
"$@"; code=$?
rm "$place/.filler"; mkdir -p "$place.kept"; cp -a "$place/." "$place.kept"
exit $code
"""


def in_full(repo: Repo, place: Path, free: int, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`expmgr <argv>` where `place` has `free` bytes left; what it left there is there afterwards."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    place.mkdir(exist_ok=True, parents=True)
    done = subprocess.run(
        [*command, "bash", "-c", FULL, "bash", str(place), str(free), sys.executable, "-m", "expmgr", *argv],
        cwd=repo.path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    kept = place.with_name(f"{place.name}.kept")
    assert kept.is_dir(), done.stderr
    shutil.rmtree(place, ignore_errors=True)
    kept.rename(place)
    return done


@pytest.fixture
def base(iris: Repo) -> Repo:
    ok(iris, "new", "iris/baseline", "--set", "train.max_steps=20", "--set", "run_config.save_checkpoints_steps=5")
    return iris


def weights(repo: Repo) -> bytes:
    return (repo.path / "models/iris/baseline/seed-0/model.ckpt-20.data-00000-of-00001").read_bytes()


def test_models_fill_up_and_the_run_resumes_bit_for_bit(base: Repo, tmp_path: Path) -> None:
    whole = Repo(tmp_path / "whole")
    shutil.copytree(base.path, whole.path)
    ok(whole, "run", "iris/baseline")
    full = in_full(base, base.path / "models", 250_000, "run", "iris/baseline")
    assert full.returncode == 74, full.stderr
    assert "could not be written: No space left on device" in full.stderr
    assert "models/iris/baseline/seed-0/" in full.stderr
    assert " bytes are needed" in full.stderr
    hint = "Hint: make room, then run it again: it resumes from its newest checkpoint: expmgr run iris/baseline\n"
    assert hint in full.stderr
    (run,) = told(base, "list")["variants"]
    assert run["runs"] == {"failed": 1}
    ok(base, "run", "iris/baseline")
    assert weights(base) == weights(whole)
    left = [path.name for path in (base.path / "models/iris/baseline/seed-0").iterdir() if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("free", [0, pytest.param(81_920, marks=pytest.mark.wide)])
def test_the_repository_fills_up(base: Repo, free: int) -> None:
    """Where the record, the events, the progress and the log of a run are."""
    full = in_full(base, base.path / ".git/expmgr", free, "run", "iris/baseline")
    assert full.returncode == 74, full.stderr
    assert ".git/expmgr/" in full.stderr
    assert "No space left on device" in full.stderr
    ok(base, "run", "iris/baseline")
    assert told(base, "show", "iris/baseline:0")["status"] == "finished"


@pytest.mark.wide
def test_a_full_temporary_folder(base: Repo, tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    full = in_full(base, place, 0, "run", "iris/baseline", TMPDIR=str(place))
    assert full.returncode in (0, 74), full.stderr
    assert "fault of its own" not in full.stderr
    if full.returncode:
        assert "No space left on device" in full.stderr
    ok(base, "run", "iris/baseline")


@pytest.fixture
def trained(base: Repo) -> Repo:
    ok(base, "run", "iris/baseline")
    (base.path / "out").mkdir()
    return base


@pytest.mark.wide
def test_outputs_and_stores_that_are_full(trained: Repo) -> None:
    out = trained.path / "out"
    data = "experiments/iris/iris_test.csv"
    predicted = in_full(
        trained, out, 0, "predict", "iris/baseline", "--data", data, "-o", "out/predicted.csv"
    )  # fmt: skip
    assert predicted.returncode == 74, predicted.stderr
    assert f"Error: {out}/predicted.csv could not be written: No space left on device\n" in predicted.stderr
    assert "bytes are needed, 0 are free" in predicted.stderr
    for form in ("savedmodel", "keras"):
        target = "out/model.keras" if form == "keras" else "out/model"
        exported = in_full(trained, out, 4096, "export", "iris/baseline", "-o", target)
        assert exported.returncode == 74, exported.stderr
        assert f"{trained.path}/{target}" in exported.stderr
    assert list(out.iterdir()) == []
    trained.git("init", "--quiet", "--bare", f"{trained.path}-hub")
    trained.git("remote", "add", "origin", f"{trained.path}-hub")
    (trained.path / "expmgr.toml").write_text('store = "shared"\n')
    stored = in_full(trained, trained.path / "shared", 4096, "push")
    assert stored.returncode == 74, stored.stderr
    assert f"{trained.path}/shared/sha256/" in stored.stderr
    assert " bytes are needed" in stored.stderr
    ok(trained, "push")
    assert json.loads(ok(trained, "push", "--checkpoints", "selected", "--json"))["checkpoints"] == 0
