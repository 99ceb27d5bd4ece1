"""Conditions and order of a list of variants: parses `--where` and `--sort`, and selects the rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expmgr.errors import BadArgument, ExpmgrError, did_you_mean

if TYPE_CHECKING:
    from expmgr.api.variant_row import VariantRow

_CONDITION = re.compile(
    r"^\s*(?P<key>[A-Za-z_][\w./-]*?)\s*(?P<operator>!=|>=|<=|==|=|>|<|~)\s*(?P<value>.*?)\s*$", re.DOTALL
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, two: bool(one == two),
    "!=": lambda one, two: bool(one != two),
    ">": lambda one, two: bool(one > two),
    ">=": lambda one, two: bool(one >= two),
    "<": lambda one, two: bool(one < two),
    "<=": lambda one, two: bool(one <= two),
}


class NoSuchKey(ExpmgrError):
    """A key that neither a list nor a spec has."""


@dataclass(frozen=True)
class Condition:
    """A key, an operator and a value: `model.hidden_units=[20, 20]`."""

    key: str
    operator: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises `BadArgument` for what is no condition."""
        from expmgr.spec.yaml_file import yaml_value

        found = _CONDITION.match(text)
        if found is None:
            raise BadArgument(f"a condition is KEY=VALUE (or != > >= < <= ~), not {text[:200]!r}")
        value = found["value"] if found["operator"] == "~" else yaml_value(found["value"], f"condition {text[:200]}")
        return cls(found["key"], "=" if found["operator"] == "==" else found["operator"], value)

    def holds(self, value: Any) -> bool:
        """Whether it holds of a value; of none only `!=` does, and `=null`."""
        if self.operator == "~":
            return value is not None and str(self.value) in str(value)
        if value is None and self.operator not in ("=", "!="):
            return False
        try:
            return _COMPARE[self.operator](_plain(value), _plain(self.value))
        except TypeError:  # a word is neither more nor less than a number
            return False


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Keyed:
    """A line of the list with what can be asked of it."""

    row: VariantRow
    flat_spec: dict[str, Any]
    """The variant's resolved spec: dotted key to value."""

    def value(self, key: str) -> Any:
        """What `key` is: of the line, a metric's mean, or of the spec."""
        if key == self.row.metric:
            return self.row.mean
        if key in _OF_ROW:
            return _OF_ROW[key](self.row)
        return self.flat_spec.get(key)


#: What a line has, by the name under which it can be asked.
_OF_ROW: dict[str, Callable[[VariantRow], Any]] = {
    "variant": lambda row: row.variant,
    "from": lambda row: row.base,
    "why": lambda row: row.why,
    "std": lambda row: row.std,
    "seeds": lambda row: len(row.seeds),
    "runs": lambda row: sum(row.runs.values()),
    "status": lambda row: ", ".join(sorted(row.runs)) or None,
    "last_run_at": lambda row: row.last_run_at,
}


def chosen(
    rows: Sequence[VariantRow],
    flat_spec_of: Callable[[str], dict[str, Any]],
    *,
    where: Sequence[str] = (),
    sort: str | None = None,
    limit: int | None = None,
) -> list[VariantRow]:
    """The lines that are asked for, in the order that is asked for. `flat_spec_of` gives a variant's flat spec, and is called
    only where a key may be of a spec. Raises `NoSuchKey` with the nearest one."""
    conditions = [Condition.parse(text) for text in where]
    keys = [*(one.key for one in conditions), *([sort.lstrip("+-")] if sort else [])]
    metrics = {str(row.metric) for row in rows if row.metric}
    with_spec = any(key not in _OF_ROW and key not in metrics for key in keys)
    lines = [Keyed(row, flat_spec_of(row.variant) if with_spec else {}) for row in rows]
    for key in keys:
        _require_known(key, lines, metrics)
    found = [line for line in lines if all(one.holds(line.value(one.key)) for one in conditions)]
    if sort:
        found = _sorted(found, sort.lstrip("+-"), is_falling=sort.startswith("-"))
    return [line.row for line in (found if limit is None else found[:limit])]


def _sorted(lines: Sequence[Keyed], key: str, *, is_falling: bool) -> list[Keyed]:
    """By value; what has none comes last, numbers before words."""
    known = [line for line in lines if line.value(key) is not None]
    known.sort(key=lambda line: _rank(line.value(key)), reverse=is_falling)
    return [*known, *(line for line in lines if line.value(key) is None)]


def _rank(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))


def _require_known(key: str, lines: Sequence[Keyed], metrics: set[str]) -> None:
    known = {*_OF_ROW, *metrics, *(name for line in lines for name in line.flat_spec)}
    if lines and key not in known:
        others = ", ".join(sorted({*_OF_ROW, *metrics}))
        raise NoSuchKey(
            f"there is no key {key} to ask for",
            left_alone="Nothing was changed.",
            hint=did_you_mean(key, known, f"a key of the spec, or one of {others}"),
        )
