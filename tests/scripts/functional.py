# The usual way: functional model, model.fit. Three lines are expmgr's.
import keras
import numpy as np

import expmgr

params = expmgr.params({"units": 32, "rate": 0.001})
stored = np.load("digits.npz")
x, y = stored["images"], stored["labels"]

inputs = keras.Input((8, 8, 1))
hidden = keras.layers.Flatten()(inputs)
hidden = keras.layers.Dense(params["units"], activation="relu")(hidden)
hidden = keras.layers.Dropout(0.2)(hidden)
outputs = keras.layers.Dense(10, activation="softmax")(hidden)
model = keras.Model(inputs, outputs)

model.compile(
    optimizer=keras.optimizers.Adam(params["rate"]),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
expmgr.fit(model, x[:1400], y[:1400], batch_size=32, epochs=5, validation_data=(x[1400:], y[1400:]))
print("test:", model.evaluate(x[1400:], y[1400:], verbose=0))
