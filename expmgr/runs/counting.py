"""Which runs of a variant count: the newest finished run per seed, of its present spec and code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from expmgr.spec.changes import changes

if TYPE_CHECKING:  # pydantic's models: `list` counts runs by the index, and should not wait for them
    from expmgr.spec.experiment import ExperimentSpec

#: Parts of the spec that do not change what a run computes.
ABOUT = ("experiment", "question", "probe", "compare.")


class Counted(Protocol):
    """What has to be known of a run to count it: a `RunRecord`, or a `Head`."""

    @property
    def run_id(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def by_hand(self) -> object | None: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def code_digest(self) -> str: ...


A_RUN = TypeVar("A_RUN", bound=Counted)


def counted_runs(runs: Iterable[A_RUN]) -> list[A_RUN]:
    """The newest finished run of each seed, by seed."""
    newest: dict[int, A_RUN] = {}
    for record in sorted(runs, key=lambda record: record.run_id):
        if record.status == "finished" and record.by_hand is None:
            newest[record.seed] = record
    return [newest[seed] for seed in sorted(newest)]


def is_outdated(record: Counted, spec: ExperimentSpec, code_digest: str) -> bool:
    """Whether the branch has another spec or other code now than the run was made with."""
    moved = [key for key in changes(record.spec, spec.resolved()) if not key.startswith(ABOUT)]
    return bool(moved) or record.code_digest != code_digest
