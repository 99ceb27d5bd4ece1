"""May this checkpoint enter that model? Two signatures in, a verdict and its reasons out. Pure."""
