"""spec.yaml: read with the place of every error, changed with its comments kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from expmgr.errors import SpecProblem
from expmgr.paths import check_name, nearest
from expmgr.spec.experiment import NUMBER, RUN_CONFIG_REASONS, ExperimentSpec, RunConfig
from expmgr.spec.text import with_value

_MAX_BYTES = 1_000_000
_OF_RUN_CONFIG = re.compile(r"(run_config\.\w+): (.*)", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")


def read_spec(content: bytes, source: str, experiment: str | None = None) -> ExperimentSpec:
    """The spec in `content`; `SpecProblem` names `source`, line and key of everything that is wrong in it.

    `experiment` is the name of the folder that the spec lies in, which it has to carry.
    """
    return _validated(_document(content, source), source, experiment)


def set_values(content: bytes, assignments: Sequence[str], source: str, experiment: str | None = None) -> bytes:
    """The spec in `content` with each `KEY=VALUE` of `assignments` made, comments and order kept.

    VALUE is YAML; null unsets a key. What comes out is validated; `SpecProblem` says what is wrong, and with which
    assignment.
    """
    document = _document(content, source)
    if not assignments:
        _validated(document, source, experiment)
        return content
    text: str | None = content.decode("utf-8")
    keys = []
    for assignment in assignments:
        key, value = _assign(document, assignment)
        keys.append(key)
        text = None if text is None else with_value(text, key.split("."), value)
    _validated(document, f"{source} with --set", experiment, set_keys=keys)
    return text.encode() if text is not None and _says(text, document) else _dumped(document)


def line_of(content: bytes, keys: Sequence[str]) -> int:
    """The line, from 1, of the deepest of `keys` that is in the spec."""
    return _line(_document(content, "spec.yaml"), [int(key) if key.isdigit() else key for key in keys])


def _says(text: str, document: CommentedMap) -> bool:
    """Whether `text` is `document`, and not something else that the cut and paste made of it."""
    try:
        return bool(_plain(_parsed(text, "")) == _plain(document))
    except SpecProblem:
        return False


def yaml_value(text: str, what: str) -> Any:
    """`text` as YAML 1.2 means it; `SpecProblem`, which names `what`, where it is none."""
    return _plain(_parsed(text, what))


def _dumped(document: CommentedMap) -> bytes:
    stream = io.BytesIO()
    _yaml().dump(document, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    yaml = YAML(typ="rt")  # YAML 1.2: 1e-3 is a number, no is a word, a key that stands twice is an error
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def _parsed(content: bytes | str, source: str) -> Any:
    try:
        return _yaml().load(content)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecProblem(f"{place}: {(error.problem or str(error)).strip()}") from None
    except (YAMLError, ValueError) as error:
        raise SpecProblem(f"{source} is not YAML: {str(error).strip().splitlines()[0]}") from None
    except RecursionError:
        raise SpecProblem(f"{source} is nested too deeply") from None


def _document(content: bytes, source: str) -> CommentedMap:
    if len(content) > _MAX_BYTES:
        raise SpecProblem(f"{source} has {len(content):,} bytes; a spec has at most {_MAX_BYTES:,}")
    document = _parsed(content, source)
    if not isinstance(document, CommentedMap):
        raise SpecProblem(f"{source} holds no spec: it is {'empty' if document is None else 'not a mapping'}")
    return document


def _plain(value: Any, depth: int = 0) -> Any:
    """ruamel's values as Python's own, so that strict validation sees int, float, str, bool, list and dict."""
    if depth > 50:
        raise SpecProblem("the spec is nested too deeply")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value if value is None else str(value)


def _assign(document: CommentedMap, assignment: str) -> tuple[str, str | None]:
    """Make one `KEY=VALUE` in `document`; KEY, and VALUE as YAML, None where it unsets."""
    key, equals, text = assignment.partition("=")
    key = key.strip()
    if not equals or not _KEY.match(key):
        raise SpecProblem(
            f"--set {assignment} is not KEY=VALUE",
            left_alone="Nothing was changed.",
            hint="for example --set optimizer.learning_rate=0.01",
        )
    value = _parsed(text, f"--set {key}")
    *folders, last = key.split(".")
    place: Any = document
    for folder in folders:
        if place.get(folder) is None:
            place[folder] = CommentedMap()
        place = place[folder]
        if not isinstance(place, CommentedMap):
            raise SpecProblem(f"--set {key}: {folder} is not a mapping in the spec, so nothing can be set in it")
    if value is None:
        place.pop(last, None)
    else:
        if isinstance(value, CommentedSeq | CommentedMap):
            value.fa.set_flow_style()
        place[last] = value
    return key, None if value is None else text.strip()


def _validated(
    document: CommentedMap, source: str, experiment: str | None, set_keys: Sequence[str] = ()
) -> ExperimentSpec:
    try:
        spec = ExperimentSpec.model_validate(_plain(document))
    except ValidationError as error:
        problems = [_Problem(dict(one), document) for one in error.errors()]
        raise _told(problems, source, set_keys) from None
    check_name(spec.experiment, "an experiment")
    if experiment is not None and spec.experiment != experiment:
        line = _line(document, ["experiment"])
        raise SpecProblem(
            f"{source}:{line}: experiment is {spec.experiment!r}, but the spec lies in experiments/{experiment}/"
        )
    return spec


class _Problem:
    """One error of pydantic's, in the words and at the line of the user's file."""

    def __init__(self, error: dict[str, Any], document: CommentedMap) -> None:
        self.path, self.line, model = _followed(list(error["loc"]), document)
        self.key = ".".join(self.path)
        self.hint: str | None = None
        last = self.path[-1] if self.path else ""
        context = error.get("ctx", {})
        if error["type"] == "extra_forbidden":
            reason = RUN_CONFIG_REASONS.get(last) if model is RunConfig else None
            near = nearest(last, model.model_fields) if model else None
            self.text = f"cannot be honoured: {reason}" if reason else "unknown key"
            if near and not reason:
                self.hint = f"did you mean {'.'.join([*self.path[:-1], near])}?"
            elif model and not reason:
                self.hint = f"{'.'.join(self.path[:-1]) or 'a spec'} takes {', '.join(model.model_fields)}"
        elif model is RunConfig and last in RUN_CONFIG_REASONS and not _is_estimator(document):
            self.text = f"cannot be honoured: {RUN_CONFIG_REASONS[last]}"
        elif error["type"] == "missing":
            self.text = "is missing"
        elif error["type"] == "union_tag_not_found":
            self.key, self.text = f"{self.key}.kind", "is missing"
            self.hint = f"one of {_tags(model, last)}"
        elif error["type"] == "union_tag_invalid":
            expected = _tags(model, last)
            near = nearest(str(context["tag"]), expected.split(", "))
            self.key = f"{self.key}.kind"
            self.text = f"is {context['tag']!r}, must be one of {expected}"
            self.hint = f"did you mean {near}?" if near else None
        elif error["type"] == "value_error":
            self.text = str(context["error"])
            if not self.path and (named := _OF_RUN_CONFIG.match(self.text)):
                self.key, self.text = named[1], named[2]
                self.path = self.key.split(".")
                self.line = _line(document, self.path)
        else:
            self.text = f"{_lowered(error['msg'])}, is {_short(error['input'])}"

    def told(self, source: str) -> str:
        where = f"{source}:{self.line}"
        return f"{where}: {self.key}: {self.text}" if self.key else f"{where}: {self.text}"


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
    return path, _line(document, keys), model


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


def _line(document: CommentedMap, keys: Sequence[Any]) -> int:
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


def _told(problems: Sequence[_Problem], source: str, set_keys: Sequence[str]) -> SpecProblem:
    """One error for all `problems`; what an assignment caused is told as that assignment's."""

    def place(problem: _Problem) -> str:
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
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
