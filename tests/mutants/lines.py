"""The lines of a module: which function they are in, which statement, and which of them no mutant is planted in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

Place = tuple[int, int]
"""Line, from 1, and column, from 0, of the first character that changes."""

_CACHES = ("cache", "lru_cache", "functools.cache", "functools.lru_cache")
_GUARDS = ("frozen", "slots", "strict", "kw_only")  # against mistakes in our own code, which no input reaches
_FUNCTIONS = ("__repr__", "__str__")
_WAITS = r"_?([A-Z_]+_)?(TRIES|S|SECS)"  # how long or how often something is tried: another number does as well
_TYPES = ("isinstance", "issubclass", "cast", "NewType", "TypeVar")


def functions(source: str) -> dict[tuple[int, int], str]:
    """The qualified name of each function and class by its first and last line, outer ones first; decorators belong to it."""
    found: dict[tuple[int, int], str] = {}

    def look(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}".lstrip(".")
                first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                found[first, child.end_lineno or first] = name
            look(child, name)

    look(ast.parse(source), "")
    return found


def function_at(found: dict[tuple[int, int], str], line: int) -> str:
    """The innermost one around a line; `<module>` outside of all."""
    around = [(last - first, name) for (first, last), name in found.items() if first <= line <= last]
    return min(around)[1] if around else "<module>"


def left_out(tree: ast.AST) -> Iterator[tuple[Place, Place]]:
    """Spans in which a mutant says nothing about the tests: types, asserts of types, texts of objects, caches, waits."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        match node:
            case ast.AnnAssign() | ast.arg():
                parts = [node.annotation]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                parts = [node.returns, *(one for one in node.decorator_list if _name(one) in _CACHES)]
                parts += [node] if node.name in _FUNCTIONS else []
            case ast.Assign() if re.fullmatch(_WAITS, ast.unparse(node.targets[0])):
                parts = [node]
            case ast.Call() if _name(node.func) in _TYPES:
                parts = [*node.args]
            case ast.keyword() if node.arg in _GUARDS:
                parts = [node.value]
            case ast.If() if _name(node.test) == "TYPE_CHECKING":
                parts = [node]
            case ast.Assert():
                parts = [node]
            case ast.Module():
                parts = [one.value for one in node.body if isinstance(one, ast.Assign) and _is_alias(one.value)]
        for part in parts:
            if isinstance(part, ast.expr | ast.stmt):
                # Of a decorator, cosmic-ray's place is its `@`.
                yield (part.lineno, max(0, part.col_offset - 1)), (part.end_lineno or 0, part.end_col_offset or 0)


def _name(node: ast.AST) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def _is_alias(node: ast.AST) -> bool:
    """`A | B` of types, at the top of a module."""
    return isinstance(node, ast.BinOp | ast.Subscript) and not any(isinstance(one, ast.Call) for one in ast.walk(node))


def statement_lines(source: str, line: int) -> set[int]:
    """The lines of the statement around `line`: of one with a body, those before it; of what runs on import, the whole.

    A default or a decorator runs on import, but tells in the body of its function; a line of a class or a module, anywhere.
    """
    tree = ast.parse(source)
    inner: ast.stmt | None = None
    owner: ast.AST = tree
    for node in ast.walk(tree):  # outer ones first
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
            if first <= line <= (node.end_lineno or first):
                if inner is not None and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    owner = inner
                inner = node
    if inner is None:
        return set()
    body = getattr(inner, "body", None)
    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
        return set(range(inner.body[0].lineno, (inner.end_lineno or 0) + 1))
    if not isinstance(owner, ast.FunctionDef | ast.AsyncFunctionDef):
        return set(range(1, len(source.splitlines()) + 1))
    last = body[0].lineno - 1 if isinstance(body, list) and body else inner.end_lineno or 0
    if line > last:  # `else`, `except`: between two bodies
        return {line}
    return set(range(inner.lineno, max(last, inner.lineno) + 1))
