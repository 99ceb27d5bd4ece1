"""The store of checkpoints: where it is, what it contains, upload and fetch."""
