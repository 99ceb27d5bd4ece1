"""The base class of all parts of a spec: unknown keys are errors."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

Reference = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`module:name`, the module looked for in the experiment's folder first, then in the repository."""


class Part(BaseModel):
    """A part of the spec: unknown keys are errors, and a number in quotes is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
