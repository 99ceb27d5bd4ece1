"""Composes the nodes of a YAML text within limits, before anything expands an alias.

Somebody else may have pushed the text. ruamel shares the node of an anchor among its aliases, so 500 bytes can stand for a
billion values; they are counted here as they would be after expansion.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent, MappingStartEvent, ScalarEvent, SequenceStartEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.scanner import RoundTripScanner

from expmgr.spec.limits import MOST_BYTES, MOST_DEPTH, MOST_VALUES, shown_path

_TAG = "tag:yaml.org,2002:"
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
#: What each tag of a single value looks like in YAML 1.2, its underscores taken out.
_FORMS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?(?:0b[01]+|0o[0-7]+|0x[0-9a-fA-F]+|[0-9]+)"),
    "float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}
#: A number with more characters is not read: the largest integer has 64 digits in binary.
_MOST_OF_A_NUMBER = 400


class NotInSpecs(MarkedYAMLError):
    """YAML that a spec does not take; `key` is the dotted path of the key that has it."""

    def __init__(self, key: str, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)
        self.key = key


def yaml_reader() -> YAML:
    """ruamel's reader and writer of YAML 1.2, comments and order kept, within the limits of a spec."""
    yaml = YAML(typ="rt")  # YAML 1.2: 1e-3 is a number, no is a word, a key that is there twice is an error
    yaml.Scanner = _Scanner
    yaml.Composer = _Composer
    yaml.Constructor = _Constructor
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


class _Scanner(RoundTripScanner):
    """Reads ahead from an open bracket for 1,024 characters, and looks at each open one for each character of them."""

    def fetch_flow_collection_start(self, *arguments: Any, **named: Any) -> None:
        if self.flow_level >= MOST_DEPTH:
            raise NotInSpecs(
                "", f"a spec has at most {MOST_DEPTH} levels of mappings and lists", self.reader.get_mark()
            )
        super().fetch_flow_collection_start(*arguments, **named)


class _Constructor(RoundTripConstructor):
    """Dates, `=` and a `<<` that is no key are text, as in YAML 1.2: ruamel would print them in another form."""


for _name_of_tag in ("timestamp", "value", "merge"):
    _Constructor.add_constructor(f"{_TAG}{_name_of_tag}", RoundTripConstructor.construct_yaml_str)


class _Composer(Composer):
    """Counts what aliases stand for, and refuses what is no plain value."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self.warn_double_anchors = False  # YAML allows them
        self._path: list[str] = []
        self._depth = self._deepest = self._values = self._characters = 0
        self._of_anchor: dict[str, tuple[int, int, int] | None] = {}
        """Levels, values and characters of what an anchor names; None while it is open."""

    def compose_document(self) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, DocumentStartEvent) and event.version is not None and tuple(event.version) != (1, 2):
            raise NotInSpecs("", "a spec is YAML 1.2: take the %YAML line out", event.start_mark)
        return super().compose_document()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        is_key = isinstance(parent, MappingNode) and index is None
        self._path.append("" if is_key else _name(index))
        self._depth += 1
        before = self._values, self._characters, self._deepest
        self._deepest = self._depth
        if isinstance(event, AliasEvent):
            self._count_alias(event)
        else:
            self._values += 1
            self._characters += len(event.value) if isinstance(event, ScalarEvent) else 0
            self._check_tag(event)
            if event.anchor is not None:
                self._of_anchor[event.anchor] = None
        self._check_limits(event)
        node = super().compose_node(parent, index)
        if isinstance(event, ScalarEvent):
            self._check_scalar(node, event)
        if is_key and not isinstance(node, ScalarNode):
            raise self._not_taken("a key is a single value, not a mapping or a list", event)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            values, characters, _ = before
            levels = self._deepest - self._depth
            self._of_anchor[event.anchor] = levels, self._values - values, self._characters - characters
        self._deepest = max(self._deepest, before[2])
        self._depth -= 1
        self._path.pop()
        return node

    def _count_alias(self, event: Any) -> None:
        if event.anchor not in self._of_anchor:
            return  # ruamel says so
        told = self._of_anchor[event.anchor]
        if told is None:
            raise self._not_taken(f"*{event.anchor} is inside of the value that it names", event)
        levels, values, characters = told
        self._deepest = self._depth + levels
        self._values += values
        self._characters += characters

    def _check_limits(self, event: Any) -> None:
        if self._deepest > MOST_DEPTH:
            raise self._not_taken(f"a spec has at most {MOST_DEPTH} levels of mappings and lists", event)
        if self._values > MOST_VALUES:
            raise self._not_taken(f"a spec has at most {MOST_VALUES:,} values, with aliases expanded", event)
        if self._characters > MOST_BYTES:
            raise self._not_taken(f"a spec has at most {MOST_BYTES:,} characters, with aliases expanded", event)

    def _check_tag(self, event: Any) -> None:
        tag = None if event.ctag is None else str(event.ctag)
        if tag not in (None, "!", *(f"{_TAG}{one}" for one in _TAGS)):
            shown = _short(tag.replace(_TAG, "!!")) if tag else ""
            raise self._not_taken(f"the tag {shown} is not taken: a spec contains plain values only", event)
        name = tag.removeprefix(_TAG) if tag else "!"
        expected = {"seq": SequenceStartEvent, "map": MappingStartEvent}.get(name, ScalarEvent)
        if name != "!" and not isinstance(event, expected):
            raise self._not_taken(f"is not what its tag !!{name} says", event)

    def _check_scalar(self, node: Any, event: Any) -> None:
        kind, value = str(node.tag).removeprefix(_TAG), node.value
        if kind not in _FORMS:
            return
        if len(value) > _MOST_OF_A_NUMBER:
            told = f"a number with {len(value):,} characters; a spec takes at most {_MOST_OF_A_NUMBER}"
            raise self._not_taken(f"is {told}", event)
        if not _FORMS[kind].fullmatch(value.replace("_", "")):
            why = f"does not fit its tag !!{kind}" if event.ctag is not None else "is not a number: put it in quotes"
            raise self._not_taken(f"{_short(value)} {why}", event)

    def _not_taken(self, problem: str, event: Any) -> NotInSpecs:
        return NotInSpecs(shown_path([part for part in self._path if part]), problem, event.start_mark)


def _name(index: Any) -> str:
    """What a key of a mapping, or a place in a list, is called in a path."""
    return str(index.value) if isinstance(index, ScalarNode) else "" if index is None else str(index)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
