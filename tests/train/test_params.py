"""What functions and scripts are given as params, and what is known of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from expmgr.train.userparams import Params, in_force, unread

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
    assert (params["units"], params.get("rate", 0.5), "raet" in params, len(params)) == (8, 0.5, True, 2)
    code: Any = SimpleNamespace(params={"model": params, "data": {}})
    assert unread(code) == ["model.params.raet"]
    assert in_force(code) == {"model.params.units": 8, "model.params.rate": 0.5}
    assert in_force(code, {"units": 4}) == {"model.params.units": 4}


def test_it_is_the_dict_that_it_was() -> None:
    params = Params({"units": 8})
    assert isinstance(params, dict)
    assert params == {"units": 8}
    assert (params.pop("units"), params.setdefault("rate", 1), dict(params)) == (8, 1, {"rate": 1})
