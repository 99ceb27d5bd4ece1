"""What TensorFlow and Keras do by themselves: a base is trained and saved, and restored into the changed side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from guard.catalogue.rows import ROWS

if TYPE_CHECKING:
    from guard.catalogue.sides import Side

EPOCHS = 20


class Score(NamedTuple):
    """On the evaluation rows of a side. `accuracy` is a share, the mean over heads."""

    accuracy: float
    loss: float


class Tried(NamedTuple):
    """By way of restoring: what was heard, and what the changed side is worth after it (None where it raised)."""

    heard: dict[str, str]
    before: Score
    after: dict[str, Score | None]


def tried(row: str, folder: Path) -> Tried:
    """One row through each of the three ways. Writes into `folder`.

    "raises"; "silent": no error, though the row must not be restored; "ok": no error, and it may be.
    """
    import tensorflow as tf

    from guard.catalogue.sides import CASES

    base = CASES[row].base()
    base.model.fit(*base.train, batch_size=base.batch_size, epochs=EPOCHS, shuffle=False, verbose=0)
    before = score(base)
    # `save`, not `write`: `restore` asks for the save_counter that only `save` writes, and assert_consumed raises without it.
    prefix = tf.train.Checkpoint(model=base.model, optimizer=base.model.optimizer).save(str(folder / "ckpt"))
    weights = folder / "all.weights.h5"
    base.model.save_weights(weights)

    def read(side: Side) -> Any:
        return tf.train.Checkpoint(model=side.model, optimizer=side.model.optimizer).restore(prefix)

    ways: dict[str, Callable[[Side], Any]] = {
        "tf.train.Checkpoint": lambda side: read(side).expect_partial(),
        "with assert_consumed": lambda side: read(side).assert_consumed(),
        "load_weights": lambda side: side.model.load_weights(weights),
    }
    heard: dict[str, str] = {}
    after: dict[str, Score | None] = {}
    for way, restore in ways.items():
        side = CASES[row].changed()
        try:
            restore(side)
        except Exception:  # whatever the library raises
            heard[way], after[way] = "raises", None
        else:
            heard[way] = "ok" if ROWS[row].right in ("same", "resume") else "silent"
            after[way] = score(side)
    return Tried(heard, before, after)


def score(side: Side) -> Score:
    """Without compiling a function: 0.1 s instead of 1 s by `evaluate`. The loss includes regularizers."""
    import numpy as np
    import tensorflow as tf

    # 32 rows on both sides of every row: a stateful model takes no other number.
    inputs, targets = tf.nest.map_structure(lambda array: tf.constant(array[:32]), side.eval)
    outputs = side.model(inputs, training=False)
    pairs = zip(tf.nest.flatten(targets), tf.nest.flatten(outputs), strict=True)
    hits = [np.mean(np.argmax(wanted, -1) == np.argmax(tf.cast(given, tf.float64), -1)) for wanted, given in pairs]
    return Score(float(np.mean(hits)), float(side.model.compute_loss(inputs, targets, outputs)))
