"""What functions and scripts are given as params, and what is known of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from expmgr.train.user.params import Params, in_force, unread

WHOLE: dict[str, Callable[[Params], Any]] = {
    "dict": dict,
    "a display": lambda params: {**params},
    "arguments": lambda params: SimpleNamespace(**params),
    "JSON": json.dumps,
    "or": lambda params: params | {},
    "or behind": lambda params: {} | params,
    "a deep copy": copy.deepcopy,
    "a copy": lambda params: params.copy(),
    "values": lambda params: list(params.values()),
    "items": lambda params: list(params.items()),
}


@pytest.mark.parametrize("how", WHOLE)
def test_who_takes_all_has_read_all(how: str) -> None:
    params = Params({"units": 8, "rate": 0.1})
    WHOLE[how](params)
    assert params.read == {"units": 8, "rate": 0.1}


def test_what_was_not_asked_for_is_named_and_defaults_of_the_code_are_known() -> None:
    params = Params({"units": 8, "raet": 0.1})
    assert (params["units"], params.get("rate", 0.5), len(params)) == (8, 0.5, 2)
    code: Any = SimpleNamespace(params={"model": params, "data": Params({"noise": 1})})
    assert unread(code) == ["model.params.raet"]  # what data asks for later is not known
    assert in_force(code) == {
        "model.params.units": 8, "model.params.rate": 0.5, "model.params.raet": 0.1, "data.params.noise": 1
    }  # fmt: skip
    assert "raet" in params
    assert unread(code) == []
    assert in_force(code, {"units": 4}) == {"model.params.units": 4, "data.params.noise": 1}


def test_what_json_has_not_is_recorded_in_words() -> None:
    params = Params({"clip": float("inf"), "sides": (1, 2), "by": {(1, 2): None}, "what": object()})
    assert in_force(cast("Any", SimpleNamespace(params={"model": params}))) == {
        "model.params.clip": "inf", "model.params.sides": [1, 2], "model.params.by.(1, 2)": None, "model.params.what": "object"
    }  # fmt: skip


def test_it_is_the_dict_that_it_was() -> None:
    params = Params({"units": 8})
    assert isinstance(params, dict)
    assert params == {"units": 8}
    assert type(params)() == {}
    assert (params.pop("units"), params.setdefault("rate", 1), dict(params)) == (8, 1, {"rate": 1})
