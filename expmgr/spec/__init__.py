"""What an experiment is, as spec.yaml says it: read, checked, explained, changed. No TensorFlow."""
