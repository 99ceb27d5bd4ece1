"""Checkpoints on disk: the model_dir, its manifest, signatures, indexes, and what is kept. No TensorFlow."""
