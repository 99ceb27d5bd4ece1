"""The limits of a spec: bytes, depth, number of values, and which values a record can contain."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from expmgr.disk.json_text import LARGEST_INTEGER
from expmgr.escape import SURROGATE

#: Of a spec file, and of all its text after aliases are expanded.
MOST_BYTES = 1_000_000
#: Of a spec file. Each line takes its time, also an empty one or a comment.
MOST_LINES = 20_000
#: Mappings and lists inside each other.
MOST_DEPTH = 50
#: Mappings, lists, keys and single values, after aliases are expanded.
MOST_VALUES = 10_000
#: What ends a line of YAML.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: What no path, no environment variable and no UTF-8 holds.
_NO_TEXT = re.compile(f"\0|{SURROGATE.pattern}")


class ValueProblem(ValueError):
    """A value that no spec may contain; `path` are the keys that lead to it."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def count_lines(text: str) -> int:
    """The lines of a YAML text, whatever ends them."""
    return 1 + sum(1 for _ in _BREAK.finditer(text))


def check_values(values: Any) -> None:
    """Raise `ValueProblem` for the first value in `values`, plain Python as of YAML or JSON, that no spec may contain."""
    for count, (path, value) in enumerate(_walked(values, ()), 1):
        if len(path) > MOST_DEPTH:
            raise ValueProblem(path[:1], f"a spec has at most {MOST_DEPTH} levels of mappings and lists")
        if count > MOST_VALUES:
            raise ValueProblem((), f"the spec has more than {MOST_VALUES:,} values")
        if isinstance(value, str):
            if found := _NO_TEXT.search(value):
                raise ValueProblem(path, f"contains U+{ord(found[0]):04X}, which no file can hold as text")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueProblem(path, f"input should be a finite number, is {value}")
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueProblem(path, f"is an integer of {value.bit_length()} bits; a spec takes at most 64")


def _walked(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each key and each value in `value`, with the keys that lead to it. A key has the path of the mapping that it is in."""
    yield path, value
    if len(path) > MOST_DEPTH:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield path, key
            yield from _walked(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _walked(item, (*path, str(number)))


def shown_path(path: Sequence[str]) -> str:
    """Keys as a dotted path on a line; what is too long to be shown is cut."""
    parts = [key if key.isprintable() else ascii(key) for key in path[:8]]
    shown = [key if len(key) <= 60 else f"{key[:57]}..." for key in parts]
    return ".".join(shown) + ("..." if len(path) > len(shown) else "")
