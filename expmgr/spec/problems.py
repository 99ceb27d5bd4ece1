"""Problems in a spec: file, line, key, and the nearest key that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from ruamel.yaml.comments import CommentedMap

from expmgr.errors import SpecProblem, did_you_mean
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.limits import ValueProblem, shown_path
from expmgr.spec.optimizer import NUMBER
from expmgr.spec.run_config import RUN_CONFIG_REASONS, RunConfig

_OF_RUN_CONFIG = re.compile(r"(run_config\.\w+): (.*)", re.DOTALL)


class Problem:
    """One error of pydantic's, in the words and at the line of the user's file."""

    def __init__(self, error: dict[str, Any], document: CommentedMap) -> None:
        self.path, self.line, model = _followed(list(error["loc"]), document)
        self.key = shown_path(self.path)
        self._near: tuple[type[BaseModel], str] | None = None
        self._hint: str | None = None
        last = self.path[-1] if self.path else ""
        context = error.get("ctx", {})
        if error["type"] == "extra_forbidden":
            reason = RUN_CONFIG_REASONS.get(last) if model is RunConfig else None
            self.text = f"cannot be honoured: {reason}" if reason else "unknown key"
            if model and not reason:
                self._near = model, last
        elif model is RunConfig and last in RUN_CONFIG_REASONS and not _is_estimator(document):
            self.text = f"cannot be honoured: {RUN_CONFIG_REASONS[last]}"
        elif error["type"] == "missing":
            self.text = "is missing"
        elif error["type"] == "union_tag_not_found":
            self.key, self.text = f"{self.key}.kind", "is missing"
            self._hint = f"one of {_tags(model, last)}"
        elif error["type"] == "union_tag_invalid":
            expected = _tags(model, last)
            self.key = f"{self.key}.kind"
            self.text = f"is {_short(context['tag'])}, must be one of {expected}"
            self._hint = did_you_mean(str(context["tag"]), expected.split(", "))
        elif error["type"] == "value_error":
            self.text = str(context["error"])
            if isinstance(context["error"], ValueProblem):
                self.path = list(context["error"].path)
                self.key, self.line = shown_path(self.path), line_at(document, _as_in(document, self.path))
            elif not self.path and (named := _OF_RUN_CONFIG.match(self.text)):
                self.key, self.text = named[1], named[2]
                self.path = self.key.split(".")
                self.line = line_at(document, self.path)
        else:
            self.text = f"{_lowered(error['msg'])}, is {_short(error['input'])}"
        self.text = _cut(self.text, 500)

    @property
    def hint(self) -> str | None:
        """The nearest key or value that exists. Only the hint that is printed is looked for: a spec may have 10,000 problems."""
        if self._near is None:
            return self._hint
        model, last = self._near
        takes = f"{shown_path(self.path[:-1]) or 'a spec'} takes {', '.join(model.model_fields)}"
        near = did_you_mean(
            last[:100], model.model_fields, takes, typed=lambda near: shown_path([*self.path[:-1], near])
        )
        return near

    def told(self, source: str) -> str:
        where = f"{source}:{self.line}"
        return f"{where}: {self.key}: {self.text}" if self.key else f"{where}: {self.text}"


def _as_in(document: Any, path: Sequence[str]) -> list[Any]:
    """`path` with the keys that `document` has: numbers for places in lists."""
    keys: list[Any] = []
    place = document
    for part in path:
        if isinstance(place, CommentedMap):
            key: Any = next((one for one in place if str(one) == part), part)
        else:
            key = int(part) if part.isdigit() else part
        keys.append(key)
        try:
            place = place[key]
        except (KeyError, IndexError, TypeError):
            break
    return keys


def _is_estimator(document: Any) -> bool:
    """Whether the spec is of an Estimator, which takes every value of RunConfig."""
    model = document.get("model") if isinstance(document, dict) else None
    return isinstance(model, dict) and model.get("kind") == "estimator"


def _tags(model: type[BaseModel] | None, part: str) -> str:
    """The kinds that a key of `model` takes."""
    annotation = (model or ExperimentSpec).model_fields[part].annotation
    return ", ".join(get_args(kind.model_fields["kind"].annotation)[0] for kind in _models_of(annotation))


def _followed(loc: list[Any], document: CommentedMap) -> tuple[list[str], int, type[BaseModel] | None]:
    """The user's path for pydantic's `loc`, its line, and the model that should hold its last key.

    pydantic puts the tag of a union into `loc`, which is no key of the file.
    """
    path: list[str] = []
    keys: list[Any] = []
    model: type[BaseModel] | None = ExperimentSpec
    kinds: tuple[Any, ...] = ()
    for at, part in enumerate(loc):
        chosen = next((kind for kind in kinds if part in _names_of(kind)), None)
        if chosen is not None:
            model, kinds = chosen, ()
            continue
        if kinds and part == NUMBER:
            continue
        path.append(str(part))
        keys.append(part)
        kinds = ()
        if at < len(loc) - 1:
            annotation = model.model_fields[part].annotation if model and part in model.model_fields else None
            kinds = tuple(_models_of(annotation))
            model = kinds[0] if len(kinds) == 1 else None
            if model is not None:
                kinds = (model,) if get_args(annotation) else ()
    return path, line_at(document, keys), model


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in a field's annotation: itself, or members of its union or list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not Literal:
        for member in get_args(annotation):
            yield from _models_of(member)


def _names_of(kind: Any) -> tuple[str, ...]:
    """What pydantic may call a member of a union in `loc`: its class's name, or its tag."""
    field = kind.model_fields.get("kind")
    return (kind.__name__, *(get_args(field.annotation) if field else ()))


def line_at(document: CommentedMap, keys: Sequence[Any]) -> int:
    """The line, from 1, of the deepest of `keys` that is in the file."""
    line = 1
    place: Any = document
    for key in keys:
        try:
            line = (place.lc.key(key) if isinstance(place, CommentedMap) else place.lc.item(key))[0] + 1
            place = place[key]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def problems_told(problems: Sequence[Problem], source: str, set_keys: Sequence[str]) -> SpecProblem:
    """One error for all `problems`; what an assignment caused is told as that assignment's."""

    def place(problem: Problem) -> str:
        cause = next((key for key in set_keys if problem.key == key or problem.key.startswith(f"{key}.")), None)
        if cause is None and not problem.key and set_keys:  # a rule of several keys, one of which was set
            return f"--set {', '.join(set_keys)}: {problem.text}"
        if cause is None:
            return problem.told(source)
        return (
            f"--set {cause}: {problem.text}"
            if problem.key == cause
            else f"--set {cause}: {problem.key}: {problem.text}"
        )

    # In a plain union (selection) pydantic tells of every member: one line a key is enough.
    lines = list(dict.fromkeys(place(problem) for problem in problems))
    hint = next((problem.hint for problem in problems if problem.hint), None)
    if len(lines) == 1:
        return SpecProblem(lines[0], hint=hint, left_alone="Nothing was changed.")
    shown = lines[:5] + ([f"and {len(lines) - 5} more"] if len(lines) > 5 else [])
    return SpecProblem(
        f"{source} has {len(lines)} problems:", details=shown, hint=hint, left_alone="Nothing was changed."
    )


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


def _short(value: Any) -> str:
    return _cut(repr(value), 60)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
