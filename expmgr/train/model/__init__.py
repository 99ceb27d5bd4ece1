"""A Keras model: how it is built, its optimizer, its steps, its variables and checkpoints."""
