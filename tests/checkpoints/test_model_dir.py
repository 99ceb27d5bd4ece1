"""The model_dir: what counts, what is refused with nothing changed, and what a crash leaves. No TensorFlow."""

from __future__ import annotations

import errno
import json
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import signature
from expmgr.checkpoints.manifest import CheckpointMetadata, is_file_of
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.errors import CheckpointRefused, DiskFull, ExpmgrError, ModelDirProblem
from tables import index_bytes
from train.runs import tree


def write(prefix: Path) -> None:
    prefix.with_name(f"{prefix.name}.index").write_bytes(index_bytes({}))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_text(f"weights of {prefix.name}")


class Folder:
    """The model_dir of iris/wide, seed 0, and its saves."""

    def __init__(self, root: Path) -> None:
        self.path = root / "iris" / "wide" / "seed-0"

    def opened(self, variant: str = "iris/wide", seed: int = 0) -> ModelDir:
        return ModelDir(self.path, shown=f"models/{variant}/seed-{seed}", variant=variant, seed=seed)

    def save(self, *steps: int, write: Callable[[Path], None] = write) -> ModelDir:
        opened = self.opened()
        opened.prepare(now=0.0)
        for step in steps:
            opened.save(step, write, signature(step), CheckpointMetadata(float(step), step * 8))
        return opened


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def refused(opened: ModelDir, kind: type[ExpmgrError] = CheckpointRefused) -> list[str]:
    """The story of the refusal; and nothing has changed."""
    before = tree(opened.variant_dir)
    with pytest.raises(kind) as caught:
        opened.inspect()
    assert tree(opened.variant_dir) == before
    return caught.value.lines()


def test_the_newest_is_what_the_manifest_says(folder: Folder) -> None:
    folder.save(0, 100, 200)
    found = folder.opened().inspect()
    assert found is not None
    assert (found.saved.step, found.saved.examples_seen, found.signature.step) == (200, 1600, 200)
    assert (folder.path / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-200"\n'
        'all_model_checkpoint_paths: "model.ckpt-0"\n'
        'all_model_checkpoint_paths: "model.ckpt-100"\n'
        'all_model_checkpoint_paths: "model.ckpt-200"\n'
    )
    (folder.path / "checkpoint").unlink()
    assert folder.opened().inspect() is not None


def test_nothing_is_an_empty_folder_and_no_error(folder: Folder) -> None:
    assert folder.opened().inspect() is None
    folder.opened().check_usable()
    assert not folder.path.exists()
    folder.save()
    (folder.path / "events.out.tfevents.1.host.2").touch()
    assert folder.opened().inspect() is None


def test_a_lost_manifest_is_no_fresh_start(folder: Folder) -> None:
    folder.save(100)
    (folder.path / "manifest.json").unlink()
    assert refused(folder.opened()) == [
        "Error: models/iris/wide/seed-0 holds checkpoints, but no manifest.json that says whose they are",
        "  checkpoint",
        "  model.ckpt-100.data-00000-of-00001",
        "  model.ckpt-100.index",
        "Nothing was changed on disk.",
        "Hint: rebuild the manifest from the checkpoints that are whole: expmgr checkpoints iris/wide --rebuild",
    ]
    (folder.path / "model.ckpt-100.json").unlink()
    assert refused(folder.opened())[-1] == (
        "Hint: to start anew and keep the old model_dir aside: expmgr run iris/wide --fresh"
    )


def test_a_manifest_that_cannot_be_read(folder: Folder) -> None:
    folder.save(100)
    path = folder.path / "manifest.json"
    whole = path.read_text()
    path.write_text(whole.replace('"format": 1', '"format": 7'))
    assert (
        refused(folder.opened())[0]
        == "Error: models/iris/wide/seed-0/manifest.json has format 7, this expmgr reads format 1"
    )
    path.write_text(whole[:50])
    assert refused(folder.opened())[0].startswith(
        "Error: models/iris/wide/seed-0/manifest.json cannot be read: Invalid JSON"
    )
    path.write_text('{"format": 1}')
    assert refused(folder.opened())[0].startswith(
        "Error: models/iris/wide/seed-0/manifest.json cannot be read: variant:"
    )


