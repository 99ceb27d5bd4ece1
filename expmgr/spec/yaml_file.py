"""Reads spec.yaml with file, line and key of every error, and sets values in it."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from expmgr.errors import SpecProblem
from expmgr.paths import check_name
from expmgr.spec.edit_text import with_value
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.limits import MOST_BYTES, MOST_LINES, count_lines, shown_path
from expmgr.spec.problems import Problem, line_at, problems_told
from expmgr.spec.yaml_nodes import NotInSpecs, yaml_reader

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
    return line_at(_document(content, "spec.yaml"), [int(key) if key.isdigit() else key for key in keys])


def _says(text: str, document: CommentedMap) -> bool:
    """Whether `text` is `document`, and not something else that the cut and paste made of it."""
    try:
        return bool(_plain(_parsed(text, ""), "") == _plain(document, ""))
    except SpecProblem:
        return False


def yaml_value(text: str, what: str) -> Any:
    """`text` as YAML 1.2 means it; `SpecProblem`, which names `what`, where it is none."""
    return _plain(_parsed(text, what), what)


def _dumped(document: CommentedMap) -> bytes:
    stream = io.BytesIO()
    yaml_reader().dump(document, stream)
    return stream.getvalue()


def _parsed(content: bytes | str, source: str) -> Any:
    try:
        return yaml_reader().load(content)
    except NotInSpecs as error:
        told = f"{error.key}: {error.problem}" if error.key else error.problem
        raise SpecProblem(f"{source}:{error.problem_mark.line + 1}: {told}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecProblem(f"{place}: {_first_line(error.problem or error)}") from None
    except YAMLError as error:
        raise SpecProblem(f"{source} is not YAML: {_first_line(error)}") from None
    except RecursionError:
        raise SpecProblem(f"{source} is nested too deeply") from None
    except Exception as error:  # ruamel fails in many ways on what is not YAML, and the text may be of another person
        raise SpecProblem(f"{source} is not YAML: {_first_line(error)}") from None


def _first_line(error: object) -> str:
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _document(content: bytes, source: str) -> CommentedMap:
    if len(content) > MOST_BYTES:
        raise SpecProblem(f"{source} has {len(content):,} bytes; a spec has at most {MOST_BYTES:,}")
    text = _text(content, source)
    if (lines := count_lines(text)) > MOST_LINES:
        raise SpecProblem(f"{source} has {lines:,} lines; a spec has at most {MOST_LINES:,}")
    document = _parsed(text, source)
    if not isinstance(document, CommentedMap):
        raise SpecProblem(f"{source} holds no spec: it is {'empty' if document is None else 'not a mapping'}")
    return document


def _text(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecProblem(f"{source}:{line}: byte {content[error.start]:#04x} is not UTF-8") from None


def _plain(value: Any, source: str) -> Any:
    """ruamel's values as Python's own, so that strict validation sees int, float, str, bool, list and dict."""
    if isinstance(value, dict):
        found = {str(key): _plain(item, source) for key, item in value.items()}
        if len(found) < len(value):
            twice = next(key for key, count in Counter(map(str, value)).items() if count > 1)
            raise SpecProblem(
                f"{source}: {shown_path([twice])}: is there twice, once as text and once as another value"
            )
        return found
    if isinstance(value, list):
        return [_plain(item, source) for item in value]
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
        spec = ExperimentSpec.model_validate(_plain(document, source))
    except ValidationError as error:
        problems = [Problem(dict(one), document) for one in error.errors()]
        raise problems_told(problems, source, set_keys) from None
    check_name(spec.experiment, "an experiment")
    if experiment is not None and spec.experiment != experiment:
        line = line_at(document, ["experiment"])
        raise SpecProblem(
            f"{source}:{line}: experiment is {spec.experiment!r}, but the spec lies in experiments/{experiment}/"
        )
    return spec
