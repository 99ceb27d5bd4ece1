"""Before a model is used: warns of what it does not see, and fetches its checkpoint from the store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.errors import CheckpointDamaged, ExpmgrError
from expmgr.launch.plan import Task
from expmgr.paths import VariantName
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


def with_store(project: Project, task: Task, error: ExpmgrError | None) -> ExpmgrError | None:
    """`error`; if it is of a damaged checkpoint that the store has, its hint is to fetch it again."""
    if not isinstance(error, CheckpointDamaged) or project.settings.store is None or project.is_scratch:
        return error
    from expmgr.store.fetch import InTheStore

    asked = [(str(task.name), task.seed), *((one.variant, one.seed) for one in task.candidates)]
    if task.warm_start is not None:
        seed = task.seed if task.warm_start.seed is None else task.warm_start.seed
        asked.append((str(task.warm_start.name), seed))
    for variant, seed in asked:
        folder = project.model_dir(VariantName(*variant.split("/", 1)), seed)
        shown, _, step = error.message.partition(" ")[0].rpartition("/model.ckpt-")
        if shown == folder.shown and step.isdigit():
            store = InTheStore(project)
            runs = reversed(
                [one for one in project.records.of_variant(VariantName(*variant.split("/", 1))) if one.seed == seed]
            )
            for record in runs:
                command = store.command(record, int(step))
                if command is not None and _is_listed(folder, record, int(step)):
                    error.hint = f"fetch it again from the store: {command}"
                    return error
    return error


def _is_listed(folder: ModelDir, record: RunRecord, step: int) -> bool:
    """Whether the checkpoint of `step` in a model_dir is that of the run."""
    from expmgr.store.contents import digests_of, recorded_digests

    manifest = folder.read_manifest()
    saved = manifest.at(step) if manifest is not None else None
    return saved is not None and digests_of(saved) == recorded_digests(record, step)
