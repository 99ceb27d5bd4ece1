"""A lost or damaged manifest: who meets it offers the rebuild, and the rebuild lists what is whole. No TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import expmgr
from checkpoints.test_model_dir import Folder, write
from clones import ok, saved, signature
from expmgr.checkpoints.manifest import CheckpointMetadata, Manifest
from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.rebuild import Known, rebuilt
from expmgr.disk.locks import held
from expmgr.errors import Busy, CheckpointRefused
from train.runs import tree
from world import Repo

MODEL_DIR = "models/iris/wide/seed-1"


@pytest.fixture
def trained(iris: Repo) -> Repo:
    """Seed 1 of iris/wide has three checkpoints."""
    ok(iris, "new", "iris/wide", "--set", "train.max_steps=30")
    saved(iris, "iris/wide", 1, b"weights", steps=3)
    return iris


def manifest_of(repo: Repo) -> Path:
    return repo.path / MODEL_DIR / "manifest.json"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_object(path: Path) -> None:
    path.write_text("[]")


def no_manifest(path: Path) -> None:
    path.write_text('{"checkpoints": []}')


def not_text(path: Path) -> None:
    path.write_bytes(os.urandom(64))


DAMAGES: tuple[Callable[[Path], object], ...] = (cut, empty, no_object, no_manifest, not_text, Path.unlink)


def named(damage: Callable[[Path], object]) -> str:
    return damage.__name__


@pytest.mark.parametrize("damage", DAMAGES, ids=named)
def test_the_rebuilt_manifest_is_the_old_one(trained: Repo, damage: Callable[[Path], object]) -> None:
    before, state = manifest_of(trained).read_bytes(), (trained.path / MODEL_DIR / "checkpoint").read_bytes()
    damage(manifest_of(trained))
    damaged = manifest_of(trained).read_bytes() if manifest_of(trained).exists() else None
    (trained.path / MODEL_DIR / "checkpoint").unlink()
    refused = trained.expmgr("checkpoints", "iris/wide", "--seeds", "1")
    assert refused.code == 3
    hint = "Hint: rebuild the manifest from the checkpoints that are whole: "
    assert refused.stderr.splitlines()[-2:] == [
        "Nothing was changed on disk.",
        f"{hint}expmgr checkpoints iris/wide --rebuild --seeds 1",
    ]
    command = refused.stderr.splitlines()[-1].removeprefix(hint).split()
    result = trained.expmgr(*command[1:])
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{MODEL_DIR}/manifest.json was rebuilt: it lists steps 28, 29, 30"
    assert manifest_of(trained).read_bytes() == before
    assert (trained.path / MODEL_DIR / "checkpoint").read_bytes() == state
    if damaged is None:
        assert len(lines) == 1
    else:
        kept = lines[1].removeprefix("the damaged one is kept in ")
        assert re.fullmatch(r"models/iris/wide/\.set-aside/seed-1-\d{8}T\d{9}Z-manifest/manifest\.json", kept)
        assert (trained.path / kept).read_bytes() == damaged
    assert trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1").stdout == (
        f"{MODEL_DIR}/manifest.json can be read, so it was not changed: it lists steps 28, 29, 30\n"
    )


#: What meets a damaged manifest and does not need TensorFlow to say so.
COMMANDS = (
    ("run", "iris/wide", "--seeds", "1"),
    ("check", "iris/wide", "--seeds", "1"),
    ("check", "iris/wide@30", "--seeds", "1"),
    ("checkpoints", "iris/wide", "--seeds", "1"),
    ("push", "--checkpoints", "all"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_who_meets_it_offers_the_rebuild(trained: Repo, command: tuple[str, ...]) -> None:
    ok(trained, "list")
    (trained.path / "expmgr.toml").write_text('store = "shared"\n')
    trained.git("init", "--quiet", "--bare", str(trained.path.parent / "hub.git"))
    trained.git("remote", "add", "origin", str(trained.path.parent / "hub.git"))
    cut(manifest_of(trained))
    before = tree(trained.path / "models")
    result = trained.expmgr(*command)
    assert "expmgr checkpoints iris/wide --rebuild --seeds 1\n" in result.stderr
    assert f"{MODEL_DIR}/manifest.json cannot be read" in result.stderr
    assert tree(trained.path / "models") == before
    assert result.code == 3, result.stderr


def test_compare_offers_it_too(trained: Repo) -> None:
    ok(trained, "new", "iris/other")
    saved(trained, "iris/other", 1, b"others")
    cut(manifest_of(trained))
    result = trained.expmgr("compare", "iris/other", "iris/wide")
    assert f"{MODEL_DIR}/manifest.json cannot be read" in result.stderr
    assert ": expmgr checkpoints iris/wide --rebuild --seeds 1" in result.stderr


def test_what_is_not_whole_is_not_taken(trained: Repo) -> None:
    folder = trained.path / MODEL_DIR
    with open(folder / "model.ckpt-30.data-00000-of-00001", "r+b") as file:
        file.truncate(3)
    index = bytearray((folder / "model.ckpt-28.index").read_bytes())
    index[0] ^= 1
    (folder / "model.ckpt-28.index").write_bytes(index)
    (folder / "model.ckpt-7.index").write_bytes(b"somebody else's")
    manifest_of(trained).unlink()
    left = {name: content for name, content in tree(folder).items() if "29" not in name}
    told = json.loads(ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1", "--json"))
    assert told["format"] == 1
    (one,) = told["rebuilt"]
    assert (one["steps"], one["seed"], one["set_aside"], one["was_whole"]) == ([29], 1, None, False)
    whys = {found["name"]: found["why"] for found in one["not_taken"]}
    assert whys == {
        "model.ckpt-7": "its signature model.ckpt-7.json is missing",
        "model.ckpt-28": "model.ckpt-28.index has other content than was saved",
        "model.ckpt-30": "model.ckpt-30.data-00000-of-00001 has 3 bytes, 9 were saved",
    }
    after = tree(folder)
    assert {name: after[name] for name in left if not name.endswith("checkpoint")} == {
        name: content for name, content in left.items() if not name.endswith("checkpoint")
    }


def test_without_a_whole_checkpoint_nothing_changes(trained: Repo) -> None:
    folder = trained.path / MODEL_DIR
    for path in folder.glob("*.data-*"):
        path.unlink()
    cut(manifest_of(trained))
    before = tree(trained.path / "models")
    result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert result.code == 3
    assert result.stderr == (
        f"Error: the manifest of {MODEL_DIR} was not rebuilt: none of its checkpoints is whole\n"
        "  model.ckpt-28: model.ckpt-28.data-00000-of-00001 is missing\n"
        "  model.ckpt-29: model.ckpt-29.data-00000-of-00001 is missing\n"
        "  model.ckpt-30: model.ckpt-30.data-00000-of-00001 is missing\n"
        "Nothing was changed.\n"
        "Hint: to start anew and keep the old model_dir aside: expmgr run iris/wide --seeds 1 --fresh\n"
    )
    assert tree(trained.path / "models") == before


def test_it_takes_the_lock(trained: Repo) -> None:
    cut(manifest_of(trained))
    before = manifest_of(trained).read_bytes()
    with held(trained.path / "models/iris/wide/.locks/seed-1", "the model_dir"):
        result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
        with pytest.raises(Busy):
            expmgr.open(trained.path).rebuild_checkpoints("iris/wide", seeds=[1])
    assert result.code == 4, result.stderr
    assert manifest_of(trained).read_bytes() == before


def test_seed_names_one_too(trained: Repo) -> None:
    cut(manifest_of(trained))
    assert "was rebuilt: it lists steps 28, 29, 30" in ok(
        trained, "checkpoints", "iris/wide", "--rebuild", "--seed", "1"
    )


def test_from_python(trained: Repo) -> None:
    repository = expmgr.open(trained.path)
    cut(manifest_of(trained))
    (one,) = repository.rebuild_checkpoints("iris/wide", seeds=[1])
    assert (one.steps, one.selected_step, list(one.not_taken), list(one.notes)) == ([28, 29, 30], None, [], [])
    assert one.set_aside is not None
    with pytest.raises(CheckpointRefused, match="has no checkpoints, so there is no manifest to rebuild"):
        repository.rebuild_checkpoints("iris/wide")


def test_another_variants_manifest_is_not_damaged(trained: Repo) -> None:
    values = json.loads(manifest_of(trained).read_text())
    manifest_of(trained).write_text(json.dumps({**values, "variant": "iris/other"}))
    assert trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1").code == 1
    manifest_of(trained).write_text(json.dumps({**values, "format": 2}))
    result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert result.code == 3
    assert "has format 2, this expmgr reads format 1" in result.stderr


def test_everything_that_the_manifest_said_comes_back(tmp_path: Path) -> None:
    """Metrics, what early stopping and callbacks carry over a stop, what was preserved, and which one is selected."""
    folder = ModelDir(tmp_path / "iris/wide/seed-0", shown="models/iris/wide/seed-0", variant="iris/wide", seed=0)
    folder.prepare(now=1000.0)
    for number, value in enumerate((0.5, 0.9, 0.9, 0.7, 0.6, 0.8, 0.1), start=1):
        carried = {"early_stopping": {"waited": number}, "callbacks": {"a": [0.1 * number]}}
        about = CheckpointMetadata(
            1000.0 + 1800.0 * number, number * 32, {"eval": {"accuracy": value}}, {"eval": "rows"}, carried
        )
        folder.save(number * 10, write, signature(number * 10), about)
        if number == 2:
            folder.select(20)
        if number < 7:  # what is preserved after the last save is decided after the next one
            folder.retain(2, 1.0)
    wanted = Manifest.model_validate_json((folder.path / "manifest.json").read_bytes())
    assert {one.step: one.preserved for one in wanted.checkpoints if one.preserved}
    (folder.path / "manifest.json").unlink()
    known = Known(
        selection={"metric": "accuracy", "split": "eval", "mode": "max"}, rows={"eval": "rows"}, began_at=1000.0
    )
    found = rebuilt(folder.path, folder.shown, "iris/wide", 0, known)
    assert (found.not_taken, found.notes) == ([], [])
    assert found.manifest == wanted
    # On other rows than the record names the metrics do not count.
    other = rebuilt(
        folder.path, folder.shown, "iris/wide", 0, Known(selection=known.selection, rows={"eval": "others"})
    )
    assert other.manifest.selected_step is None
    assert other.notes == ["no checkpoint is selected: none has eval accuracy"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 1}', b'{"variant": 5}', b"\xff\xfe"])
def test_a_damaged_variant_json_is_rebuilt(trained: Repo, content: bytes) -> None:
    path = trained.path / "models/iris/wide/variant.json"
    before = path.read_bytes()
    path.write_bytes(content)
    refused = trained.expmgr("run", "iris/wide", "--seeds", "1", "--max-steps", "40")
    assert refused.stderr.splitlines()[1:] == [
        "Error: models/iris/wide/variant.json cannot be read, so whose model_dir this is stays unknown",
        "Nothing was changed on disk.",
        "Hint: rebuild it from what its checkpoints say: expmgr checkpoints iris/wide --rebuild --seeds 1",
    ]
    assert refused.code == 1
    shown, whole = ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1").splitlines()
    assert whole == f"{MODEL_DIR}/manifest.json can be read, so it was not changed: it lists steps 28, 29, 30"
    start, _, kept = shown.partition("; the damaged one is kept in ")
    assert start == "models/iris/wide/variant.json was rebuilt"
    assert ((trained.path / kept).read_bytes(), path.read_bytes()) == (content, before)


def test_both_files_damaged(trained: Repo) -> None:
    (trained.path / "models/iris/wide/variant.json").write_text("{")
    cut(manifest_of(trained))
    lines = ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1").splitlines()
    assert [line.partition(" ")[2][:12] for line in lines[:2]] == ["was rebuilt;", "was rebuilt:"]
    assert lines[1].endswith("it lists steps 28, 29, 30")


DAMAGED_OWNER = "models/iris/wide/variant.json cannot be read, so whose model_dir this is stays unknown"


def hinted(stderr: str) -> list[str]:
    """What the hint says to type, without `expmgr`."""
    return stderr.splitlines()[-1].rpartition(": expmgr ")[2].split()


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_damaged_variant_json_without_a_checkpoint_has_a_way_out(trained: Repo, seed: int) -> None:
    """The first run was killed before its first save, or the seed is new."""
    owner = trained.path / "models/iris/wide/variant.json"
    before = owner.read_bytes()
    shutil.rmtree(trained.path / MODEL_DIR)
    (trained.path / MODEL_DIR).mkdir()
    owner.write_text("{")
    for more in ((), ("--fresh",)):
        refused = trained.expmgr("run", "iris/wide", "--seeds", str(seed), "--max-steps", "40", *more)
        assert (refused.code, DAMAGED_OWNER in refused.stderr) == (1, True)
    command = hinted(refused.stderr)
    told = ok(trained, *command).splitlines()
    assert told[0].startswith("models/iris/wide/variant.json was rebuilt; the damaged one is kept in ")
    assert told[1:] == [f"models/iris/wide/seed-{seed} has no checkpoints, so there is no manifest to rebuild"]
    assert owner.read_bytes() == before
    again = trained.expmgr(*command)
    assert (again.code, again.stderr.splitlines()[1]) == (3, "Nothing was changed.")
    assert again.stderr.endswith(f"Hint: train it: expmgr run iris/wide{f' --seeds {seed}' if seed else ''}\n")


def test_a_rebuilt_variant_json_is_told_where_no_checkpoint_is_whole(trained: Repo) -> None:
    owner = trained.path / "models/iris/wide/variant.json"
    before = owner.read_bytes()
    for path in (trained.path / MODEL_DIR).glob("*.data-*"):
        path.unlink()
    owner.write_text("{")
    cut(manifest_of(trained))
    damaged = manifest_of(trained).read_bytes()
    result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert result.code == 3
    (kept,) = (trained.path / "models/iris/wide/.set-aside").glob("*-owner/variant.json")
    shown = kept.relative_to(trained.path)
    said = f"Apart from the rebuilt models/iris/wide/variant.json (the damaged one is kept in {shown}), nothing was changed."
    assert result.stderr.splitlines()[-2] == said
    assert (owner.read_bytes(), kept.read_text(), manifest_of(trained).read_bytes()) == (before, "{", damaged)


@pytest.mark.parametrize("first", [True, False], ids=["the first is whole", "the second is whole"])
def test_a_seed_that_is_not_whole_keeps_no_other_from_its_rebuild(trained: Repo, first: bool) -> None:
    saved(trained, "iris/wide", 0, b"others")
    folders = [trained.path / "models/iris/wide" / f"seed-{seed}" for seed in (0, 1)]
    whole, broken = folders if first else folders[::-1]
    for folder in folders:
        cut(folder / "manifest.json")
    for path in broken.glob("*.data-*"):
        path.unlink()
    left = tree(broken)
    result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "0-1,5")
    assert result.code == 3
    assert result.stdout.startswith(f"models/iris/wide/{whole.name}/manifest.json was rebuilt: it lists steps ")
    apart = f"Apart from the rebuilt manifest of models/iris/wide/{whole.name}, nothing was changed."
    assert result.stderr.splitlines().count(apart) == 2
    assert f"the manifest of models/iris/wide/{broken.name} was not rebuilt: none of its checkpoints" in result.stderr
    assert "models/iris/wide/seed-5 has no checkpoints" in result.stderr
    assert tree(broken) == left
    found = expmgr.open(trained.path).rebuild_checkpoints("iris/wide", seeds=[0, 1])
    assert [(one.seed, one.was_whole) for one in found] == [(int(whole.name[-1]), True)]
    assert ([type(one) for one in found.errors], found.exit_code) == ([CheckpointRefused], 3)


def test_with_a_damaged_variant_json_no_whole_checkpoint_is_called_damaged(trained: Repo) -> None:
    (trained.path / "models/iris/wide/variant.json").write_text("{")
    result = trained.expmgr("checkpoints", "iris/wide", "--seeds", "1", "--json")
    verdicts = [one["verdict"] for one in json.loads(result.stdout)["checkpoints"]]
    assert (result.code, verdicts) == (1, ["unknown"] * 3)
    assert DAMAGED_OWNER in result.stderr
    assert hinted(result.stderr) == ["checkpoints", "iris/wide", "--rebuild", "--seeds", "1"]
    checks = json.loads(trained.expmgr("doctor", "--json").stdout)["checks"]
    (about,) = [one for one in checks if one["id"] == "model_dirs"]
    assert (about["state"], about["message"]) == ("error", DAMAGED_OWNER)
    ok(trained, *about["fix"].rpartition(": expmgr ")[2].split())
    checks = json.loads(trained.expmgr("doctor", "--json").stdout)["checks"]
    assert [one["state"] for one in checks if one["id"] == "model_dirs"] == ["ok"]


def test_a_variant_json_is_not_rebuilt_beside_what_another_variant_owns(trained: Repo) -> None:
    ok(trained, "new", "iris/other")
    saved(trained, "iris/other", 0, b"others")
    shutil.copytree(trained.path / "models/iris/other/seed-0", trained.path / "models/iris/wide/seed-0")
    (trained.path / "models/iris/wide/variant.json").write_text("{")
    before = tree(trained.path / "models")
    result = trained.expmgr("checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert result.code == 1
    assert f"the variant.json of {MODEL_DIR} was not rebuilt: manifests beside it name iris/other" in result.stderr
    assert tree(trained.path / "models") == before


def nothing_listed(manifest: dict[str, Any]) -> None:
    manifest.update(checkpoints=[], selected_step=None)


def last_lost(manifest: dict[str, Any]) -> None:
    manifest["checkpoints"].pop()


def middle_lost(manifest: dict[str, Any]) -> None:
    del manifest["checkpoints"][1]


def digest_edited(manifest: dict[str, Any]) -> None:
    manifest["checkpoints"][-1]["files"]["model.ckpt-30.data-00000-of-00001"]["sha256"] = "0" * 64


def size_edited(manifest: dict[str, Any]) -> None:
    manifest["checkpoints"][-1]["files"]["model.ckpt-30.index"]["size_bytes"] += 1


@pytest.mark.parametrize("edit", [nothing_listed, last_lost, middle_lost, digest_edited, size_edited], ids=named)
def test_a_manifest_that_can_be_read_and_does_not_list_what_is_whole(
    trained: Repo, edit: Callable[[dict[str, Any]], None]
) -> None:
    path = manifest_of(trained)
    before = json.loads(path.read_bytes())
    edited = json.loads(path.read_bytes())
    edit(edited)
    path.write_text(json.dumps(edited))
    refused = trained.expmgr("check", "iris/wide", "--seeds", "1")
    hint = "Hint: rebuild the manifest from the checkpoints that are whole: "
    lines = [line.strip() for line in (refused.stdout + refused.stderr).splitlines()]
    assert f"{hint}expmgr checkpoints iris/wide --rebuild --seeds 1" in lines
    ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert {**json.loads(path.read_bytes()), "selected_step": None} == {**before, "selected_step": None}
    again = ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert again == f"{MODEL_DIR}/manifest.json can be read, so it was not changed: it lists steps 28, 29, 30\n"


def test_an_edited_digest_of_a_signature_is_replaced_where_a_record_has_it(trained: Repo) -> None:
    path = manifest_of(trained)
    before = path.read_bytes()
    edited = json.loads(before)
    edited["checkpoints"][-1]["files"]["model.ckpt-30.json"]["sha256"] = "0" * 64
    path.write_text(json.dumps(edited))
    ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert path.read_bytes() == before


def test_what_a_kill_left_of_a_deletion_a_move_or_a_save_is_no_damage(tmp_path: Path) -> None:
    """Whole files that the manifest does not list on purpose; nor does a rebuild take them in."""
    folder = Folder(tmp_path)
    folder.save(100, 200, 300)
    path = folder.path / "manifest.json"
    whole = json.loads(path.read_bytes())
    files = list(whole["checkpoints"][0]["files"])
    rest = {**whole, "checkpoints": whole["checkpoints"][1:]}

    for left in ({"removed": files}, {"set_aside": {"seed-0-after-0": files}}, {"not_taken": files}, {}):
        path.write_text(json.dumps({**rest, **left}))
        if not left:
            (folder.path / ".saving-100-0123abcd").mkdir()
        found = folder.opened().inspect()
        assert found is not None, left
        assert found.saved.step == 300, left
        among = folder.opened().candidates(folder.opened().read_manifest())
        assert ("model.ckpt-100.index" in among) == ("not_taken" in left)
    folder.opened().prepare(0.0)
    assert not list(folder.path.glob("*100*"))


def test_a_kill_at_any_moment_of_retention_leaves_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink
    for number in range(7):
        folder = Folder(tmp_path / str(number))
        opened = folder.save(100, 200, 300)
        count = itertools.count()

        def killed(path: Path, missing_ok: bool = False, count: Iterator[int] = count, number: int = number) -> None:
            if path.name.startswith("model.ckpt-") and next(count) == number:
                raise KeyboardInterrupt
            unlink(path, missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with contextlib.suppress(KeyboardInterrupt):
                opened.retain(1, None)
        found = folder.opened().inspect()
        assert found is not None
        assert found.saved.step == 300
        folder.save(400)
        assert [one.step for one in folder.opened().inspect().manifest.checkpoints] == [300, 400]  # type: ignore[union-attr]


def test_who_lost_the_right_to_write_leaves_no_damage(tmp_path: Path) -> None:
    """The files of its save are there, and the manifest of the next owner does not list them."""
    folder = Folder(tmp_path)
    opened = folder.save(100)
    aside = opened.write_aside(200, write)
    calls = itertools.count()

    def lost() -> None:
        if next(calls):
            raise Busy("taken over")

    opened.may_write = lost
    with pytest.raises(Busy):
        opened.take_in(aside, signature(200), CheckpointMetadata(1.0, 8))
    assert (folder.path / "model.ckpt-200.json").exists()
    found = folder.opened().inspect()
    assert found is not None
    assert found.saved.step == 100
    folder.opened().prepare(0.0)
    assert not list(folder.path.glob("*200*"))


def test_what_a_rebuild_did_not_take_is_no_damage(trained: Repo) -> None:
    """The signature is as its files, and a record says that they were others."""
    path = trained.path / MODEL_DIR / "model.ckpt-29.json"
    content = json.loads(path.read_bytes())
    (content["provenance"]["run_id"],) = os.listdir(trained.path / ".git/expmgr/runs")
    path.write_text(json.dumps(content))
    cut(manifest_of(trained))
    done = ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert "model.ckpt-29" in done
    ok(trained, "checkpoints", "iris/wide", "--seeds", "1")
    again = ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
    assert again == f"{MODEL_DIR}/manifest.json can be read, so it was not changed: it lists steps 28, 30\n"


@pytest.mark.parametrize(
    "saved_as", ["[1]", '{"files": []}', '{"files": {"a": 1}}', '{"files": {"a": {"size_bytes": -1}}}']
)
def test_a_signature_that_says_nonsense_of_its_files(trained: Repo, saved_as: str) -> None:
    path = trained.path / MODEL_DIR / "model.ckpt-29.json"
    content = json.loads(path.read_bytes())
    content["provenance"]["saved"] = json.loads(saved_as)
    path.write_text(json.dumps(content))
    edited = json.loads(manifest_of(trained).read_bytes())
    middle_lost(edited)
    manifest_of(trained).write_text(json.dumps(edited))
    ok(trained, "checkpoints", "iris/wide", "--seeds", "1")
    cut(manifest_of(trained))
    assert "model.ckpt-29" in ok(trained, "checkpoints", "iris/wide", "--rebuild", "--seeds", "1")
