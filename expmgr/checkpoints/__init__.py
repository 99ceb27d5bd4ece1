"""A checkpoint in a model_dir: its manifest, its signature, its index, and which are kept. No TensorFlow."""
