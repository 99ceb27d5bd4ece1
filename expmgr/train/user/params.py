"""The `params` of a spec, passed to a function or script, and which of them no code read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from expmgr.errors import SpecProblem, did_you_mean
from expmgr.spec.changes import flat
from expmgr.train.user.code import UserCode


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
    found = {section: {"params": _plain(_in_force(params))} for section, params in given.items()}
    return {key: value for key, value in flat(found).items() if value != {}}


def _in_force(params: Any) -> Any:
    if isinstance(params, BaseModel):
        return params.model_dump()
    if isinstance(params, Params):
        return {**params.given, **params.read}
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return dataclasses.asdict(params)
    return params if isinstance(params, Mapping) else {}  # what anything else holds is its own affair


def _plain(value: Any) -> Any:
    """`value` as JSON has it; what JSON has not (NaN, objects) as words: what is recorded alone ends no run."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    words = str(value)
    return type(value).__name__ if " at 0x" in words else words


def unread(code: UserCode) -> list[str]:
    """The params that the function of the model did not ask for, though it was given them: a misspelt name, perhaps.
    Those of data may be asked for later, by a generator or for a prediction."""
    params = code.params.get("model")
    return (
        [f"model.params.{name}" for name in params.given if name not in params.asked]
        if isinstance(params, Params)
        else []
    )


class Params(dict[str, Any]):
    """A spec's params as the dict that a function is given, which knows what of it was read, and with what default."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.given = dict(values or {})
        self.read: dict[str, Any] = {}
        """Each name that was asked for, and what was given for it."""
        self.asked: set[str] = set()
        """These, and those of which it was asked whether they are there."""

    def _note(self, *names: str) -> None:
        self.read.update({name: super(Params, self).__getitem__(name) for name in names})
        self.asked.update(names)

    def _answer(self, name: str, value: Any) -> Any:
        self.read[name] = value
        self.asked.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        return self._answer(name, super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        return self._answer(name, super().get(name, default))

    def pop(self, name: str, *default: Any) -> Any:
        return self._answer(name, super().pop(name, *default))

    def setdefault(self, name: str, default: Any = None) -> Any:
        return self._answer(name, super().setdefault(name, default))

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
            raise SpecProblem(
                f"{section}.params.{name}: unknown key",
                left_alone="Nothing was changed.",
                hint=did_you_mean(
                    name,
                    known,
                    f"{section}.params takes {', '.join(known)}",
                    typed=lambda near: f"{section}.params.{near}",
                ),
            )
