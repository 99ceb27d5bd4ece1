"""A run's model_dir: verifies, adds and deletes checkpoints, or sets them aside. No TensorFlow.

```
<variant_dir>/variant.json            whose model_dir it is
<variant_dir>/seed-<n>/               an Estimator's files: model.ckpt-<step>.index, .data-?????-of-?????, checkpoint
    model.ckpt-<step>.json            the signature of that checkpoint
    manifest.json                     the checkpoints that count, with size and sha256 of each file
    .saving-<step>-<random>/          a checkpoint that is being written
```
The manifest decides which checkpoint is the newest: a step counts from the moment that it is in there, all its files on
the disk. TensorFlow's `checkpoint` file is written after it, for others to read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from expmgr.checkpoints.manifest import (
    CheckpointMetadata,
    Manifest,
    SavedCheckpoint,
    SavedFile,
    checkpoint_name,
    step_of,
)
from expmgr.checkpoints.rebuild import SAVED, about_of, has_checkpoints_of_ours, is_as_signed, signed_digests
from expmgr.checkpoints.retention import Saved, retention
from expmgr.checkpoints.signature import Signature, read_signature
from expmgr.disk import durable
from expmgr.disk.durable import sha256, unwritable
from expmgr.disk.json_text import parse_foreign_json, parse_json
from expmgr.errors import (
    CheckpointDamaged,
    CheckpointRefused,
    DiskFull,
    ExpmgrError,
    ManifestDamaged,
    ModelDirProblem,
    OwnerDamaged,
    UnknownCheckpoint,
)
from expmgr.paths import seeds_option

_ANY_CHECKPOINT = re.compile(r".*\.index\Z|checkpoint\Z|.*\.data-\d{5}-of-\d{5}\Z|.*\.weights\.h5\Z")
_KEPT = "Nothing was changed on disk."
#: Nobody makes so many seeds of a variant begin in the same millisecond.
_TRIES = 100


@dataclass(frozen=True)
class Aside:
    """A checkpoint that was written, and does not count yet."""

    step: int
    folder: Path
    files: dict[str, SavedFile]


@dataclass(frozen=True)
class Whole:
    """A checkpoint that was found whole, with what it requires of a model."""

    saved: SavedCheckpoint
    signature: Signature
    prefix: Path
    shown: str
    manifest: Manifest


class ModelDir:
    """The folder of one variant and seed. `shown` is its path as people see it."""

    def __init__(self, path: Path, *, shown: str, variant: str, seed: int) -> None:
        self.path = path
        self.variant_dir = path.parent
        self.shown = shown
        self.variant = variant
        self.seed = seed
        self._manifest: Manifest | None = None
        self.may_write: Callable[[], None] | None = None
        """Raises where the right to write was lost; asked before the manifest is written."""

    @property
    def fresh_hint(self) -> str:
        return f"to start anew and keep the old model_dir aside: expmgr run {self.variant}{seeds_option(self.seed)} --fresh"

    @property
    def rebuild_hint(self) -> str:
        """How to get the checkpoints back whose manifest is lost."""
        return f"rebuild the manifest from the checkpoints that are whole: {self.rebuild_command}"

    @property
    def rebuild_command(self) -> str:
        return f"expmgr checkpoints {self.variant} --rebuild{seeds_option(self.seed)}"

    def may_be_rebuilt(self) -> bool:
        """Whether there are files that a manifest could be rebuilt from."""
        return has_checkpoints_of_ours(self._names())

    def _manifest_hint(self) -> str:
        return self.rebuild_hint if self.may_be_rebuilt() else self.fresh_hint

    def back_hint(self, step: int) -> str:
        """How to go on from an older checkpoint."""
        return f"to go on from step {step}, with what came after it kept aside: {self._back_command(step)}"

    def _back_command(self, step: int) -> str:
        return f"expmgr run {self.variant}{seeds_option(self.seed)} --from-step {step}"

    def back_command(self, manifest: Manifest, step: int) -> str | None:
        """What to type to train again from the newest whole checkpoint before `step`; None if there is none."""
        whole = self._whole_before(manifest, step)
        return self._back_command(whole.step) if whole else None

    @property
    def lock_dir(self) -> Path:
        return self.variant_dir / ".locks" / self.path.name

    # Looking: nothing below writes.

    def check_usable(self) -> None:
        """`ModelDirProblem` where another variant owns the folder, or it cannot be written."""
        self.check_owner()
        for folder in (self.path, self.variant_dir, self.lock_dir):
            reason = unwritable(folder)
            if reason:
                raise ModelDirProblem(
                    f"{self.shown} cannot be written: {reason}",
                    left_alone="Nothing was changed.",
                    hint="give yourself the right to write there, or move the root: models_dir in [tool.expmgr]",
                )

    def check_owner(self) -> None:
        """`ModelDirProblem` where another variant owns the folder, `OwnerDamaged` where that cannot be read."""
        path = self.variant_dir / "variant.json"
        shown = self.shown.rpartition("/")[0] or str(self.variant_dir)
        try:
            owner = parse_json(path.read_bytes())["variant"]
            if not isinstance(owner, str):
                raise TypeError(owner)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._no_access(f"{shown}/variant.json", error) from None
        except (ValueError, KeyError, TypeError):
            raise OwnerDamaged(
                f"{shown}/variant.json cannot be read, so whose model_dir this is stays unknown",
                left_alone=_KEPT,
                hint=f"rebuild it from what its checkpoints say: {self.rebuild_command}",
            ) from None
        if owner != self.variant:
            raise ModelDirProblem(
                f"{shown} belongs to variant {owner}, not to {self.variant}",
                left_alone=_KEPT,
                hint="no two variants share a model_dir: move one of them, or give this one another models_dir",
            )

    def inspect(self, step: int | None = None, *, thorough: bool = True) -> Whole | None:
        """The checkpoint of `step`, by default the newest; None where the folder holds none.

        What is damaged or foreign is never None, and a step that is not there is `UnknownCheckpoint`. Not `thorough`,
        the content of weights is not read: whether their file has the size that was saved is looked at.
        """
        self.check_owner()
        manifest = self.read_manifest()
        if manifest is None or not manifest.checkpoints:
            return None
        saved = manifest.checkpoints[-1] if step is None else self.listed(manifest, step)
        return self._whole(manifest, saved, thorough=thorough)

    def listed(self, manifest: Manifest, step: int) -> SavedCheckpoint:
        """The checkpoint of `step` as `manifest` has it; `UnknownCheckpoint` where it has none."""
        saved = manifest.at(step)
        if saved is None:
            there = ", ".join(str(one.step) for one in manifest.checkpoints)
            raise UnknownCheckpoint(f"{self.shown} has no checkpoint of step {step}", hint=f"it has {there}")
        return saved

    def at(self, step: int) -> Whole:
        """The checkpoint of `step`, which is listed; `CheckpointRefused` where it is damaged."""
        saved = self.manifest.at(step)
        assert saved is not None
        return self._whole(self.manifest, saved)

    def _whole(self, manifest: Manifest, saved: SavedCheckpoint, *, thorough: bool = True) -> Whole:
        shown = f"{self.shown}/{saved.name}"
        damage = self.damage(saved, thorough=thorough)
        if damage and self._is_misdescribed(saved):
            raise self._wrong_manifest(saved, damage)
        if damage:
            raise self._damaged(manifest, shown, damage)
        prefix = self.path / saved.name
        signature = read_signature(prefix, shown, self.fresh_hint)
        signed = signed_digests(signature)
        wrong = [name for name, digest in signed.items() if name in saved.files and saved.files[name].sha256 != digest]
        if wrong and self._is_misdescribed(saved):
            raise self._wrong_manifest(saved, [f"{name} has other content than was saved" for name in wrong])
        return Whole(saved, signature, prefix, shown, manifest)

    def _wrong_manifest(self, saved: SavedCheckpoint, damage: list[str]) -> ManifestDamaged:
        return ManifestDamaged(
            f"{self.shown}/manifest.json is damaged: {saved.name} is as its signature says, and not as the manifest says",
            details=damage,
            left_alone=_KEPT,
            hint=self.rebuild_hint,
        )

    def _is_misdescribed(self, saved: SavedCheckpoint) -> bool:
        """Whether the signature is the one that the manifest lists, and the files are as that signature says."""
        file = saved.files.get(f"{saved.name}.json")
        if file is None or list(_file_damage(self.path / f"{saved.name}.json", file, thorough=True)):
            return False
        return is_as_signed(self.path, self.shown, saved.step, self._names())

    def read_manifest(self, *, is_repaired: bool = False) -> Manifest | None:
        """`manifest.json`; None where there is neither one nor any checkpoint.

        `ManifestDamaged` if it does not list a whole checkpoint, unless it `is_repaired`: the caller adds it.
        """
        path = self.path / "manifest.json"
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_unlisted()
            return None
        except OSError as error:
            raise self._no_access(f"{self.shown}/manifest.json", error) from error
        try:
            manifest = Manifest.model_validate_json(content)
            parse_foreign_json(content)  # a shared folder is anybody's
        except ValueError as error:
            raise self._unreadable(content, error) from None
        if (manifest.variant, manifest.seed) != (self.variant, self.seed):
            raise ModelDirProblem(
                f"{self.shown} belongs to variant {manifest.variant}, seed {manifest.seed}, "
                f"not to {self.variant}, seed {self.seed}",
                left_alone=_KEPT,
                hint="no two variants share a model_dir: move it back to where it was",
            )
        forgotten = [] if is_repaired else self._forgotten(manifest)
        if forgotten:
            with contextlib.suppress(OSError):
                if path.read_bytes() != content:  # somebody saves there: what was found belongs to another manifest
                    return self.read_manifest()
            raise ManifestDamaged(
                f"{self.shown}/manifest.json does not list every checkpoint: whole ones are missing from it",
                details=[*forgotten[:5], *([f"and {len(forgotten) - 5} more"] if len(forgotten) > 5 else [])],
                left_alone=_KEPT,
                hint=self.rebuild_hint,
            )
        return manifest

    def _forgotten(self, manifest: Manifest) -> list[str]:
        """Checkpoints that are whole, and that nobody saves, deletes or sets aside; the manifest does not list them."""
        names = self.candidates(manifest)
        known = {*(one.step for one in manifest.checkpoints), *map(step_of, manifest.not_taken)}
        steps = {step for name in names if name.endswith(".index") and (step := step_of(name)) is not None}
        return [checkpoint_name(step) for step in sorted(steps - known)
                if is_as_signed(self.path, self.shown, step, names)]  # fmt: skip

    def candidates(self, manifest: Manifest | None) -> list[str]:
        """The files that a manifest may list: not what a crash left of a save, a deletion or a move."""
        names = self._names()
        if manifest is None:
            return names
        listed = {name for saved in manifest.checkpoints for name in saved.files}
        going = {*manifest.removed, *(name for files in manifest.set_aside.values() for name in files)} - listed
        saving = _saving(names) - {saved.step for saved in manifest.checkpoints}
        return [name for name in names if name not in going and step_of(name) not in saving]

    def _refuse_unlisted(self) -> None:
        names = self._names()
        # A crash before the first manifest leaves files of our own, with the folder that they were written in.
        ours = _saving(names)
        found = [name for name in names if _ANY_CHECKPOINT.match(name) and step_of(name) not in ours]
        if found:
            raise ManifestDamaged(
                f"{self.shown} holds checkpoints, but no manifest.json that says whose they are",
                details=[*found[:5], *([f"and {len(found) - 5} more"] if len(found) > 5 else [])],
                left_alone=_KEPT,
                hint=self._manifest_hint(),
            )

    @staticmethod
    def _no_access(what: str, error: OSError) -> ExpmgrError:
        """`what`, which is there, cannot be read: the disk says so, or somebody may not."""
        reason = os.strerror(error.errno or errno.EIO)
        kind = DiskFull if error.errno in durable.DISK_ERRORS else ModelDirProblem
        hint = {
            errno.EACCES: "give yourself the right to read it",
            errno.EISDIR: "a folder is in its place: move it away",
        }.get(error.errno or errno.EIO, "check the disk, then try again")
        return kind(f"{what} cannot be read: {reason}", left_alone=_KEPT, hint=hint)

    def _unreadable(self, content: bytes, error: ValueError) -> CheckpointRefused:
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            found = parse_json(content).get("format", 1)
            if type(found) is not int or found != 1:  # true and 1.0 are equal to 1
                return CheckpointRefused(
                    f"{self.shown}/manifest.json has format {json.dumps(found)[:40]}, this expmgr reads format 1",
                    left_alone=_KEPT,
                    hint="use the expmgr that wrote it, or a newer one",
                )
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            reason = f"{f'{place}: ' if place else ''}{first['msg']}"
        return ManifestDamaged(
            f"{self.shown}/manifest.json cannot be read: {reason}",
            left_alone=_KEPT,
            hint=self._manifest_hint(),
        )

    def damage(self, saved: SavedCheckpoint, *, thorough: bool = True) -> list[str]:
        """What is wrong with the files of `saved`, a line each. Not `thorough`, the content of weights is not read."""
        return [
            line
            for name, file in saved.files.items()
            for line in _file_damage(self.path / name, file, thorough=thorough or ".data-" not in name)
        ]

    def _damaged(self, manifest: Manifest, shown: str, damage: list[str]) -> CheckpointDamaged:
        step = int(shown.rpartition("-")[2])
        whole = self._whole_before(manifest, step)
        told = f"{whole.name}, saved before it, is whole" if whole else "no checkpoint before it is whole"
        return CheckpointDamaged(
            f"{shown} was not restored: it is damaged",
            details=[*damage, told],
            left_alone=_KEPT,
            hint=self.back_hint(whole.step) if whole else self.fresh_hint,
        )

    def _whole_before(self, manifest: Manifest, step: int) -> SavedCheckpoint | None:
        older = [one for one in reversed(manifest.checkpoints) if one.step < step]
        return next((one for one in older if not self.damage(one)), None)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return []

    # Writing: under the lock.

    def set_aside(self, now: float) -> Path | None:
        """Move the folder to `.set-aside/seed-<n>-<UTC time>`; None where there is nothing in it."""
        if not self._names():
            return None
        aside = self.variant_dir / ".set-aside"
        with self._problems("the old model_dir"):
            durable.make_folder(aside)
            target = aside / f"{self.path.name}-{_stamp(now)}"
            os.rename(self.path, target)
            durable.fsync_dir(aside)
            durable.fsync_dir(self.variant_dir)
        return target

    def other_owners(self) -> list[str]:
        """The variants that manifests of the seeds in the folder name, except this one."""
        found = set()
        for path in self.variant_dir.glob("seed-*/manifest.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.add(str(parse_json(path.read_bytes())["variant"]))
        return sorted(found - {self.variant})

    def replace_owner(self, now: float) -> Path:
        """Write `variant.json` in place of one that cannot be read, which is kept in `.set-aside/seed-<n>-<UTC time>-owner`;
        its path."""
        owner = self.variant_dir / "variant.json"
        with self._problems(f"{self.shown.rpartition('/')[0]}/variant.json"):
            kept = self._keep(owner, f"{self.path.name}-{_stamp(now)}-owner")
            durable.write_json(owner, {"format": 1, "variant": self.variant})
        return kept

    def replace_manifest(self, manifest: Manifest, now: float) -> Path | None:
        """Write `manifest` in place of one that cannot be read, which is kept as `manifest.json` in
        `.set-aside/seed-<n>-<UTC time>-manifest`; its path, None if there was none."""
        damaged = self.path / "manifest.json"
        with self._problems(f"{self.shown}/manifest.json"):
            durable.make_folder(self.path)
            self._say_whose()
            kept = self._keep(damaged, f"{self.path.name}-{_stamp(now)}-manifest") if damaged.exists() else None
            self._write(manifest)
        return kept

    def _keep(self, damaged: Path, name: str) -> Path:
        """Keep a damaged file in the folder `name` of `.set-aside/`; where."""
        folder = self.variant_dir / ".set-aside" / name
        durable.make_folder(folder)
        target = folder / damaged.name
        try:
            os.link(damaged, target)  # it stays where it is until the new one replaces it
        except OSError as error:
            if error.errno in durable.DISK_ERRORS:
                raise
            os.rename(damaged, target)
        durable.fsync_dir(folder)
        return target

    def rewind(self, step: int, now: float) -> None:
        """Move the checkpoints after `step` to `.set-aside/seed-<n>-<UTC time>-after-<step>`; `prepare` came before.

        The manifest forgets them first: a crash in between leaves files that nobody counts.
        """
        gone = [one for one in self.manifest.checkpoints if one.step > step]
        if not gone:
            return
        name = f"{self.path.name}-{_stamp(now)}-after-{step}"
        aside = self.variant_dir / ".set-aside" / name
        with self._problems("what is set aside"):
            durable.make_folder(aside)
            update: dict[str, Any] = {"checkpoints": [one for one in self.manifest.checkpoints if one.step <= step]}
            if self.manifest.selected_step is not None and self.manifest.selected_step > step:
                update["selected_step"] = None
            update["set_aside"] = {name: [file for one in gone for file in one.files]}
            self._write(self.manifest.model_copy(update=update))
            self._finish_setting_aside()

    def _finish_setting_aside(self) -> None:
        """Move what is on its way to `.set-aside`; a crash may have come in between."""
        for name, files in self.manifest.set_aside.items():
            aside = self.variant_dir / ".set-aside" / name
            durable.make_folder(aside)
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path / file, aside / file)
            durable.fsync_dir(aside)
            durable.fsync_dir(self.path)
        self._write(self.manifest.model_copy(update={"set_aside": {}}))

    def prepare(self, now: float) -> None:
        """Make the folder ours, and clear away what a crash left of a save or a deletion."""
        with self._problems("the model_dir"):
            durable.make_folder(self.path)
            self._say_whose()
            found = self.read_manifest()
            self._manifest = found or Manifest(variant=self.variant, seed=self.seed, last_preserved_at=now)
            self._clear_leftovers(self._manifest)
            if self._manifest.set_aside:
                self._finish_setting_aside()
            # None: from now on whatever lies here is ours, also what a full disk cuts short. Another list than ours in
            # TensorFlow's file: a crash came between the two.
            if found is None or self._state() != _state_file(self._manifest):
                self._write(self._manifest)

    def _say_whose(self) -> None:
        """Write `variant.json`, where it is not there. Runs of several seeds do so at once, and each clears away what it
        takes for a crash's: whoever finds its file gone while it writes looks again."""
        owner = self.variant_dir / "variant.json"
        for left in reversed(range(_TRIES)):
            if owner.exists():
                return
            try:
                durable.write_json(owner, {"format": 1, "variant": self.variant})
            except FileNotFoundError:
                if not left:
                    raise

    @property
    def is_prepared(self) -> bool:
        return self._manifest is not None

    @property
    def manifest(self) -> Manifest:
        """What was last written; `prepare` comes first."""
        assert self._manifest is not None
        return self._manifest

    def _clear_leftovers(self, manifest: Manifest) -> None:
        listed = {name for saved in manifest.checkpoints for name in saved.files}
        names = self._names()
        unfinished = [name for name in names if name.startswith(".saving-")]
        steps = _saving(names)
        for name in names:
            if name not in listed and (name in manifest.removed or step_of(name) in steps):
                (self.path / name).unlink(missing_ok=True)
        for name in unfinished:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for path in (*self.path.glob(".*.tmp"), *self.variant_dir.glob(".variant.json.*.tmp")):
            path.unlink(missing_ok=True)

    def save(
        self, step: int, write: Callable[[Path], None], signature: Signature, about: CheckpointMetadata
    ) -> SavedCheckpoint:
        """Let `write` make the files of a checkpoint at a prefix, and list it once all of them are on the disk."""
        return self.take_in(self.write_aside(step, write), signature, about)

    def write_aside(self, step: int, write: Callable[[Path], None]) -> Aside:
        """The files of a checkpoint, whole and on the disk, in a folder of their own. They do not count yet.

        It touches nothing else, so a thread may do it while training goes on.
        """
        name = checkpoint_name(step)
        with self._problems(f"checkpoint {self.shown}/{name}"):
            aside = self.path / f".saving-{step}-{os.urandom(4).hex()}"
            aside.mkdir()
            try:
                write(aside / name)
                files = {}
                for path in sorted(aside.iterdir()):
                    durable.fsync_file(path)
                    files[path.name] = SavedFile(size_bytes=path.stat().st_size, sha256=sha256(path))
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
        return Aside(step, aside, files)

    def take_in(self, aside: Aside, signature: Signature, about: CheckpointMetadata) -> SavedCheckpoint:
        """Let what was written aside count: its files, its signature, and then its line in the manifest."""
        name = checkpoint_name(aside.step)
        with self._problems(f"checkpoint {self.shown}/{name}"):
            try:
                if self.may_write is not None:
                    self.may_write()
                for file in aside.files:
                    os.replace(aside.folder / file, self.path / file)
                files = dict(aside.files)
                saved = SavedCheckpoint(step=aside.step, finite=True, files=files, **asdict(about))
                kept = about_of(saved, self.manifest.last_preserved_at)
                provenance = {**signature.provenance, SAVED: kept}
                self._write_signature(name, signature.model_copy(update={"provenance": provenance}), files)
                saved = saved.model_copy(update={"files": files})
                self._list(saved)
            except BaseException:
                self._take_back(aside, name)
                raise
            self._drop(aside)
        return saved

    def admit(self, saved: SavedCheckpoint, files: Mapping[str, Path]) -> None:
        """Let a checkpoint count that was made elsewhere: its files, then its line in the manifest; `prepare` came before.

        `files`, name to where it lies, stay there: a crash loses nothing of them. Of those that are not the checkpoint's
        own (the rows of its probe) what is here by name already stays.
        """
        with self._problems(f"checkpoint {self.shown}/{saved.name}"):
            aside = Aside(saved.step, self.path / f".saving-{saved.step}-{os.urandom(4).hex()}", saved.files)
            aside.folder.mkdir()
            try:
                wanted = [name for name in files if name in saved.files or not (self.path / name).exists()]
                for name in wanted:
                    durable.copy_file(files[name], aside.folder / name)
                if self.may_write is not None:
                    self.may_write()
                for name in wanted:
                    os.replace(aside.folder / name, self.path / name)
                durable.fsync_dir(self.path)
                self._list(saved)
            except BaseException:
                self._take_back(aside, saved.name)
                raise
            self._drop(aside)

    def _take_back(self, aside: Aside, name: str) -> None:
        """Nothing of a checkpoint that does not count stays: on a full disk it would lie there for ever."""
        if self._is_taken_back(aside, name):
            self._drop(aside)
            return
        # Its files stay in the folder: the empty folder says that they are what was left of a save.
        for path in aside.folder.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()

    @staticmethod
    def _drop(aside: Aside) -> None:
        shutil.rmtree(aside.folder, ignore_errors=True)

    def _is_taken_back(self, aside: Aside, name: str) -> bool:
        """Delete what does not count; whether nothing of it is left."""
        try:  # the one on the disk: it may have got there before the error came, or be another owner's
            if self.may_write is not None:
                self.may_write()
            found = self.read_manifest(is_repaired=True)
        except (ExpmgrError, OSError):
            return not any((self.path / file).exists() for file in (*aside.files, f"{name}.json"))
        if found is not None and found.at(aside.step) is not None:
            return True
        is_gone = True
        for file in (*aside.files, f"{name}.json"):
            try:
                (self.path / file).unlink(missing_ok=True)
            except OSError:
                is_gone = False
        return is_gone

    def _write_signature(self, name: str, signature: Signature, files: dict[str, SavedFile]) -> None:
        content = (signature.model_dump_json(indent=1) + "\n").encode()
        durable.write_bytes(self.path / f"{name}.json", content)
        files[f"{name}.json"] = SavedFile(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def _list(self, saved: SavedCheckpoint) -> None:
        others = [one for one in self.manifest.checkpoints if one.step != saved.step]
        checkpoints = sorted([*others, saved], key=lambda one: one.step)
        self._write(self.manifest.model_copy(update={"checkpoints": checkpoints, "removed": []}))

    def retain(self, keep_max: int | None, every_n_hours: float | None) -> None:
        """Delete the checkpoints that need not be kept, once the manifest no longer lists them."""
        manifest = self.manifest
        decided = retention(
            [Saved(one.step, one.saved_at, one.preserved) for one in manifest.checkpoints],
            keep_max=keep_max,
            every_n_hours=every_n_hours,
            last_preserved_at=manifest.last_preserved_at,
            protected=() if manifest.selected_step is None else (manifest.selected_step,),
        )
        if not decided.delete and not decided.preserve:
            return
        removed = [name for one in manifest.checkpoints if one.step in decided.delete for name in one.files]
        kept = [
            one.model_copy(update={"preserved": one.preserved or one.step in decided.preserve})
            for one in manifest.checkpoints
            if one.step not in decided.delete
        ]
        with self._problems(f"{self.shown}/manifest.json"):
            update = {"checkpoints": kept, "removed": removed, "last_preserved_at": decided.last_preserved_at}
            self._write(manifest.model_copy(update=update))
            for name in removed:
                (self.path / name).unlink(missing_ok=True)

    def note_metrics(self, step: int, metrics: dict[str, dict[str, float]], evaluated_on: dict[str, str]) -> None:
        """Replace what is known of how good the checkpoint of `step` is."""
        update = {"metrics": metrics, "evaluated_on": evaluated_on}
        with self._problems(f"{self.shown}/manifest.json"):
            noted = [one.model_copy(update=update) if one.step == step else one for one in self.manifest.checkpoints]
            self._write(self.manifest.model_copy(update={"checkpoints": noted}))

    def select(self, step: int | None) -> None:
        """Note which checkpoint is the best."""
        with self._problems(f"{self.shown}/manifest.json"):
            self._write(self.manifest.model_copy(update={"selected_step": step}))

    def _write(self, manifest: Manifest) -> None:
        if self.may_write is not None:
            self.may_write()
        durable.write_json(self.path / "manifest.json", manifest.model_dump(mode="json"))
        self._manifest = manifest
        durable.write_bytes(self.path / "checkpoint", _state_file(manifest))

    def _state(self) -> bytes | None:
        try:
            return (self.path / "checkpoint").read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        """A full disk as `DiskFull`, every other error of the system as `ModelDirProblem`."""
        try:
            with durable.disk_errors(what):
                yield
        except OSError as error:
            raise ModelDirProblem(
                f"{self.shown} cannot be written: {os.strerror(error.errno or errno.EIO)}",
                hint="give yourself the right to write there, or move the root: models_dir in [tool.expmgr]",
            ) from error


def _saving(names: Iterable[str]) -> set[int]:
    """The steps of the checkpoints that are being written, or were when a crash came."""
    return {int(name.split("-")[1]) for name in names if name.startswith(".saving-")}


def _stamp(now: float) -> str:
    moment = datetime.fromtimestamp(now, timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z"


def _file_damage(path: Path, file: SavedFile, *, thorough: bool) -> Iterator[str]:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != file.size_bytes:
            yield f"{path.name} has {size_bytes:,} bytes, {file.size_bytes:,} were saved"
        elif thorough and sha256(path) != file.sha256:
            yield f"{path.name} has other content than was saved"
    except FileNotFoundError:
        yield f"{path.name} is missing"
    except OSError as error:
        yield f"{path.name} cannot be read: {error.strerror}"


def _state_file(manifest: Manifest) -> bytes:
    """TensorFlow's `checkpoint`: a CheckpointState in text form, paths relative to the folder."""
    names = [one.name for one in manifest.checkpoints]
    lines = [f'model_checkpoint_path: "{names[-1]}"'] if names else []
    return "".join(
        f"{line}\n" for line in [*lines, *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    ).encode()
