"""An experiment manager for TensorFlow: a git branch and a model_dir for every variant."""

__version__ = "0.1.0"