@pytest.mark.parametrize("found", [True, False, 0, -1, 2, 1.0, 1.5, "1", "x", None, [1], {}, "\ud800", 10**30])
def test_a_manifest_of_another_format_is_not_damaged(folder: Folder, found: object) -> None:
    """An expmgr that reads it may exist, so no rebuild is offered."""
    folder.save(100)
    path = folder.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": found}))
    said = f"has format {json.dumps(found)[:40]}, this expmgr reads format 1"
    assert refused(folder.opened()) == [
        f"Error: models/iris/wide/seed-0/manifest.json {said}",
        "Nothing was changed on disk.",
        "Hint: use the expmgr that wrote it, or a newer one",
    ]


def test_missing_and_cut_files_are_named_with_the_checkpoint_that_is_whole(folder: Folder) -> None:
    folder.save(100, 200, 300)
    (folder.path / "model.ckpt-300.index").unlink()
    with open(folder.path / "model.ckpt-300.data-00000-of-00001", "ab") as file:
        file.truncate(3)
    (folder.path / "model.ckpt-200.json").write_text("{}")
    assert refused(folder.opened()) == [
        "Error: models/iris/wide/seed-0/model.ckpt-300 was not restored: it is damaged",
        "  model.ckpt-300.data-00000-of-00001 has 3 bytes, 25 were saved",
        "  model.ckpt-300.index is missing",
        "  model.ckpt-100, saved before it, is whole",
        "Nothing was changed on disk.",
        "Hint: to go on from step 100, with what came after it kept aside: expmgr run iris/wide --from-step 100",
    ]
    (folder.path / "model.ckpt-100.index").unlink()
    assert refused(folder.opened())[-3:] == [
        "  no checkpoint before it is whole",
        "Nothing was changed on disk.",
        "Hint: to start anew and keep the old model_dir aside: expmgr run iris/wide --fresh",
    ]


def test_going_back_keeps_what_came_after_aside(folder: Folder) -> None:
    opened = folder.save(100, 200, 300)
    opened.select(300)
    before = {path.name: path.read_bytes() for path in folder.path.glob("model.ckpt-[23]00*")}
    opened.rewind(100, now=0.0)
    (aside,) = (folder.path.parent / ".set-aside").iterdir()
    assert aside.name == "seed-0-19700101T000000000Z-after-100"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert ([one.step for one in opened.manifest.checkpoints], opened.manifest.selected_step) == ([100], None)
    again = folder.opened().inspect()
    assert again is not None
    assert again.saved.step == 100
    opened.rewind(100, now=1.0)
    assert len(list((folder.path.parent / ".set-aside").iterdir())) == 1


def test_what_is_written_aside_counts_when_it_is_taken_in(folder: Folder) -> None:
    opened = folder.save(100)
    aside = opened.write_aside(200, write)
    assert [one.step for one in opened.manifest.checkpoints] == [100]
    assert not (folder.path / "model.ckpt-200.index").exists()
    opened.take_in(aside, signature(200), CheckpointMetadata(2.0, 3))
    found = folder.opened().inspect()
    assert found is not None
    assert (found.saved.step, found.saved.examples_seen) == (200, 3)
    assert not list(folder.path.glob(".saving-*"))


def test_another_variant_s_or_seed_s_folder(folder: Folder) -> None:
    folder.save(100)
    assert refused(folder.opened("iris/deep"), ModelDirProblem)[0] == (
        "Error: models/iris/deep belongs to variant iris/wide, not to iris/deep"
    )
    (folder.path.parent / "variant.json").unlink()
    assert refused(folder.opened("iris/deep"), ModelDirProblem)[0] == (
        "Error: models/iris/deep/seed-0 belongs to variant iris/wide, seed 0, not to iris/deep, seed 0"
    )
    assert refused(folder.opened(seed=1), ModelDirProblem)[0] == (
        "Error: models/iris/wide/seed-1 belongs to variant iris/wide, seed 0, not to iris/wide, seed 1"
    )


