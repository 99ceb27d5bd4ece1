"""Wide and deep: crossed categories with a weight each, beside embeddings and numbers through layers."""

import keras

NUMBERS = {"area_m2": (98.0, 36.0), "rooms": (4.1, 1.7), "year": (1961.0, 36.0), "distance_km": (8.0, 8.0)}
WORDS = {
    "kind": ["flat", "terrace", "villa", "farm"],
    "heating": ["gas", "district", "pump"],
    "region": [f"r{number:02d}" for number in range(24)],
}


def build_model(params: dict) -> keras.Model:
    inputs = {name: keras.Input((), name=name) for name in NUMBERS}
    inputs |= {name: keras.Input((), name=name, dtype="string") for name in WORDS}
    numbers = [
        keras.layers.Normalization(axis=None, mean=mean, variance=scale**2, name=f"scale_{name}")(
            keras.layers.Reshape((1,), name=f"column_{name}")(inputs[name])
        )
        for name, (mean, scale) in NUMBERS.items()
    ]
    places = {
        name: keras.layers.StringLookup(vocabulary=words, name=f"words_{name}")(inputs[name])
        for name, words in WORDS.items()
    }
    wide = [
        keras.layers.CategoryEncoding(len(words) + 1, output_mode="one_hot", name=f"wide_{name}")(places[name])
        for name, words in WORDS.items()
    ]
    crossed = keras.layers.HashedCrossing(200, output_mode="one_hot", name="kind_x_region")(
        (inputs["kind"], inputs["region"])
    )
    parts = [keras.layers.Concatenate(name="wide")([*wide, crossed])]
    if params["hidden_units"]:
        deep = keras.layers.Concatenate(name="deep_inputs")(
            [
                *numbers,
                *(
                    keras.layers.Embedding(len(words) + 1, params["embedding"], name=f"embedding_{name}")(places[name])
                    for name, words in WORDS.items()
                ),
            ]
        )
        for number, units in enumerate(params["hidden_units"]):
            deep = keras.layers.Dense(units, activation="relu", name=f"deep_{number}")(deep)
        parts.append(deep)
    else:
        parts += numbers
    both = keras.layers.Concatenate(name="wide_and_deep")(parts)
    return keras.Model(inputs, keras.layers.Dense(1, name="log_price")(both), name="houses")
