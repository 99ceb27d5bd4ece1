"""Parses JSON that another clone or program may have written, within limits that every reader survives."""

from __future__ import annotations

import json
import math
from typing import Any

from expmgr.escape import is_text

#: Objects and lists inside each other: more than expmgr writes, and less than the stack of any reader.
MOST_DEPTH = 100
#: Larger integers are no steps, seeds or sizes, and cannot be a float, a column of SQLite or a cell of a table.
LARGEST_INTEGER = 2**64 - 1


class NotJson(ValueError):
    """The text is not JSON, or JSON that no expmgr writes."""


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text in UTF-8; `NotJson` for all else, also for what Python's parser fails on otherwise."""
    try:
        return json.loads(content.decode("utf-8") if isinstance(content, bytes) else content)
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except ValueError as error:
        raise NotJson(str(error).split("\n")[0][:200]) from None


def parse_foreign_json(content: bytes | str) -> Any:
    """As `parse_json`, of JSON that another person may have written: `NotJson` too for what is nested deeply, for integers
    of more than 64 bits, for numbers that are not finite, and for text with halves of surrogate pairs."""
    values = parse_json(content)
    check_json(values)
    return values


def check_json(values: Any) -> None:
    """Raise `NotJson` unless every reader of expmgr can hold, write and print `values`, which are of JSON."""
    level, depth = [values], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise NotJson(f"it is nested more than {MOST_DEPTH} levels deep")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value)
                inner.extend(value.values())
            elif isinstance(value, (list, tuple)):
                inner.extend(value)
            else:
                _check(value)
        level = inner


def _check(value: Any) -> None:
    if isinstance(value, str):
        if not is_text(value):
            raise NotJson("it has text with half of a surrogate pair")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NotJson(f"it has the number {value}, which JSON does not have")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise NotJson(f"it has an integer of {value.bit_length()} bits; 64 are the most")
