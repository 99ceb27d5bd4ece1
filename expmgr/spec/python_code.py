"""Parses Python that another person may have written, without running it."""

from __future__ import annotations

import ast


class NotPython(ValueError):
    """Not Python, or more of it in one expression than Python's own parser can take. `line` is None if none is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def parse_python(content: bytes) -> ast.Module:
    """The syntax of a module; `NotPython` for whatever Python's parser fails on."""
    try:
        return ast.parse(content)
    except SyntaxError as error:
        raise NotPython(str(error.msg)[:200], error.lineno) from None
    except (RecursionError, MemoryError):
        raise NotPython("an expression is nested too deeply") from None
    except ValueError as error:  # such as a zero byte
        raise NotPython(str(error)[:200]) from None


def text_of(node: ast.AST) -> str:
    """`node` as Python; empty if it is nested too deeply, or has a number that is too long to be written."""
    try:
        return ast.unparse(node)
    except (RecursionError, MemoryError, ValueError):
        return ""
