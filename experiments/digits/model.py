"""A small convolutional network."""

import keras
from pydantic import BaseModel, ConfigDict, Field


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")

    filters: int = Field(default=16, gt=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)


def build_model(params: Params) -> keras.Model:
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(params.filters, 3, padding="same", activation="relu", name="conv_0")(inputs)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = keras.layers.Conv2D(2 * params.filters, 3, activation="relu", name="conv_1")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(params.dropout, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="digits")
