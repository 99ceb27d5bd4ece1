"""`make mutants`: what it knows of the source. The rest of it runs every night."""

from __future__ import annotations

import ast

import pytest

from mutants.known import known
from mutants.lines import function_at, functions, left_out, statement_lines
from mutants.verdict import NOT_TRIED, verdict
from world import ROOT

SOURCE = """\
import functools
LIMIT: int | None = 3
Name = int | str


@functools.cache
def outer(value: int | None = 5 - 2) -> int | None:
    if value and (
        value > 1
    ):
        return 1
    elif value < 0:
        return 2
    for one in range(
        value
    ):
        print(
            one,
            value,
        )

    def inner() -> bool:
        assert value != 3
        return isinstance(value, int | str)

    return inner()


class Part:
    limit = 4
    _BUSY_S = 5

    def __repr__(self) -> str:
        return "a" + "b"
"""


def test_every_equivalent_mutant_is_still_in_the_source() -> None:
    for one, reason in known().items():
        source = (ROOT / one.file).read_text(encoding="utf-8")
        lines = [" ".join(line.split()) for line in source.splitlines()]
        wanted = one.line.splitlines()
        places = [at + 1 for at in range(len(lines)) if lines[at : at + len(wanted)] == wanted]
        found = {function_at(functions(source), place + number) for place in places for number in range(len(wanted))}
        assert one.function in found, one
        assert one.becomes != one.line
        assert len(reason) > 20, one


def test_where_a_line_is() -> None:
    found = functions(SOURCE)
    assert [function_at(found, line) for line in (2, 6, 7, 12, 23, 29, 33)] == [
        "<module>", "outer", "outer", "outer", "outer.inner", "Part", "Part.__repr__",
    ]  # fmt: skip


def test_the_lines_that_a_test_has_to_reach() -> None:
    """Those of a statement; of one that runs on import, those of the function or the module that it is for."""
    everywhere = set(range(1, 35))
    assert statement_lines(SOURCE, 2) == statement_lines(SOURCE, 30) == everywhere
    assert statement_lines(SOURCE, 6) == statement_lines(SOURCE, 7) == set(range(8, 27))
    assert statement_lines(SOURCE, 8) == statement_lines(SOURCE, 9) == {8, 9, 10}
    assert statement_lines(SOURCE, 12) == {12}
    assert statement_lines(SOURCE, 15) == {14, 15, 16}
    assert statement_lines(SOURCE, 19) == {17, 18, 19, 20}
    assert statement_lines(SOURCE, 24) == {24}


def test_what_is_left_out() -> None:
    """Types, asserts, caches and texts of objects: a mutant there says nothing about the tests."""
    spans = list(left_out(ast.parse(SOURCE)))
    lines = SOURCE.splitlines()

    def is_left_out(line: int, text: str) -> bool:
        place = (line, lines[line - 1].index(text))
        return any(first <= place < last for first, last in spans)

    types = [(2, "|"), (3, "|"), (7, "| None ="), (7, "| None:"), (24, "|")]
    for line, text in (*types, (6, "@"), (23, "!="), (31, "5"), (34, "+")):
        assert is_left_out(line, text), (line, text)
    for line, text in ((2, "3"), (7, "5"), (7, "-"), (8, "and"), (9, ">"), (14, "range"), (30, "4")):
        assert not is_left_out(line, text), (line, text)


@pytest.mark.parametrize(
    ("code", "outcomes", "collects", "wanted"),
    [
        (0, ["0.1 passed a::b"], True, None),
        (None, ["0.1 passed a::b"], True, "out of time"),
        (1, ["0.1 passed a::b", "0.1 failed a::c d"], True, "a::c d"),
        (1, ["0.1 passed a::b"], True, NOT_TRIED),  # a plugin failed
        (2, [], True, "on import"),
        (4, [], True, "on import"),
        (2, [], False, NOT_TRIED),
        (4, [], False, NOT_TRIED),  # a test has another name now
        (2, ["0.1 failed a::c"], False, NOT_TRIED),  # interrupted
        (3, ["0.1 failed a::c"], True, NOT_TRIED),
        (5, [], True, NOT_TRIED),
        (-9, ["0.1 failed a::c"], True, NOT_TRIED),
        (137, [], True, NOT_TRIED),
    ],
)
def test_what_kills_a_mutant(code: int | None, outcomes: list[str], collects: bool, wanted: str | None) -> None:
    assert verdict(code, outcomes, lambda: collects) == wanted
