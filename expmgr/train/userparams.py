"""The params that a spec gives to a function of the repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from expmgr.errors import SpecProblem
from expmgr.paths import nearest
from expmgr.train.usercode import UserCode


def params_of(params: Mapping[str, Any], reference: str | None, code: UserCode, section: str) -> Any:
    """`params` as what `reference` (a pydantic model, or anything that is called) makes of them; else a dict.

    `section` is their part of the spec: "model" or "data". Raises `SpecProblem` where the model does not take them.
    """
    if reference is None:
        return dict(params)
    key = f"{section}.params_model"
    kind = code.find(reference, key)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        with code.errors(f"{key}: {reference} does not take {section}.params"):
            return kind(**params)
    _check_names(kind, params, section)
    try:
        return kind.model_validate(dict(params))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, (section, 'params', *one['loc'])))}: {_words(one)}" for one in error.errors()]
        raise SpecProblem(
            lines[0] if len(lines) == 1 else f"{section}.params have {len(lines)} problems:",
            details=[] if len(lines) == 1 else lines,
            left_alone="Nothing was changed.",
            hint=f"{reference} says what they are",
        ) from None


def _words(one: Any) -> str:
    message = str(one["msg"])
    return "is missing" if one["type"] == "missing" else f"{message[:1].lower()}{message[1:]}, is {one['input']!r}"


def _check_names(kind: type[BaseModel], params: Mapping[str, Any], section: str) -> None:
    """A misspelt name would be passed over by pydantic, and a default stand in for it."""
    if kind.model_config.get("extra") == "allow":
        return
    known = [*kind.model_fields, *(one.alias for one in kind.model_fields.values() if one.alias)]
    for name in params:
        if name not in known:
            near = nearest(name, known)
            raise SpecProblem(
                f"{section}.params.{name}: unknown key",
                left_alone="Nothing was changed.",
                hint=f"did you mean {section}.params.{near}?" if near else f"{section}.params takes {', '.join(known)}",
            )
