"""Rebuilds the lost or damaged manifest of a model_dir, for `checkpoints --rebuild`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expmgr.checkpoints.manifest import Manifest
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.rebuild import Known, NotTaken, RebuiltManifest, rebuilt
from expmgr.disk.locks import held
from expmgr.errors import (
    Busy,
    CheckpointRefused,
    ExpmgrError,
    ManifestDamaged,
    ModelDirProblem,
    OwnerDamaged,
    worst,
)
from expmgr.paths import seeds_option
from expmgr.project import Project
from expmgr.runs.record import RunRecord
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.training import BestCheckpoint
from expmgr.variants.variants import find_variant, spec_of


@dataclass(frozen=True)
class Rebuilt:
    """What became of the manifest of one seed."""

    variant: str
    seed: int
    model_dir: str
    """As it is shown."""
    steps: Sequence[int]
    """The checkpoints that the manifest lists now."""
    selected_step: int | None
    not_taken: Sequence[NotTaken] = ()
    """Checkpoints that are not whole, and why; their files are as they were."""
    notes: Sequence[str] = ()
    """What is not known of the checkpoints."""
    set_aside: str | None = None
    """Where the damaged manifest is kept; None if there was none."""
    owner_set_aside: str | None = None
    """Where the damaged `variant.json` is kept, which was rebuilt too; None if it can be read."""
    was_whole: bool = False
    """The manifest can be read and lists every whole checkpoint as it is, so it was not changed."""

    @property
    def has_manifest(self) -> bool:
        """False if only `variant.json` was rebuilt: there are no checkpoints, so there is no manifest."""
        return self.was_whole or bool(self.steps)

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "steps": list(self.steps), "not_taken": [one.as_dict() for one in self.not_taken],
                "notes": list(self.notes)}  # fmt: skip

    def __repr__(self) -> str:
        what = f"rebuilt, {len(self.steps)} checkpoints"
        if not self.has_manifest:
            what = "none, only variant.json was rebuilt"
        elif self.was_whole:
            what = "can be read"
        return f"<manifest of {self.variant} seed {self.seed}: {what}>"


class RebuiltManifests(Sequence[Rebuilt]):
    """What became of the manifests, by seed. `as_dict()` is what `expmgr checkpoints --rebuild --json` prints.

    `errors` tells why those of the other seeds were not rebuilt, and `exit_code` is that of the worst of them.
    """

    def __init__(self, rebuilt: Sequence[Rebuilt], errors: Sequence[ExpmgrError] = ()) -> None:
        self._rebuilt = rebuilt
        self.errors = errors
        self.exit_code = worst([int(one.exit_code) for one in errors])

    def as_dict(self) -> dict[str, Any]:
        return {"format": 1, "rebuilt": [one.as_dict() for one in self]}

    def __len__(self) -> int:
        return len(self._rebuilt)

    def __getitem__(self, number: Any) -> Any:
        return self._rebuilt[number]

    def __iter__(self) -> Iterator[Rebuilt]:
        return iter(self._rebuilt)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


def rebuild_manifests(project: Project, variant: str, seeds: Sequence[int] | None = None) -> RebuiltManifests:
    """Rebuild the manifest of each seed (None: 0, or the seed that the spec sets) from the checkpoints that are whole.

    A seed that cannot be rebuilt keeps no other one from it: `errors` has `CheckpointRefused` if none is whole, `Busy` if
    somebody trains or fetches there. The error of a single seed is raised.
    """
    found = find_variant(project.repo, variant)
    spec = spec_of(project.repo, found)
    chosen = seeds if seeds is not None else (spec.run_config.tf_random_seed or 0,)
    results: list[Rebuilt] = []
    errors: list[ExpmgrError] = []
    done: list[str] = []  # of all seeds, for the errors to say
    for seed in chosen:
        try:
            one = _rebuilt(project, project.model_dir(found.name, seed), spec, done)
        except ExpmgrError as error:
            errors.append(error)
            continue
        results.append(one)
        if one.has_manifest and not one.was_whole:
            done.append(f"the rebuilt manifest of {one.model_dir}")
    for left in errors:
        left.after(done)
    if not results and len(errors) == 1:
        raise errors[0]
    return RebuiltManifests(results, errors)


def _rebuilt(project: Project, folder: ModelDir, spec: ExperimentSpec, done: list[str]) -> Rebuilt:
    """What became of one seed. A rebuilt `variant.json` goes to `done`, also if an error follows."""
    is_owned = _is_owned(folder)
    manifest, is_damaged = _looked(folder)
    if is_owned and manifest is not None and not _is_damaged(manifest, _made(project, folder, spec, manifest), folder):
        return _unchanged(folder, manifest)
    if is_owned and manifest is None and not is_damaged:
        raise _no_checkpoints(folder, spec)
    with held(folder.lock_dir, folder.shown, undo_on_error=True) as lock:

        def check() -> None:
            if not lock.is_held():
                raise Busy(f"{folder.shown} was taken over by another process, so nothing more was written to it")

        folder.may_write = check
        # First: without it no command goes on from here, whatever becomes of the manifest.
        owner = None if is_owned else _rebuild_owner(project, folder)
        if owner is not None:
            variant_dir = folder.shown.rpartition("/")[0]
            done.append(f"the rebuilt {variant_dir}/variant.json (the damaged one is kept in {owner})")
        folder.check_usable()
        manifest, is_damaged = _looked(folder)
        if manifest is None and not is_damaged:
            if owner is None:
                raise _no_checkpoints(folder, spec)
            return Rebuilt(folder.variant, folder.seed, folder.shown, [], None, owner_set_aside=owner)
        made = _made(project, folder, spec, manifest)
        if manifest is not None:
            if not _is_damaged(manifest, made, folder):  # or somebody else was quicker
                return replace(_unchanged(folder, manifest), owner_set_aside=owner)
            made = replace(made, manifest=_completed(manifest, made.manifest))
        if not made.manifest.checkpoints:
            raise _none_whole(folder, made)
        aside = folder.replace_manifest(made.manifest, time.time())
    return Rebuilt(
        folder.variant,
        folder.seed,
        folder.shown,
        [one.step for one in made.manifest.checkpoints],
        made.manifest.selected_step,
        made.not_taken,
        made.notes,
        project.shown(aside) if aside is not None else None,
        owner,
    )


def _is_owned(folder: ModelDir) -> bool:
    """Whether `variant.json` can be read; what names another variant is an error."""
    try:
        folder.check_owner()
    except OwnerDamaged:
        return False
    return True


def _rebuild_owner(project: Project, folder: ModelDir) -> str | None:
    """Write `variant.json` again if nothing in the folder is another variant's; where the damaged one is kept."""
    if _is_owned(folder):  # somebody else was quicker
        return None
    others = folder.other_owners()
    if others:
        raise ModelDirProblem(
            f"the variant.json of {folder.shown} was not rebuilt: manifests beside it name {', '.join(others)}",
            left_alone="Nothing was changed.",
            hint="no two variants share a model_dir: move back what belongs to another one",
        )
    return project.shown(folder.replace_owner(time.time()))


