"""The spec of an experiment, spec.yaml: its parts, how it is read, validated and changed. No TensorFlow."""
