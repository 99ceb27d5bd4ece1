"""How runs are started and followed. Never imports TensorFlow: that is the worker's, a process of its own."""
