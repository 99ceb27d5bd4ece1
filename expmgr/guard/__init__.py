"""The guard: decides from two signatures whether a checkpoint may be restored into a model. Pure."""
