"""Comparing variants: whether they are comparable, whether one is better, and what differs."""
