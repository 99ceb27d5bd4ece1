"""Words and how often they come, then one layer. The vocabulary is learned from the training messages."""

import data
import keras


def build_model(params: dict) -> keras.Model:
    words = keras.layers.TextVectorization(
        max_tokens=params["most_words"], ngrams=params["ngrams"], output_mode="count", name="words"
    )
    texts, _kinds = data.messages(1500, 1)
    words.adapt(list(texts))
    inputs = keras.Input((), dtype="string", name="text")
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(words(inputs)), name="messages")
