"""A Keras model and its variables."""
