"""What happens without a guard: every row through TensorFlow's and Keras' own restore, as docs/reference/catalogue.md.

`python tests/guard/catalogue/table.py > docs/reference/catalogue.md` makes the page anew; about five minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import keras
import tensorflow as tf

from expmgr.guard.judge import judge
from guard.catalogue.native import tried
from guard.catalogue.rows import ROWS
from guard.catalogue.sides import CASES
from guard.catalogue.test_verdicts import signed

HEAD = """\
# What happens without a guard

Each row is a change to a small model: the base is trained and saved, and its checkpoint restored into the changed model.
*Right* is what may happen; *SILENT* is a restore without an error that should not have been. *Accuracy* is that of the
base, and of the changed model after `tf.train.Checkpoint.restore`. Made by `python tests/guard/catalogue/table.py` with
TensorFlow {tensorflow}, Keras {keras}.

| # | change | right | expmgr says | by rule | `tf.train.Checkpoint.restore` | with `assert_consumed` | `load_weights` | accuracy |
|---|---|---|---|---|---|---|---|---|
"""
WAYS = ("tf.train.Checkpoint", "with assert_consumed", "load_weights")
NOTES = """
Row 13: both native ways restore by position, so the outputs stay as they were; restored by name, as Keras' own paths
suggest, they would not. What a name stands for changed, so it is refused. Row 45: after `tf.train.Checkpoint.restore` the
layer goes on computing with the statistics that it was adapted to, until `finalize_state()` is called (keras#20147);
expmgr calls it.
"""


def line(row: str, folder: Path) -> tuple[str, list[str]]:
    """The row of the table, and what each of the four did."""
    case, (change, right) = CASES[row], ROWS[row]
    found = judge(signed(case.base()), signed(case.changed()))
    native = tried(row, folder)
    rules = list(dict.fromkeys(one.rule.id for one in found.differences if one.verdict is found.verdict))
    told = ", ".join(f"`{rule}`" for rule in rules) or "-"
    heard = [native.heard[way].replace("silent", "SILENT") for way in WAYS]
    after = native.after[WAYS[0]]
    accuracy = f"{native.before.accuracy:.2f} -> {after.accuracy:.2f}" if after else f"{native.before.accuracy:.2f}"
    ours = "SILENT" if found.verdict.may_restore and right not in ("same", "resume") else "ok"
    text = f"| {row} | {change} | {right} | {found.verdict.value} | {told} | {' | '.join(heard)} | {accuracy} |"
    return text, [*heard, ours]


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
    print(NOTES, end="")


if __name__ == "__main__":
    main()
