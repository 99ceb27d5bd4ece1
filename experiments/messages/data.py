"""Short messages of three kinds, made by a seeded generator: question, complaint, thanks."""

import random

import numpy as np
import tensorflow as tf

THINGS = ["parcel", "invoice", "lamp", "kettle", "chair", "password", "order", "refund", "courier", "charger"]
TEMPLATES = [
    ["where is my {}", "how do i return the {}", "when does the {} come", "could you change the {} please"],
    ["the {} is broken", "my {} never came", "the {} is not what i ordered", "nobody answers about the {}"],
    ["the {} is great thank you", "thanks the {} came early", "good work with the {}", "the {} is just what i wanted"],
]
FILLERS = ["", "hello", "again", "today", "really", "so", "well"]


def messages(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Texts (count,) and kinds (count,); one message in twenty has a wrong kind."""
    draw = random.Random(seed)
    texts, kinds = [], []
    for _ in range(count):
        kind = draw.randrange(3)
        text = draw.choice(TEMPLATES[kind]).format(draw.choice(THINGS))
        texts.append(f"{draw.choice(FILLERS)} {text} {draw.choice(FILLERS)}".strip())
        kinds.append(draw.randrange(3) if draw.random() < 0.05 else kind)
    return np.array(texts, dtype=object), np.array(kinds, "int32")


def train(batch_size: int, seed: int) -> tf.data.Dataset:
    texts, kinds = messages(1500, 1)
    batches = tf.data.Dataset.from_tensor_slices((list(texts), kinds))
    return batches.shuffle(1500, seed=seed).batch(batch_size).prefetch(2)


def evaluation():
    return messages(500, 2)


def unlabelled(path: str) -> np.ndarray:
    with open(path, encoding="utf-8") as lines:
        return np.array([line.strip() for line in lines], dtype=object)
