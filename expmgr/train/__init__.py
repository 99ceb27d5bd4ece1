"""The worker: where TensorFlow runs, in its own process, which `launch` starts."""
