# Data from a generator, callbacks, steps_per_epoch. Two lines are expmgr's.
import keras
import numpy as np

import expmgr

stored = np.load("digits.npz")


def batches(first, last, size=32):
    draw = np.random.default_rng(0)
    while True:
        rows = draw.integers(first, last, size)
        yield stored["images"][rows], stored["labels"][rows]


class Gentle(keras.callbacks.Callback):
    """Halves the learning rate after each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2


model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
expmgr.fit(
    model,
    batches(0, 1400),
    steps_per_epoch=40,
    epochs=3,
    validation_data=batches(1400, 1790),
    validation_steps=5,
    callbacks=[Gentle(), keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True)],
)
