"""Events as they stand in a log, without one."""

from __future__ import annotations

from typing import Any, TypeVar

from expmgr.log.events import Event, parse_event

Kind = TypeVar("Kind", bound=Event)


def event_of(kind: type[Kind], *, writer: str, time: int = 1, **values: Any) -> Kind:
    """An event of `writer`, who is called `<name>-<8 hex digits>`; a short number will do."""
    name, _, number = writer.rpartition("-")
    full = f"{name}-{int(number):08x}" if len(number) < 8 else writer
    made = parse_event(
        kind.model_validate({"writer": full, "time": time, "at": 1.0, "actor": None, **values}).content, full
    )
    assert isinstance(made, kind)
    return made
