"""What commands do before they use a model: say what it does not see, and fetch its checkpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from expmgr.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from expmgr.launch.plan import Task
    from expmgr.project import Project
    from expmgr.runs.record import RunRecord


def tell_backend() -> None:
    """Say that another backend of Keras, which the environment asks for, is not what runs."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        output.tell([f"Note: KERAS_BACKEND is {backend}; models are built and trained with the backend tensorflow"])


def tell_uncommitted(project: Project, tasks: Sequence[Task]) -> None:
    """Say which variants have changes in a checkout that are not looked at."""
    from expmgr.variants.code import uncommitted_code

    tell_backend()
    for task in {task.name: task for task in tasks}.values():
        found = uncommitted_code(project.repo, task.commit, task.name)
        if found is not None:
            output.tell([f"Note: {task.name} has changes in {found[0]} that are not committed, and not looked at"])


def from_store(
    project: Project, text: str, seed: int, step: int | str | None, *, record: RunRecord | None = None
) -> None:
    """Fetch the checkpoint that is meant (of `record`, where one is named), where it is not here and the store has it."""
    from expmgr.store.fetch import ensure
    from expmgr.variants.variants import find_variant

    if project.settings.store is not None:
        name = find_variant(project.repo, text).name
        wanted = step if isinstance(step, int) else None
        shown = ensure(project, name, seed, wanted, record=record, on_problem=_tell_not_fetched)
        if shown is not None:
            output.tell([f"Note: {shown} was fetched from {project.settings.store}"])


def _tell_not_fetched(reason: str) -> None:
    output.tell([f"Note: nothing was fetched from the store: {reason}"])
