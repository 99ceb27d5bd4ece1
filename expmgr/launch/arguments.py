"""Checks the values that a command or a Python method was given, before anything is fetched or started."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from expmgr.errors import BadArgument


def whole_number(name: str, value: object, least: int = 0) -> int:
    """`value` as an int, of numpy's types too. Raises `BadArgument` if it is no whole number, or less than `least`."""
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise BadArgument(f"{name} is a whole number, {least} or more, not {value!r}")
    return number


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """Raises `BadArgument` if `value` is none of `choices`."""
    if value not in choices:
        *first, last = choices
        raise BadArgument(f"{name} is {', '.join(first)} or {last}, not {value!r}")


def name_pairs(name: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Raises `BadArgument` if a pair of names is incomplete, or only one of the two is a prefix `OLD/*`."""
    for pair in pairs:
        if not all(isinstance(one, str) and one for one in pair) or len({one.endswith("/*") for one in pair}) > 1:
            raise BadArgument(f"{name} takes OLD=NEW, or OLD/*=NEW/*, not {'='.join(map(str, pair))!r}")
