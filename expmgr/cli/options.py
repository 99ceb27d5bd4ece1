"""Parses the values of options that several commands share: seeds and rule ids."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import typer

from expmgr.errors import BadArgument

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?\Z")
_MOST_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """`0-2,7` as [0, 1, 2, 7], in the order given, each once."""
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if not match:
            raise typer.BadParameter(f"{part!r} is neither a seed nor a range of seeds, such as 0-4 or 0,3,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise typer.BadParameter(f"{part!r}: the last seed is smaller than the first")
        if last - first >= _MOST_SEEDS:
            raise typer.BadParameter(f"{part!r} has more than {_MOST_SEEDS} seeds")
        seeds.extend(range(first, last + 1))
    return list(dict.fromkeys(seeds))


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """An argument that makes no sense is a mistake in what was typed: typer says so, and how the command is used."""
    try:
        yield
    except BadArgument as error:
        raise typer.BadParameter(error.message) from None


def parse_rules(ids: Sequence[str], variant: str) -> list[str]:
    """The ids of the rules that `--allow` names."""
    from expmgr.guard.allowing import allowed_rules

    with usage():
        return allowed_rules(ids, variant)


def parse_pairs(maps: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`--map OLD=NEW` as pairs."""
    pairs = []
    for one in maps:
        old, equals, new = one.partition("=")
        if not (old and equals and new):
            raise typer.BadParameter(f"--map takes OLD=NEW, not {one!r}")
        pairs.append((old, new))
    return tuple(pairs)
