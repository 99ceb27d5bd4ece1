"""Changes a spec as text: only the lines of the keys that are set, so that diffs stay small.

ruamel keeps comments and order, but lays the whole file out anew; columns that a person aligned are lost. So the new value
is written where the marks of the old one are. Whoever calls checks the result: a text that says something else than was
meant (`None`, or another document) is laid out by ruamel after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode

from expmgr.spec.yaml_nodes import yaml_reader


def with_value(text: str, keys: Sequence[str], value: str | None) -> str | None:
    """`text` with the value at the path `keys` replaced by the YAML `value`, or, where that is None, taken out.

    None where it cannot be done line by line.
    """
    try:
        place: Any = yaml_reader().compose(text)
    except (YAMLError, ValueError):
        return None
    for depth, key in enumerate(keys):
        if not isinstance(place, MappingNode):
            return None
        at = next((at for at, (name, _) in enumerate(place.value) if name.value == key), None)
        if at is None:
            return text if value is None else _added(text, place, _nested(keys[depth:], value))
        if depth == len(keys) - 1:
            return _without(text, place, at) if value is None else _replaced(text, place.value[at][1], value)
        place = place.value[at][1]
    return None


def _nested(keys: Sequence[str], value: str) -> str:
    """`b.c=1` as `b: {c: 1}`."""
    first, *rest = keys
    return f"{first}: {{{_nested(rest, value)}}}" if rest else f"{first}: {value}"


def _is_block(node: Any) -> bool:
    return isinstance(node.value, list) and not node.flow_style


def _replaced(text: str, node: Any, value: str) -> str | None:
    if _is_block(node) or "\n" in value:
        return None
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _added(text: str, mapping: MappingNode, entry: str) -> str | None:
    if "\n" in entry:
        return None
    if not _is_block(mapping):
        end = mapping.end_mark.index - 1  # before the closing brace
        return text[:end].rstrip() + (", " if mapping.value else "") + entry + text[end:]
    last = mapping.value[-1][1]
    while _is_block(last):
        last = last.value[-1][1] if isinstance(last, MappingNode) else last.value[-1]
    line_end = text.find("\n", last.end_mark.index)
    indent = " " * mapping.value[0][0].start_mark.column
    if line_end < 0:
        return f"{text}\n{indent}{entry}\n"
    return f"{text[:line_end]}\n{indent}{entry}{text[line_end:]}"


def _without(text: str, mapping: MappingNode, at: int) -> str | None:
    name, value = mapping.value[at]
    if _is_block(mapping):
        if _is_block(value) or len(mapping.value) == 1:
            return None
        begin = text.rfind("\n", 0, name.start_mark.index) + 1
        line_end = text.find("\n", value.end_mark.index)
        return text[:begin] + (text[line_end + 1 :] if line_end >= 0 else "")
    if at + 1 < len(mapping.value):
        return text[: name.start_mark.index] + text[mapping.value[at + 1][0].start_mark.index :]
    begin = mapping.value[at - 1][1].end_mark.index if at else name.start_mark.index
    return text[:begin] + text[value.end_mark.index :]