def _made(project: Project, folder: ModelDir, spec: ExperimentSpec, manifest: Manifest | None) -> RebuiltManifest:
    """The manifest that the files of the folder give; what `manifest` deletes or sets aside is not among them."""
    known, among = _known(project, folder, spec), folder.candidates(manifest)
    return rebuilt(folder.path, folder.shown, folder.variant, folder.seed, known, among)


def _is_damaged(manifest: Manifest, made: RebuiltManifest, folder: ModelDir) -> bool:
    """Whether a checkpoint that is whole is not in the manifest, or not as it is."""
    listed = {one.step: one for one in manifest.checkpoints}
    return any(one.step not in listed or folder.damage(listed[one.step]) for one in made.manifest.checkpoints)


def _completed(manifest: Manifest, made: Manifest) -> Manifest:
    """`manifest`, which can be read, with the checkpoints that are whole: what it says of them holds, except their files."""
    listed = {one.step: one for one in manifest.checkpoints}
    checkpoints = [
        listed[one.step].model_copy(update={"files": one.files}) if one.step in listed else one
        for one in made.checkpoints
    ]
    is_there = any(one.step == manifest.selected_step for one in checkpoints)
    return manifest.model_copy(
        update={
            "checkpoints": checkpoints,
            "selected_step": manifest.selected_step if is_there else made.selected_step,
            "last_preserved_at": max(manifest.last_preserved_at, made.last_preserved_at),
            "not_taken": made.not_taken,
        }
    )