def as_nobody(work: Callable[[], str]) -> str:
    """What `work` says in a process without root's rights."""
    end, begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            os.write(begin, work().encode())
            code = 0
        finally:
            os._exit(code)
    os.close(begin)
    with open(end, encoding="utf-8") as said:
        text = said.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return text


#: The exit codes of a process that died where it was to, and of one that did all of its work.
DIED, DONE = 17, 18


def in_a_process(work: Callable[[], object]) -> int:
    """The exit code of a process that does `work`: `DONE`, unless it ends otherwise on the way."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = DONE
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_model_dir_that_is_not_writable(folder: Folder) -> None:
    folder.save(100)
    for place in (folder.path, folder.path.parent):
        place.chmod(0o555)
    for above in folder.path.parents:  # pytest's own folders let nobody in
        if above != folder.path.parent and "pytest" in str(above):
            above.chmod(0o755)

    def look() -> str:
        try:
            folder.opened().check_usable()
        except ModelDirProblem as problem:
            return "\n".join(problem.lines())
        return "usable"

    assert as_nobody(look).splitlines() == [
        "Error: models/iris/wide/seed-0 cannot be written: Permission denied",
        "Nothing was changed.",
        "Hint: give yourself the right to write there, or move the root: models_dir in [tool.expmgr]",
    ]
    for place in (folder.path.parent, folder.path):
        place.chmod(0o755)


def test_a_file_where_the_model_dir_should_be(folder: Folder) -> None:
    folder.path.parent.mkdir(parents=True)
    folder.path.write_text("not a folder")
    with pytest.raises(ModelDirProblem, match="models/iris/wide/seed-0 cannot be written: Not a directory"):
        folder.opened().check_usable()


def test_a_full_disk_leaves_the_checkpoints_that_count(folder: Folder) -> None:
    opened = folder.save(100)
    before = tree(folder.path)

    def full(prefix: Path) -> None:
        write(prefix)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull) as caught:
        opened.save(200, full, signature(200), CheckpointMetadata(0.0, 0))
    assert caught.value.message == (
        "checkpoint models/iris/wide/seed-0/model.ckpt-200 could not be written: No space left on device"
    )
    assert tree(folder.path) == before


#: Renames and deletions of a save and of the retention after it.
OPERATIONS = 11


@pytest.mark.parametrize("dies_at", range(1, OPERATIONS + 2))
def test_a_crash_at_any_write_leaves_a_whole_newest_and_no_litter(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """The process is gone at the n-th rename or deletion of a save and of the retention after it."""
    folder.save(100, 200)

    def work() -> None:
        left = [dies_at]

        def counted(act: Callable[..., None]) -> Callable[..., None]:
            def acting(*args: object, **kwargs: object) -> None:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(DIED)
                act(*args, **kwargs)

            return acting

        for owner, name in ((os, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
        opened = folder.save(300)
        opened.retain(2, None)

    assert in_a_process(work) == (DIED if dies_at <= OPERATIONS else DONE)
    found = folder.opened().inspect()
    assert found is not None
    assert found.saved.step in (200, 300)
    folder.opened().prepare(now=0.0)
    listed = {name for one in folder.opened().inspect().manifest.checkpoints for name in one.files}  # type: ignore[union-attr]
    assert {path.name for path in folder.path.iterdir()} - listed == {"manifest.json", "checkpoint"}


def test_a_crash_before_the_first_manifest_is_a_fresh_start(folder: Folder) -> None:
    opened = folder.opened()
    opened.prepare(now=0.0)
    aside = folder.path / ".saving-0-abcd"
    aside.mkdir()
    write(folder.path / "model.ckpt-0")
    assert folder.opened().inspect() is None
    folder.opened().prepare(now=0.0)
    assert {path.name for path in folder.path.iterdir()} == {"manifest.json", "checkpoint"}


def test_retention_deletes_what_the_manifest_no_longer_lists(folder: Folder) -> None:
    opened = folder.save(*range(0, 800, 100))
    opened.select(100)
    opened.retain(5, 10_000)
    manifest = json.loads((folder.path / "manifest.json").read_bytes())
    assert [one["step"] for one in manifest["checkpoints"]] == [100, 300, 400, 500, 600, 700]
    assert sorted(path.stem for path in folder.path.glob("*.index")) == [
        f"model.ckpt-{step}" for step in (100, 300, 400, 500, 600, 700)
    ]


def test_a_folder_set_aside_is_kept_whole(folder: Folder) -> None:
    opened = folder.save(100)
    before = tree(folder.path)
    aside = opened.set_aside(now=1_700_000_000.25)
    assert aside == folder.path.parent / ".set-aside" / "seed-0-20231114T221320250Z"
    assert tree(aside) == before
    assert opened.set_aside(now=1_700_000_001.0) is None


def test_the_variant_s_name_is_in_the_folder(folder: Folder) -> None:
    folder.save()
    assert json.loads((folder.path.parent / "variant.json").read_bytes()) == {"format": 1, "variant": "iris/wide"}
    durable.write_json(folder.path.parent / "variant.json", [])
    assert refused(folder.opened(), ModelDirProblem)[0] == (
        "Error: models/iris/wide/variant.json cannot be read, so whose model_dir this is stays unknown"
    )


def test_what_is_admitted_leaves_the_probe_s_rows_that_are_here(folder: Folder, tmp_path: Path) -> None:
    """And the files that it came from, so that a crash loses nothing of them."""
    made = Folder(tmp_path / "made")
    saved = made.save(100).manifest.checkpoints[0]
    (made.path / "probe-0123456789abcdef.npz").write_text("theirs")
    opened = folder.save()
    (folder.path / "probe-0123456789abcdef.npz").write_text("ours")
    (folder.path / "model.ckpt-100.index").write_text("of nothing that counts")
    before = tree(made.path)
    names = [*saved.files, "probe-0123456789abcdef.npz"]
    opened.admit(saved, {name: made.path / name for name in names})
    assert tree(made.path) == before
    whole = folder.opened().inspect()
    assert whole is not None
    assert whole.saved == saved
    assert (folder.path / "probe-0123456789abcdef.npz").read_text() == "ours"
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("name", ["model.ckpt-7.meta", "model.ckpt-7.index", "model.ckpt-7.data-00001-of-00002"])
def test_which_files_are_of_a_checkpoint(name: str) -> None:
    assert is_file_of(7, name)
    assert not is_file_of(77, name)
    for wrong in (f"{name}.tmp", f"{name}\n", f"./{name}", name.replace("7", "07"), name.replace("7", "\u0667")):
        assert not is_file_of(7, wrong)
    assert not is_file_of(7, name.replace("7", "7" * 5000))


def test_seeds_that_begin_at_once_do_not_take_each_others_files_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one clears away what it takes for a crash's, between the writing of `variant.json` and its renaming."""
    one, two = (ModelDir(tmp_path / f"seed-{seed}", shown="x", variant="iris/wide", seed=seed) for seed in (0, 1))
    replace = os.replace

    def slow(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        two.prepare(1.0)
        replace(source, target)

    monkeypatch.setattr(os, "replace", slow)
    one.prepare(1.0)
    assert json.loads((tmp_path / "variant.json").read_text())["variant"] == "iris/wide"
    assert (one.read_manifest(), two.read_manifest()) != (None, None)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_content_of_the_same_size_is_damage(folder: Folder) -> None:
    """Of weights only where their content is read; of what is small always."""
    folder.save(100)
    weights, index = (folder.path / f"model.ckpt-100.{end}" for end in ("data-00000-of-00001", "index"))
    weights.write_bytes(weights.read_bytes()[::-1])
    assert refused(folder.opened())[1] == "  model.ckpt-100.data-00000-of-00001 has other content than was saved"
    quick = folder.opened().inspect(thorough=False)
    assert quick is not None
    assert quick.saved.step == 100
    content = index.read_bytes()
    index.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointRefused) as caught:
        folder.opened().inspect(thorough=False)
    assert caught.value.lines()[1] == "  model.ckpt-100.index has other content than was saved"


