"""The one door to git: only these files import git."""