def _looked(folder: ModelDir) -> tuple[Manifest | None, bool]:
    """The manifest if it can be read, and whether it is damaged, or missing while checkpoints are there. What a newer expmgr
    wrote, or another variant owns, is not damaged: that error is raised."""
    try:
        return folder.read_manifest(is_repaired=True), False
    except ManifestDamaged:
        return None, True


def _no_checkpoints(folder: ModelDir, spec: ExperimentSpec) -> CheckpointRefused:
    is_fixed = spec.run_config.tf_random_seed is not None  # then no command takes --seeds
    return CheckpointRefused(
        f"{folder.shown} has no checkpoints, so there is no manifest to rebuild",
        left_alone="Nothing was changed.",
        hint=f"train it: expmgr run {folder.variant}{'' if is_fixed else seeds_option(folder.seed)}",
    )


def _unchanged(folder: ModelDir, manifest: Manifest) -> Rebuilt:
    steps = [one.step for one in manifest.checkpoints]
    return Rebuilt(folder.variant, folder.seed, folder.shown, steps, manifest.selected_step, was_whole=True)


def _none_whole(folder: ModelDir, made: RebuiltManifest) -> CheckpointRefused:
    return CheckpointRefused(
        f"the manifest of {folder.shown} was not rebuilt: none of its checkpoints is whole",
        details=[f"{one.name}: {one.why}" for one in made.not_taken[:5]],
        left_alone="Nothing was changed.",
        hint=folder.fresh_hint,
    )


def _known(project: Project, folder: ModelDir, spec: ExperimentSpec) -> Known:
    """What the records of a seed, this clone's and others', say of its checkpoints."""
    runs: dict[str, RunRecord] = {}
    for head in project.records.heads():
        if (head.variant, head.seed) == (folder.variant, folder.seed):
            runs |= {one.run_id: one for one in project.records.whole([head])}
    newest = next((one for one in reversed(runs.values()) if one.by_hand is None), None)

    def recorded(run_id: str | None, step: int) -> Mapping[str, str] | None:
        record = runs.get(run_id or "")
        saved = record.checkpoints if record is not None else []
        return next((one.files for one in reversed(saved) if one.step == step), None)

    selection = spec.selection
    chosen = None
    if isinstance(selection, BestCheckpoint):
        mode = selection.mode or spec.direction(selection.metric)
        chosen = {"metric": selection.metric, "split": selection.split, "mode": mode}
    about: dict[str, Any] = {}
    if newest is not None:
        points: dict[int, dict[str, float]] = {}
        for metric, values in newest.curves.get("eval", {}).items() if spec.eval.steps is None else ():
            for step, value in values:
                points.setdefault(step, {})[metric] = value
        about = {
            "examples_seen": {newest.step: newest.examples_seen} if newest.has_ended else {},
            "points": points,
            "rows": {split: one.sha256 for split, one in newest.data.items() if one.sha256 is not None},
            "selected_step": newest.selected_step if newest.is_complete and chosen is not None else None,
            "began_at": newest.attempts[0].started_at,
        }
    return Known(recorded, selection=chosen, **about)
