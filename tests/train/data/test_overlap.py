"""Rows that training and an evaluation share."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from expmgr.train.data.datasets import Rows
from expmgr.train.data.overlap import also_in
from expmgr.train.data.pipelines import Stream

DRAW = np.random.default_rng(0)
IMAGES = tf.constant(DRAW.normal(size=(60, 5, 3)), tf.float32)
WORDS = tf.constant([f"word {number % 40}" for number in range(60)])
LABELS = tf.range(60)


def part(first: int, last: int) -> Rows:
    return Rows(({"image": IMAGES[first:last], "word": WORDS[first:last]}, LABELS[first:last]))


def test_equal_rows_are_counted_whatever_their_targets() -> None:
    assert also_in(part(0, 40), part(40, 60)) == 0
    assert also_in(part(0, 40), part(35, 60)) == 5
    train, other = part(0, 40), part(0, 3)
    assert also_in(train, Rows((other.batch[0], LABELS[50:53]))) == 3
    one, two = (Rows((WORDS[cut], LABELS[cut])) for cut in (slice(0, 40), slice(40, 60)))
    assert also_in(one, two) == 20  # the words come again


def test_a_part_that_differs_is_another_row() -> None:
    inputs, labels = part(0, 40).batch
    turned = Rows(({"image": inputs["image"], "word": tf.reverse(inputs["word"], [0])}, labels))
    assert also_in(part(0, 40), turned) == 0
    near = Rows(({"image": inputs["image"] * (1 + 1e-6), "word": inputs["word"]}, labels))
    assert also_in(part(0, 40), near) == 0


def test_batches_that_are_evaluated() -> None:
    rows = part(30, 50).batch
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(8)
    assert also_in(part(0, 40), Stream(lambda: iter(dataset), key="data.eval")) == 10
    assert also_in(dataset, part(0, 3)) is None  # nobody goes through a pipeline of training for that


def test_ragged_rows_are_not_known() -> None:
    ragged = tf.ragged.constant([[1, 2], [3]])
    assert also_in(Rows(tf.constant([1, 2])), Stream(lambda: iter([(ragged, tf.constant([0, 1]))]), key="k")) is None
