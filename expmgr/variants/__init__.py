"""A variant: a branch, its spec, and the code that it reaches."""
