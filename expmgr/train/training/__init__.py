"""One training from ready to its end."""
