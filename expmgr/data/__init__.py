"""The data that a spec names: CSV tables, files and URLs, and their places on this machine. No TensorFlow."""
