"""The checks whether a comparison makes sense: one table, and one file per subject."""
