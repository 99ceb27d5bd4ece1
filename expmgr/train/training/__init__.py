"""One training from `ready` to its end: saving, evaluating, selecting, reporting."""
