"""The checks whether variants are comparable: one table, and one file per subject."""
