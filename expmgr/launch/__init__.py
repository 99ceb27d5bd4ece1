"""Planning, starting and following runs. TensorFlow is imported only in the worker process."""
