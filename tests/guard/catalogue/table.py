"""What happens without a guard: every row through TensorFlow's and Keras' own restore, as docs/reference/catalogue.md.

`python tests/guard/catalogue/table.py > docs/reference/catalogue.md` makes the page anew; about four minutes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import keras
import tensorflow as tf

from expmgr.guard import judge
from guard.catalogue.rows import ROWS
from guard.catalogue.sides import CASES, Side
from guard.catalogue.test_verdicts import batch, signed

STEPS = 20
HEAD = """\
# What happens without a guard

Each row is a change to a small model: the base is trained and saved, and its checkpoint restored into the changed model.
*Right* is what may happen; *SILENT* is a restore without an error that should not have been. Made by
`python tests/guard/catalogue/table.py` with TensorFlow {tensorflow}, Keras {keras}.

| # | change | right | expmgr says | by rule | `tf.train.Checkpoint.restore` | with `assert_consumed` | `load_weights` |
|---|---|---|---|---|---|---|---|
"""


def restored(restore: Callable[[Side], None], changed: Callable[[], Side], right: str) -> str:
    side = changed()
    try:
        restore(side)
    except Exception:  # whatever the library raises
        return "raises"
    return "ok" if right in ("same", "resume") else "SILENT"


def line(row: str, folder: Path) -> tuple[str, list[str]]:
    """The row of the table, and what each of the four did."""
    case, (change, right) = CASES[row], ROWS[row]
    base = case.base()
    signature = signed(base)
    for _ in range(STEPS):
        base.model.train_on_batch(*batch(base))
    # `save`, not `write`: it brings the save_counter, without which assert_consumed always raises.
    prefix = tf.train.Checkpoint(model=base.model, optimizer=base.model.optimizer).save(str(folder / "ckpt"))
    base.model.save_weights(folder / "all.weights.h5")

    def read(side: Side) -> Any:
        return tf.train.Checkpoint(model=side.model, optimizer=side.model.optimizer).restore(prefix)

    ways: list[Callable[[Side], None]] = [
        lambda side: read(side).expect_partial(),
        lambda side: read(side).assert_consumed(),
        lambda side: side.model.load_weights(folder / "all.weights.h5"),
    ]
    native = [restored(way, case.changed, right) for way in ways]
    found = judge(signature, signed(case.changed()))
    rules = list(dict.fromkeys(one.rule.id for one in found.differences if one.verdict is found.verdict))
    told = ", ".join(f"`{rule}`" for rule in rules) or "-"
    ours = "SILENT" if found.verdict.may_restore and right not in ("same", "resume") else "ok"
    return f"| {row} | {change} | {right} | {found.verdict.value} | {told} | {' | '.join(native)} |", [*native, ours]


def main() -> None:
    print(HEAD.format(tensorflow=tf.__version__, keras=keras.__version__), end="")
    silent = [0, 0, 0, 0]
    for row in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            text, outcomes = line(row, Path(folder))
        print(text, flush=True)
        silent = [count + (one == "SILENT") for count, one in zip(silent, outcomes, strict=True)]
    wrong = sum(right in ("refuse", "warm-start") for _change, right in ROWS.values())
    print(
        f"\nOf {len(ROWS)} rows {wrong} must not be restored. Silent and wrong: `tf.train.Checkpoint.restore` {silent[0]}, "
        f"with `assert_consumed` {silent[1]}, Keras `load_weights` {silent[2]}, expmgr {silent[3]}."
    )


if __name__ == "__main__":
    main()
