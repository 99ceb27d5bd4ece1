"""Computes the signature of a live model: fingerprints, configuration, data, code and probe."""