def test_going_back_to_the_selected_checkpoint_leaves_it_selected(folder: Folder) -> None:
    opened = folder.save(100, 200, 300)
    opened.select(200)
    opened.rewind(200, now=0.0)
    assert ([one.step for one in opened.manifest.checkpoints], opened.manifest.selected_step) == ([100, 200], 200)


def test_who_may_not_write_any_more_writes_nothing(folder: Folder) -> None:
    """The right to write is asked for before each manifest: whoever lost the lock changes nothing."""
    opened = folder.save(100, 200, 300)

    def lost() -> None:
        raise ModelDirProblem("the lock is lost")

    opened.may_write = lost
    before = tree(folder.path)
    for work in (
        lambda: opened.select(100),
        lambda: opened.note_metrics(100, {}, {}),
        lambda: opened.retain(1, None),
        lambda: opened.rewind(100, now=0.0),
        lambda: opened.save(400, write, signature(400), CheckpointMetadata(0.0, 0)),
    ):
        with pytest.raises(ModelDirProblem, match="the lock is lost"):
            work()
    opened.may_write = None
    folder.opened().prepare(now=0.0)
    after = tree(folder.path)
    assert {name: content for name, content in after.items() if ".ckpt-400" not in name} == before


def test_what_was_preserved_once_stays(folder: Folder) -> None:
    opened = folder.opened()
    opened.prepare(now=0.0)
    for step in range(6):
        opened.save(step, write, signature(step), CheckpointMetadata(3600.0 * step, step))
        opened.retain(1, 2.0)
    assert [(one.step, one.preserved) for one in opened.manifest.checkpoints] == [(2, True), (4, True), (5, False)]
    assert opened.manifest.last_preserved_at == 4 * 3600.0


