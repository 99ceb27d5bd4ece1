"""`check` and `checkpoints`: the guard asked, with nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import refuses
from world import Repo

pytestmark = pytest.mark.tf


@pytest.fixture
def no_tensorflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which TensorFlow cannot be imported."""
    (tmp_path / "fake" / "tensorflow").mkdir(parents=True)
    (tmp_path / "fake" / "tensorflow" / "__init__.py").write_text("raise ImportError('not here')")
    return {"PYTHONPATH": str(tmp_path / "fake")}


def test_an_unchanged_variant_is_answered_without_tensorflow(
    copied: Repo, change: Callable[..., None], no_tensorflow: dict[str, str]
) -> None:
    before = copied.snapshot()
    for command in (["check", "iris/wide", "--seeds", "0-2"], ["checkpoints", "iris/wide"], ["check", "wide@0"]):
        result = copied.expmgr_process(*command, env=no_tensorflow)
        assert (result.code, result.stderr) == (0, ""), command
    assert copied.snapshot() == before
    assert copied.expmgr_process("check", "wide@200", env=no_tensorflow).stdout == (
        "iris/wide seed 0: same (models/iris/wide/seed-0/model.ckpt-200)\n"
    )
    change(copied, "iris/wide", "learning_rate: 0.1", "learning_rate: 0.01")
    changed = copied.expmgr_process("check", "iris/wide", env=no_tensorflow)
    assert "TensorFlow cannot be imported: not here" in changed.stderr
    assert changed.code == 1


def test_the_hints_of_a_check_name_its_seed_and_step(copied: Repo, change: Callable[..., None]) -> None:
    """Typed as they stand, they mean the seed that was asked about, and no other is set aside."""
    change(copied, "iris/wide", "[20, 20]", "[30, 30]")
    result = copied.expmgr("check", "iris/wide@0", "--seeds", "1")
    assert result.code == 3
    assert result.stdout.splitlines()[-1].startswith("and ")
    assert result.stdout.splitlines()[-1].endswith(" more (expmgr check iris/wide@0 --seeds 1 --all)")
    (hint,) = result.stderr.splitlines()
    command = hint.partition("kept aside: ")[2]
    assert command == "expmgr run iris/wide --seeds 1 --fresh"
    kept = copied.digest("models/iris/wide/seed-0")
    assert copied.expmgr(*command.split()[1:], "--max-steps", "10").code == 0
    assert copied.digest("models/iris/wide/seed-0") == kept
    change(copied, "iris/baseline", "[10, 10]", "[12, 12]")
    change(copied, "iris/baseline", "optimizer: ", "run_config: {tf_random_seed: 1}\noptimizer: ")
    fixed = copied.expmgr("check", "iris/baseline")
    assert (fixed.code, "seed-1" in fixed.stdout, "--seeds" in fixed.stdout + fixed.stderr) == (3, True, False)


def test_the_weights_are_not_read(copied: Repo) -> None:
    """A check costs the same for a gigabyte; that a byte of the weights is damaged is found when they are restored."""
    (data,) = (copied.path / "models/iris/wide/seed-0").glob("model.ckpt-200.data-*")
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert copied.expmgr("check", "iris/wide").code == 0
    result = copied.expmgr("run", "iris/wide", "--max-steps", "300")
    assert result.code == 3
    assert "was not restored: it is damaged" in result.stderr


def test_what_is_not_committed_is_said_and_not_looked_at(copied: Repo) -> None:
    copied.git("switch", "--quiet", "exp/iris/wide")
    spec = copied.read("experiments/iris/spec.yaml")
    copied.write("experiments/iris/spec.yaml", spec.replace("[20, 20]", "[30, 30]"))
    result = copied.expmgr("check", "iris/wide")
    assert (result.code, result.stderr) == (
        0,
        f"Note: iris/wide has changes in {copied.path} that are not committed, and not looked at\n",
    )


def test_a_step_that_is_not_there(walked: Repo) -> None:
    result = walked.expmgr("check", "iris/wide@7")
    assert (result.code, result.stderr) == (
        1,
        "Error: models/iris/wide/seed-0 has no checkpoint of step 7\nHint: it has 0, 200\n",
    )
    refuses(walked, "check", "iris/wide@x", code=1, words="Error: 'iris/wide@x' names no checkpoint")


@pytest.mark.slow
def test_who_may_start_from_whom(walked: Repo) -> None:
    before = walked.snapshot()
    result = walked.expmgr("check", "iris/wide", "--against", "iris/baseline")
    assert result.code == 3, result.stderr
    refused = "refuse: variables, architecture"
    lines = [line.split("  ") for line in result.stdout.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["seed 0", "from iris/wide", "from iris/baseline"],
        ["iris/wide", "same", refused],
        ["iris/baseline", refused, "same"],
    ]
    told = json.loads(walked.expmgr("check", "wide", "--against", "baseline", "--json").stdout)
    assert [(one["variant"], one["from"], one["exit_code"]) for one in told["checks"]] == [
        ("iris/wide", "iris/wide", 0), ("iris/wide", "iris/baseline", 3),
        ("iris/baseline", "iris/wide", 3), ("iris/baseline", "iris/baseline", 0),
    ]  # fmt: skip
    assert walked.snapshot() == before


def test_the_checkpoints_that_are_kept(walked: Repo) -> None:
    told = json.loads(walked.expmgr("checkpoints", "iris/wide", "--seeds", "0-1", "--json").stdout)
    assert [(one["seed"], one["step"], one["verdict"]) for one in told["checkpoints"]] == [
        (0, 0, "same"), (0, 200, "same"), (1, 0, "same"), (1, 200, "same"),
    ]  # fmt: skip
    assert all(one["size_bytes"] > 1000 and len(one["signature"]) == 64 for one in told["checkpoints"])
    shown = walked.expmgr("checkpoints", "iris/wide").stdout.splitlines()
    assert shown[0].split() == ["seed", "step", "saved", "metric", "size", "signature", "verdict", "now"]
    assert len(shown) == 3
