"""Variants: branches, their specs, the code that they reach, and the examples that ship."""
