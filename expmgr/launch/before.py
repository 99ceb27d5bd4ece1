"""Before a model is used: warns of what it does not see, and fetches its checkpoint from the store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from expmgr.errors import ExpmgrError
from expmgr.launch.plan import Task
from expmgr.project import Project
from expmgr.runs.record import RunRecord
from expmgr.variants.code_digest import uncommitted_code
from expmgr.variants.variants import find_variant

#: Who wants to hear what a person should know, a sentence at a time.
OnNote = Callable[[str], None]


@contextlib.contextmanager
def telling_what_stays(done: Sequence[str]) -> Iterator[None]:
    """Have an error say what the command did before (`done`: "the commit"), for that stays."""
    try:
        yield
    except ExpmgrError as error:
        error.after(done)
        raise


def backend_notes() -> Iterator[str]:
    """That another backend of Keras, which the environment asks for, is not what runs."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        yield f"KERAS_BACKEND is {backend}; models are built and trained with the backend tensorflow"


def uncommitted_notes(project: Project, tasks: Sequence[Task]) -> Iterator[str]:
    """Which variants have changes in a checkout that are not looked at."""
    for task in {task.name: task for task in tasks}.values():
        found = uncommitted_code(project.repo, task.commit, task.name)
        if found is not None:
            yield f"{task.name} has changes in {found[0]} that are not committed, and not looked at"


def tell_before(project: Project, tasks: Sequence[Task], on_note: OnNote) -> None:
    """Tell `on_note` what the models of `tasks` do not see."""
    for note in (*backend_notes(), *uncommitted_notes(project, tasks)):
        on_note(note)


def from_store(
    project: Project,
    text: str,
    seed: int,
    step: int | str | None,
    on_note: OnNote,
    *,
    record: RunRecord | None = None,
) -> bool:
    """Fetch the checkpoint that is meant (of `record`, where one is named), where it is not here and the store has it;
    whether that was done."""
    from expmgr.store.fetch import ensure

    if project.settings.store is not None:
        name = find_variant(project.repo, text).name
        wanted = step if isinstance(step, int) else None

        def on_problem(reason: str) -> None:
            on_note(f"nothing was fetched from the store: {reason}")

        shown = ensure(project, name, seed, wanted, record=record, on_problem=on_problem)
        if shown is not None:
            on_note(f"{shown} was fetched from {project.settings.store}")
            return True
    return False
