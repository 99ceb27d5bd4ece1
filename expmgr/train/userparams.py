"""The params that a spec gives to a function of the repository."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from expmgr.errors import SpecProblem
from expmgr.paths import nearest
from expmgr.spec import flat
from expmgr.train.usercode import UserCode


def params_of(params: Mapping[str, Any], reference: str | None, code: UserCode, section: str) -> Any:
    """`params` as what `reference` (a pydantic model, or anything that is called) makes of them; else a dict.

    `section` is their part of the spec: "model" or "data". Raises `SpecProblem` where the model does not take them.
    """
    made = code.params[section] = _made(params, reference, code, section)
    return made


def _made(params: Mapping[str, Any], reference: str | None, code: UserCode, section: str) -> Any:
    if reference is None:
        return Params(params)
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


def in_force(code: UserCode, of_script: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The params that code of the repository was given, its defaults included as far as they are known, by their keys in
    the spec ("model.params.units"). `of_script`: those of a training script."""
    given = {**code.params, "model": of_script} if of_script is not None else code.params
    found = {section: {"params": _as_json(params)} for section, params in given.items()}
    return {key: value for key, value in flat(found).items() if value != {}}


def unread(code: UserCode) -> list[str]:
    """The params that no function asked for, though it was given them: a misspelt name, perhaps."""
    return [
        f"{section}.params.{name}"
        for section, params in code.params.items()
        if isinstance(params, Params)
        for name in params
        if name not in params.read
    ]


class Params(dict[str, Any]):
    """A spec's params as the dict that a function is given, which knows what of it was read, and with what default."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: dict[str, Any] = {}
        """Each name that was asked for, and what was given for it."""

    def _note(self, *names: str) -> None:
        self.read.update({name: super(Params, self).__getitem__(name) for name in names})

    def __getitem__(self, name: str) -> Any:
        value = self.read[name] = super().__getitem__(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        value = self.read[name] = super().get(name, default)
        return value

    def pop(self, name: str, *default: Any) -> Any:
        value = self.read[name] = super().pop(name, *default)
        return value

    def setdefault(self, name: str, default: Any = None) -> Any:
        value = self.read[name] = super().setdefault(name, default)
        return value

    # Who takes all of it has read all of it.

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def keys(self) -> Any:
        self._note(*super().keys())
        return super().keys()

    def items(self) -> Any:
        self._note(*super().keys())
        return super().items()

    def values(self) -> Any:
        self._note(*super().keys())
        return super().values()

    def copy(self) -> dict[str, Any]:
        self._note(*super().keys())
        return super().copy()

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()


def _as_json(params: Any) -> dict[str, Any]:
    if isinstance(params, BaseModel):
        params = params.model_dump()
    elif isinstance(params, Params):
        params = params.read
    elif dataclasses.is_dataclass(params) and not isinstance(params, type):
        params = dataclasses.asdict(params)
    plain = params if isinstance(params, Mapping) else {}  # what anything else holds is its own affair
    return dict(json.loads(json.dumps(plain, default=str)))


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
