"""All use of git: only this folder imports GitPython."""
