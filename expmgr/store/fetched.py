"""`fetched.json`: which run's checkpoint was fetched into a model_dir."""

from __future__ import annotations

import contextlib
from pathlib import Path

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk.json_text import parse_json
from expmgr.errors import ExpmgrError, ModelDirProblem
from expmgr.project import Project
from expmgr.store.contents import (
    digests_of,
    recorded_digests,
)

#: In a model_dir whose checkpoints came from the store: whose they are.
FETCHED = "fetched.json"


def fetched_here(project: Project, folder: ModelDir) -> tuple[str, int] | None:
    """The run whose checkpoint, fetched from the store, is the newest of a model_dir, and its step: training goes on from
    there. None where the newest was trained here. Raises `ModelDirProblem` if that is not known any more."""
    run_id = fetched_run(folder.path)
    if run_id is None:
        if (folder.path / FETCHED).exists():
            raise ModelDirProblem(
                f"{folder.shown}/{FETCHED} cannot be read, so whose checkpoints were fetched is not known",
                left_alone="Nothing was changed on disk.",
                hint=f"fetch them again: expmgr pull {folder.variant}; {folder.fresh_hint}",
            )
        return None
    with contextlib.suppress(ExpmgrError, OSError):
        manifest = folder.read_manifest()
        record = project.records.load(run_id)
        newest = manifest.checkpoints[-1] if manifest is not None and manifest.checkpoints else None
        if newest is not None and digests_of(newest) == recorded_digests(record, newest.step):
            return record.run_id, newest.step
    return None


def fetched_run(model_dir: Path) -> str | None:
    """The run whose checkpoints were fetched into a model_dir; None where none were, or where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        run_id = parse_json((model_dir / FETCHED).read_bytes())["run_id"]
        return run_id if isinstance(run_id, str) else None
    return None
