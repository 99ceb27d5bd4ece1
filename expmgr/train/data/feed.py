"""Feeds batches to the training loop."""

from __future__ import annotations

from typing import Any, Protocol


class Feed(Protocol):
    """Where training batches come from."""

    in_graph: bool
    """Whether a batch can be made in a graph."""

    @property
    def batch_size(self) -> int | None:
        """Rows of every batch; None where the data decides."""

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; None where it is not known."""

    @property
    def type_spec(self) -> Any:
        """The type specs of a batch, with any number of rows."""

    def at(self, position: Any, step: Any = None) -> Any:
        """The batch of `step`, whose first row is at `position`, rows counted over all epochs."""

    def state(self) -> bytes | None:
        """What has to be kept over a stop."""

    def go_to(self, step: int, state: bytes | None) -> str | None:
        """Go on at `step` with what was kept; why that is not exact, None where it is."""