def test_files_without_a_manifest_are_named_five_at_most_and_a_crash_s_are_none(folder: Folder) -> None:
    folder.save(1, 2, 3)
    (folder.path / "manifest.json").unlink()
    lines = refused(folder.opened())
    assert lines[1:7] == [
        "  checkpoint",
        *(f"  model.ckpt-{step}.{end}" for step in (1, 2) for end in ("data-00000-of-00001", "index")),
        "  and 2 more",
    ]
    for step in (1, 2, 3):
        (folder.path / f".saving-{step}-abcd").mkdir()
    (folder.path / "checkpoint").unlink()
    assert folder.opened().inspect() is None


def test_what_the_manifest_lists_stays_though_an_error_came_after_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's file is written after the manifest: by then the checkpoint counts."""
    opened = folder.save(100)
    real = durable.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.name == "checkpoint":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, content)

    monkeypatch.setattr(durable, "write_bytes", full)
    with pytest.raises(DiskFull):
        opened.save(200, write, signature(200), CheckpointMetadata(2.0, 3))
    monkeypatch.undo()
    found = folder.opened().inspect()
    assert found is not None
    assert found.saved.step == 200
    assert "200" not in (folder.path / "checkpoint").read_text()
    folder.opened().prepare(now=0.0)
    assert (folder.path / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt-200"\n')


def test_metrics_are_noted_of_one_checkpoint(folder: Folder) -> None:
    opened = folder.save(100, 200)
    opened.note_metrics(100, {"eval": {"loss": 0.5}}, {"eval": "rows"})
    found = folder.opened().read_manifest()
    assert found is not None
    assert [(one.metrics, one.evaluated_on) for one in found.checkpoints] == [
        ({"eval": {"loss": 0.5}}, {"eval": "rows"}), ({}, {})
    ]  # fmt: skip
