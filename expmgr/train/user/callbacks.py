"""Calls the Keras callbacks that a spec names, as `fit` would.

An epoch is as many steps as the training split has batches, rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from expmgr.errors import UserCodeFailed
from expmgr.spec.training import Callback
from expmgr.train.user.code import UserCode

#: The key of a number that JSON does not have: infinity, as every "best so far" begins, and NaN.
_NOT_FINITE = "not finite"
#: The key that says which callback asked for the end.
_ASKED = "asked to stop"
#: What Keras' own callbacks count by; those that are not here, and have no get_state, keep nothing.
_COUNTERS = {
    "ReduceLROnPlateau": ("best", "wait", "cooldown_counter"),
    "EarlyStopping": ("best", "best_epoch", "wait", "stopped_epoch"),
    "TerminateOnNaN": (),
    "LearningRateScheduler": (),
}
_BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")


class Callbacks:
    """All callbacks of a run. `steps_per_epoch` is the length of an epoch."""

    def __init__(
        self,
        named: Sequence[Callback],
        code: UserCode,
        model: Any,
        steps_per_epoch: int,
        given: Sequence[Any] = (),
    ) -> None:
        """`given`: those that a script made itself."""
        self._code = code
        self.steps_per_epoch = steps_per_epoch
        self._names = [*(one.use for one in named), *(type(one).__name__ for one in given)]
        self._made = [*(self._make(one, f"callbacks.{number}") for number, one in enumerate(named)), *given]
        self._model = model
        self._asked: str | None = None
        for one in self._made:
            one.set_model(model)
            one.set_params({"verbose": 0, "epochs": None, "steps": steps_per_epoch})
        if self._made:
            model.stop_training = False

    def _make(self, named: Callback, key: str) -> Any:
        kind = self._code.find(named.use, key)
        with self._code.errors(f"{key}: {named.use} cannot be made"):
            made = kind(**named.params)
        if not isinstance(made, keras.callbacks.Callback):
            raise UserCodeFailed(
                f"{key}: {named.use} is no keras.callbacks.Callback", left_alone="Nothing was changed."
            )
        return made

    def __bool__(self) -> bool:
        return bool(self._made)

    @property
    def looks_at_batches(self) -> bool:
        """Whether one has hooks that are called for every batch."""
        base = keras.callbacks.Callback
        return any(getattr(type(one), hook) is not getattr(base, hook) for one in self._made for hook in _BATCH_HOOKS)

    @property
    def asks_to_stop(self) -> str | None:
        """Why training is to end, where one said so."""
        if self._made and self._model.stop_training:
            return f"callback {self._asked} asked for it" if self._asked else "a callback asked for it"
        return None

    def call(self, hook: str, *values: Any) -> None:
        """Call `hook` of each."""
        for one, name in zip(self._made, self._names, strict=True):
            with self._code.errors(f"{name}.{hook} failed"):
                getattr(one, hook)(*values)
            if self._model.stop_training and self._asked is None:
                self._asked = name

    # What goes on over a stop.

    def not_kept(self) -> list[str]:
        """Those whose own state no checkpoint holds."""
        return [name for one, name in zip(self._made, self._names, strict=True) if not _keeps(one)]

    def state(self) -> dict[str, Any]:
        """What each keeps over a stop, by its name, as JSON."""
        found: dict[str, Any] = {}
        for number, (one, name) in enumerate(zip(self._made, self._names, strict=True)):
            if _keeps(one):
                with self._code.errors(f"{name}.get_state failed"):
                    state = _state_of(one)
                found[f"{number} {name}"] = _kept(state, f"{name}.get_state()")
        if self._made and self._model.stop_training:
            found[_ASKED] = self._asked or ""
        return found

    def go_on(self, state: Mapping[str, Any], *, is_sent_back: bool = False) -> None:
        """Give each what it kept. That one asked for the end counts too, unless somebody went back to this step."""
        for number, (one, name) in enumerate(zip(self._made, self._names, strict=True)):
            if _keeps(one) and f"{number} {name}" in state:
                with self._code.errors(f"{name}.set_state failed"):
                    _give_back(one, _given_back(state[f"{number} {name}"]))
        if self._made and _ASKED in state and not is_sent_back:
            self._asked, self._model.stop_training = state[_ASKED] or None, True


def _kept(value: Any, place: str) -> Any:
    """`value` as JSON: a number of NumPy as Python's, and one that is not finite by its name."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_NOT_FINITE: str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_kept(one, f"{place}[{number}]") for number, one in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _kept(one, f"{place}[{key!r}]") for key, one in value.items()}
    raise UserCodeFailed(
        f"{place} is {type(value).__name__}, which a checkpoint cannot keep",
        hint="numbers, words, None, lists, and dicts whose keys are words; an array as a list: .tolist()",
    )


def _given_back(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {_NOT_FINITE}:
        return float(value[_NOT_FINITE])
    if isinstance(value, dict):
        return {key: _given_back(one) for key, one in value.items()}
    return [_given_back(one) for one in value] if isinstance(value, list) else value


def _keeps(callback: Any) -> bool:
    has_own = callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))
    return has_own or _counters(callback) is not None


def _counters(callback: Any) -> tuple[str, ...] | None:
    """What Keras' own callbacks count by, where that is all that they keep."""
    kind = type(callback)
    if not kind.__module__.startswith("keras.") or getattr(callback, "restore_best_weights", False):
        return None
    return _COUNTERS.get(kind.__name__)


def _state_of(callback: Any) -> Any:
    names = _counters(callback)
    return callback.get_state() if names is None else {name: getattr(callback, name, None) for name in names}


def _give_back(callback: Any, state: Any) -> None:
    names = _counters(callback)
    if names is None:
        callback.set_state(state)
        return
    for name in names:
        if name in state:
            setattr(callback, name, state[name])
