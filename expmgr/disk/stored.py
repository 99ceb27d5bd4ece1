"""The base of the JSON files that expmgr stores: keys that only a newer expmgr knows are kept."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StoredPart(BaseModel):
    """A part of a stored file. Unknown keys are kept, so that an older expmgr passes on what a newer one wrote."""

    model_config = ConfigDict(extra="allow")
