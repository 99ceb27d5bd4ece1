"""Starting runs and following them. Never imports TensorFlow: that is the worker's, a process of its own."""
