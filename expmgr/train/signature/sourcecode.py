"""A digest of the code that a model is made of, used if its graph cannot be traced.

Comments, docstrings and formatting do not count. The form of a tree is our own: `ast.dump` differs between versions of
Python.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from expmgr.train.signature.leaves import digest_of

#: Packages whose code is known by its version.
_LIBRARIES = frozenset({"keras", "tensorflow", "numpy", "builtins", "expmgr"})
#: Fields of a syntax tree that versions of Python have added without a meaning of their own.
_SILENT_FIELDS = frozenset({"type_comment", "kind", "type_params", "type_ignores", "ctx"})


def code_of(model: Any, root: Path | None = None) -> str | None:
    """Digest of the modules that the model's own classes and functions come from, and of what these import beside them;
    with `root`, the checkout, of what they import from anywhere in it.

    None for a model that is made of Keras' layers alone. What has no source (a class of a notebook's cell that is gone,
    an extension) counts by its name.
    """
    classes: set[Any] = {type(layer) for layer in model._flatten_layers() if not _is_library(type(layer).__module__)}
    for part in (getattr(model, "loss", None), getattr(model, "optimizer", None)):
        if part is not None and not isinstance(part, (str, list, dict)) and not _is_library(_module_of(part)):
            classes.add(part if inspect.isfunction(part) else type(part))
    if not classes:
        return None
    return code_behind(classes, root)


def code_behind(parts: Iterable[Any], root: Path | None = None) -> str:
    """Digest of the modules of some classes and functions, and of what these import."""
    texts: dict[str, str] = {}
    for one in parts:
        for name, source in _sources(one, root):
            texts[name] = source
    return digest_of(part for name in sorted(texts) for part in (name, tree_digest(texts[name])))


def code_of_parts(parts: Iterable[Any]) -> str:
    """Digest of the syntax trees of some functions and classes, and of what they name of their own modules: functions,
    classes and plain values."""
    texts: dict[str, str] = {}
    queue = [inspect.unwrap(getattr(one, "__func__", one)) for one in parts]
    while queue:
        one = queue.pop()
        name = f"{getattr(one, '__module__', '')}.{getattr(one, '__qualname__', type(one).__name__)}"
        if name in texts:
            continue
        try:
            texts[name] = tree_digest(inspect.getsource(one))
        except (OSError, TypeError, SyntaxError):
            texts[name] = name
            continue
        places = (
            vars(sys.modules.get(one.__module__, object)) if isinstance(one, type) else getattr(one, "__globals__", {})
        )
        for word in sorted(set(re.findall(r"[A-Za-z_]\w*", inspect.getsource(one)))):
            value = places.get(word)
            if isinstance(value, (bool, int, float, str, tuple)):
                texts[f"{name} {word}"] = repr(value)
            elif (inspect.isfunction(value) or inspect.isclass(value)) and not _is_library(value.__module__):
                queue.append(value)
    return digest_of(part for name in sorted(texts) for part in (name, texts[name]))


def _module_of(part: Any) -> str:
    return str(part.__module__ if inspect.isfunction(part) else type(part).__module__)


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


def _sources(one: Any, checkout: Path | None) -> Iterator[tuple[str, str]]:
    """Name and text of the module of a class or function, and of those that it imports from the checkout, or from the
    same folder or below."""
    try:
        file = inspect.getsourcefile(one)
        text = Path(file).read_text(encoding="utf-8") if file and Path(file).is_file() else inspect.getsource(one)
    except (OSError, TypeError):
        yield f"{one.__module__}.{one.__qualname__}", ""
        return
    if file is None or not Path(file).is_file():
        yield f"{one.__module__}.{one.__qualname__}", text
        return
    root = Path(file).resolve().parent
    if checkout is not None and root.is_relative_to(checkout.resolve()):
        root = checkout.resolve()
    queue, seen = [(one.__module__, text)], set()
    while queue:
        name, text = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name, text
        for imported in _imports(text):
            module = sys.modules.get(imported)
            path = Path(str(getattr(module, "__file__", None) or "/"))
            if path.suffix == ".py" and path.resolve().is_relative_to(root):
                queue.append((imported, path.read_text(encoding="utf-8")))


def _imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tree_digest(text: str) -> str:
    """Digest of the syntax tree of `text`."""
    return digest_of(_form(ast.parse(textwrap.dedent(text))))


def _form(node: Any) -> Iterator[str]:
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            if name in _SILENT_FIELDS or value is None or value == []:
                continue
            yield name
            yield from _form(_without_docstring(node, value) if name == "body" else value)
        yield "end"
    elif isinstance(node, list):
        for one in node:
            yield from _form(one)
        yield "end of list"
    else:
        yield f"{type(node).__name__} {node!r}"


def _without_docstring(node: ast.AST, body: Any) -> Any:
    if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or not body:
        return body
    first = body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body
