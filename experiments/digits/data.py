"""1,797 handwritten digits of 8 x 8 grey values from 0 to 16."""

from pathlib import Path

import numpy as np

STORED = np.load(Path(__file__).with_name("digits.npz"))
KEPT = 400


def scaled(images: np.ndarray) -> np.ndarray:
    """Images (count, 8, 8) as (count, 8, 8, 1) from 0 to 1."""
    return images[..., None].astype("float32") / 16


def train():
    return scaled(STORED["images"][:-KEPT]), STORED["labels"][:-KEPT].astype("int32")


def evaluation():
    return scaled(STORED["images"][-KEPT:]), STORED["labels"][-KEPT:].astype("int32")


def unlabelled(path: str) -> np.ndarray:
    return scaled(np.load(path))
