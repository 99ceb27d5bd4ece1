"""Checkpoints in the store: sent, found, fetched."""
