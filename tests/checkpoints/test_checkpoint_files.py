"""A signature is believed only if its files bear it out; and the last details of an index, a manifest and a model_dir."""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from checkpoints.test_model_dir import Folder, folder, write  # noqa: F401
from clones import signature
from expmgr.checkpoints.bundle import NotAnIndex, Tensor, key_of, read_index
from expmgr.checkpoints.manifest import CheckpointMetadata, is_file_of, step_of
from expmgr.checkpoints.retention import Saved, retention
from expmgr.checkpoints.signature import (
    ProbeValues,
    Signature,
    Variable,
    packed,
    read_signature,
    slot_path,
    unpacked,
)
from expmgr.errors import CheckpointRefused, DiskFull, ModelDirProblem
from tables import index_bytes

KERNEL, BIAS, RATE = "dense/kernel", "dense/bias", "sgd/learning_rate"


def made(**values: Any) -> Signature:
    return signature(7).model_copy(
        update={
            "variables": [
                Variable(path=KERNEL, shape=[4, 10], dtype="float32"),
                Variable(path=BIAS, shape=[10], dtype="float32"),
            ],
            "optimizer_variables": [Variable(path=RATE, shape=[], dtype="float32")],
            "state": [Variable(path="seeds/0", shape=[2], dtype="uint32")],
            **values,
        }
    )


INDEX = {
    key_of("variables", KERNEL): (1, (4, 10)),
    key_of("variables", BIAS): (1, (10,)),
    key_of("optimizer", RATE): (1, ()),
    key_of("state", "seeds/0"): (22, (2,)),
}


def unlike(one: Signature, tensors: dict[str, tuple[int, tuple[int, ...]]], where: Path) -> list[str]:
    path = where / "a.index"
    path.write_bytes(index_bytes(tensors))
    return list(one.unlike(read_index(path)))


def test_a_signature_is_that_of_its_index(tmp_path: Path) -> None:
    assert unlike(made(), INDEX, tmp_path) == []
    kernel, bias = key_of("variables", KERNEL), key_of("variables", BIAS)
    without = {key: value for key, value in INDEX.items() if key != bias}
    assert unlike(made(), without, tmp_path) == [f"variables/{BIAS}: the checkpoint does not hold it"]
    more = {**INDEX, key_of("optimizer", "sgd/iterations"): (9, ())}
    assert unlike(made(), more, tmp_path) == ["optimizer/sgd/iterations: its signature does not know it"]
    assert unlike(made(), {**INDEX, kernel: (1, (4, 20))}, tmp_path) == [
        f"variables/{KERNEL}: float32 (4, 20) in the checkpoint, float32 (4, 10) in its signature"
    ]
    assert unlike(made(), {**INDEX, kernel: (2, (4, 10))}, tmp_path) == [
        f"variables/{KERNEL}: float64 (4, 10) in the checkpoint, float32 (4, 10) in its signature"
    ]
    # What is compared are weights and optimizer, each by its value; the state is not.
    assert unlike(made(), {key: value for key, value in INDEX.items() if "state/" not in key}, tmp_path) == []
    assert unlike(made(), {**INDEX, "variables/x": (1, ()), "save_counter" + bias: (9, ())}, tmp_path) == []


def test_an_estimators_signature_calls_tensors_by_their_names(tmp_path: Path) -> None:
    index = {KERNEL: (1, (4, 10)), BIAS: (1, (10,)), RATE: (1, ()), "seeds/0": (22, (2,)), "global_step": (9, ())}
    assert unlike(made(keys="names"), index, tmp_path) == []
    assert unlike(made(keys="names"), {**index, "other": (9, ())}, tmp_path) == [
        "other: its signature does not know it"
    ]
    del index["seeds/0"]
    assert unlike(made(keys="names"), index, tmp_path) == ["seeds/0: the checkpoint does not hold it"]


def refused(prefix: Path) -> list[str]:
    with pytest.raises(CheckpointRefused) as caught:
        read_signature(prefix, "models/x/model.ckpt-7", "expmgr run iris/wide --fresh")
    return caught.value.lines()


def test_a_signature_that_cannot_be_believed_is_told_with_its_reason(tmp_path: Path) -> None:
    prefix, way_out = tmp_path / "model.ckpt-7", "expmgr run iris/wide --fresh"
    end = ["Nothing was changed on disk.", f"Hint: {way_out}"]
    begin = "Error: models/x/model.ckpt-7 was not restored: "
    assert refused(prefix) == [f"{begin}its signature model.ckpt-7.json is missing", *end]
    text = prefix.with_name("model.ckpt-7.json")
    for content, place in (
        ("{", ": Invalid JSON"),
        ("[1]", ": Input should be an object"),
        ('{"format": 2}', "step: Fi"),
    ):
        text.write_text(content)
        first, detail, *last = refused(prefix)
        assert (first, last) == (f"{begin}its signature model.ckpt-7.json cannot be read", end)
        assert detail.strip().startswith(place)
    text.write_text('{"format": 3}')
    assert refused(prefix) == [
        f"{begin}model.ckpt-7.json has format 3, this expmgr reads format 2",
        "Nothing was changed on disk.",
        "Hint: use the expmgr that wrote it, or a newer one",
    ]
    text.write_text(made().model_dump_json())
    wrong = f"{begin}its signature is not that of its files"
    assert refused(prefix) == [wrong, "  model.ckpt-7.index: No such file or directory", *end]
    index = prefix.with_name("model.ckpt-7.index")
    index.write_bytes(b"no index")
    assert refused(prefix) == [wrong, "  model.ckpt-7.index does not end as an index does", *end]
    index.write_bytes(index_bytes(INDEX))
    assert read_signature(prefix, "it") == made()
    for count in (5, 6, 7):
        paths = [f"v{number}" for number in range(count)]
        text.write_text(made(variables=[Variable(path=one, shape=[], dtype="int8") for one in paths]).model_dump_json())
        index.write_bytes(index_bytes({key_of("optimizer", RATE): (1, ())}))
        details = refused(prefix)[1:-2]
        assert details[:5] == [f"  variables/v{number}: the checkpoint does not hold it" for number in range(5)]
        assert details[5:] == ([f"  and {count - 5} more"] if count > 5 else [])


def test_a_long_field_is_packed_and_comes_back() -> None:
    long = {"layers": {f"layer_{number}": {"units": number} for number in range(2000)}}
    one = made(**long)
    text = json.loads(one.model_dump_json())
    assert text["layers"].startswith("zlib+base64:")
    assert text["variables"][0]["path"] == KERNEL
    assert Signature.model_validate_json(one.model_dump_json()) == one
    assert unpacked(packed(long)) == long
    assert (packed("x" * 10_000), packed(3), unpacked("plain")) == ("x" * 10_000, 3, "plain")
    for wrong in ("zlib+base64:AAAA", "zlib+base64:!", "zlib+base64:eJwr"):
        with pytest.raises(ValueError, match=r"packed field|base64|padding|Incorrect"):
            unpacked(wrong)
    for other in (
        '{"a":"\\ud800"}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        f'{{"a":{"9" * 4000}}}',
        f"{'[' * 900}{']' * 900}",
    ):
        with pytest.raises(ValueError, match="it "):
            unpacked("zlib+base64:" + base64.b64encode(zlib.compress(other.encode())).decode())
    with pytest.raises(ValidationError):
        Signature.model_validate([])
    with pytest.raises(ValidationError):
        Signature.model_validate({**text, "mood": 1})


def test_an_infinite_output_of_a_probe_is_unknown() -> None:
    values: dict[str, Any] = {
        "batch": "0", "where": "cpu", "outputs": [1.0, None], "loss": None, "metrics": {}, "step": [2.0],
    }  # fmt: skip
    assert (ProbeValues(**values).outputs, ProbeValues(**values).step) == ([], [2.0])
    assert ProbeValues(**{**values, "step": [None]}).step == []
    with pytest.raises(ValidationError):
        ProbeValues(**{**values, "step": None})
    with pytest.raises(ValidationError):
        ProbeValues.model_validate(3)


def test_the_slot_of_a_renamed_variable_is_that_of_its_longest_name() -> None:
    renames = {"a": "x", "a/b": "y/z", "c": "w"}
    assert slot_path("adam/a_b_momentum", renames) == "adam/y_z_momentum"
    assert slot_path("adam/a_velocity", renames) == "adam/x_velocity"
    assert slot_path("adam/c", renames) == "adam/c"  # no slot
    assert slot_path("adam/iterations", renames) == "adam/iterations"


# The index.


def test_what_no_index_is_and_what_tensors_are_called(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    whole = index_bytes({"a": (1, (4,)), "b": (99, ()), "c": (7, (0, 3))})
    path.write_bytes(whole)
    assert read_index(path) == {"a": Tensor("float32", (4,)), "b": Tensor("type 99", ()), "c": Tensor("string", (0, 3))}
    assert str(Tensor("int8", (1, 2))) == "int8 (1, 2)"
    for content in (b"", whole[-47:], whole[:-1] + b"\0"):
        path.write_bytes(content)
        with pytest.raises(NotAnIndex, match=r"^a\.index does not end as an index does$"):
            read_index(path)
    path.write_bytes(whole[-48:])  # its handles point to what is not there
    with pytest.raises(NotAnIndex, match=r"a\.index is cut or damaged: a block lies beyond the end"):
        read_index(path)
    for size, told in (
        (43, "a compressed index"),
        (44, "a block lies beyond the end"),
    ):  # the place of the index's handle
        path.write_bytes((bytes([0, 0, 0, size])).ljust(40, b"\0") + whole[-8:])
        with pytest.raises(NotAnIndex, match=told):
            read_index(path)
    assert key_of("variables", "a.b/c") == "variables/a..b/c/.ATTRIBUTES/VARIABLE_VALUE"


def test_an_index_without_a_tensor_is_one(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    empty = bytes(4) + bytes([1, 0, 0, 0])  # no entry, one restart
    end = bytes([0, 8, 0, 8]).ljust(40, b"\0") + index_bytes({})[-8:]
    path.write_bytes(empty + bytes(5) + end)
    assert read_index(path) == {}
    path.write_bytes(empty[1:] + bytes(6) + bytes([0, 7, 0, 7]).ljust(40, b"\0") + end[-8:])
    with pytest.raises(NotAnIndex, match="a block is shorter than its list of restarts"):
        read_index(path)


def test_slices_of_a_partitioned_tensor_are_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.index"
    path.write_bytes(index_bytes({"\0a\0\1": (1, ()), "\0a": (1, ()), "a\0\1": (1, ()), "a": (1, (3,))}))
    assert sorted(read_index(path)) == ["\0a", "a", "a\0\1"]


# Manifest and retention.


def test_which_file_is_of_which_step() -> None:
    for name in (
        "model.ckpt-10.index",
        "model.ckpt-10.json",
        "model.ckpt-10.data-00000-of-00001",
        "model.ckpt-10.meta",
    ):
        assert is_file_of(10, name)
        assert step_of(name) == 10
        assert not is_file_of(1, name)
    for name in ("model.ckpt-010.index", "model.ckpt-10.index.tmp", "xmodel.ckpt-10.index", "checkpoint"):
        assert step_of(name) is None
        assert not is_file_of(10, name)


def test_a_checkpoint_is_preserved_from_the_hour_on() -> None:
    def decided(saved_at: float, **rule: Any) -> tuple[tuple[int, ...], tuple[int, ...], float]:
        parts = {"keep_max": 1, "every_n_hours": 2.0, "last_preserved_at": 100.0, **rule}
        found = retention([Saved(1, saved_at), Saved(2, 9e9)], **parts)
        return found.delete, found.preserve, found.last_preserved_at

    assert decided(7300.0) == ((), (1,), 7300.0)
    assert decided(7299.0) == ((1,), (), 100.0)
    assert decided(7300.0, every_n_hours=None) == ((1,), (), 100.0)
    assert decided(7300.0, every_n_hours=0) == ((1,), (), 100.0)
    assert decided(7300.0, protected=[1]) == ((), (), 100.0)
    saved = [Saved(1, 0, preserved=True), Saved(2, 0), Saved(3, 0)]
    assert retention(saved, keep_max=2, every_n_hours=None, last_preserved_at=0).delete == ()
    protected = [Saved(step, 0) for step in range(4)]
    assert retention(protected, keep_max=1, every_n_hours=None, last_preserved_at=0, protected=[0]).delete == (1, 2)


# The model_dir.


def test_what_was_selected_stays_selected_when_a_later_one_goes(folder: Folder) -> None:  # noqa: F811
    opened = folder.save(100, 200, 300)
    opened.select(200)
    opened.rewind(200, now=1.25)
    assert opened.manifest.selected_step == 200
    (aside,) = (folder.path.parent / ".set-aside").iterdir()
    assert aside.name == "seed-0-19700101T000001250Z-after-200"
    assert opened.manifest.set_aside == {}


def test_a_folder_set_aside_is_called_by_its_moment(folder: Folder) -> None:  # noqa: F811
    opened = folder.save(100)
    assert opened.set_aside(now=86_400.999) == folder.path.parent / ".set-aside/seed-0-19700102T000000999Z"
    assert opened.set_aside(now=0) is None


def test_only_five_unlisted_checkpoints_are_named(folder: Folder) -> None:  # noqa: F811
    for count in (5, 6, 8):
        folder.path.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder.path / f"model.ckpt-{number}.index").touch()
        with pytest.raises(CheckpointRefused) as caught:
            folder.opened().inspect()
        details = [f"  model.ckpt-{number}.index" for number in range(5)]
        assert caught.value.lines()[1:-2] == details + ([f"  and {count - 5} more"] if count > 5 else [])


@pytest.mark.parametrize("name", ["a.weights.h5", "checkpoint", "old.data-00000-of-00002", "x.index"])
def test_every_kind_of_checkpoint_counts_as_one(folder: Folder, name: str) -> None:  # noqa: F811
    folder.path.mkdir(parents=True)
    (folder.path / name).touch()
    with pytest.raises(CheckpointRefused):
        folder.opened().inspect()
    (folder.path / name).rename(folder.path / f"{name}.txt")
    assert folder.opened().inspect() is None


def test_tensorflows_file_names_the_newest_and_all(folder: Folder) -> None:  # noqa: F811
    opened = folder.save(100, 300, 200)
    assert [one.step for one in opened.manifest.checkpoints] == [100, 200, 300]
    assert (folder.path / "checkpoint").read_text() == (
        'model_checkpoint_path: "model.ckpt-300"\n'
        'all_model_checkpoint_paths: "model.ckpt-100"\n'
        'all_model_checkpoint_paths: "model.ckpt-200"\n'
        'all_model_checkpoint_paths: "model.ckpt-300"\n'
    )
    (folder.path / "checkpoint").write_text("of a crash")
    folder.opened().prepare(now=0.0)
    assert (folder.path / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt-300"\n')


def test_a_step_that_is_saved_again_is_listed_once(folder: Folder) -> None:  # noqa: F811
    opened = folder.save(100)
    opened.save(100, write, signature(100), CheckpointMetadata(5.0, 77))
    (saved,) = opened.manifest.checkpoints
    assert (saved.saved_at, saved.examples_seen, saved.preserved) == (5.0, 77, False)
    opened.note_metrics(100, {"eval": {"accuracy": 0.5}}, {"eval": "0"})
    opened.save(200, write, signature(200), CheckpointMetadata(6.0, 78))
    first, second = opened.manifest.checkpoints
    assert (first.metrics, first.evaluated_on) == ({"eval": {"accuracy": 0.5}}, {"eval": "0"})
    assert (second.metrics, second.evaluated_on) == ({}, {})


def test_what_is_preserved_stays_so(folder: Folder) -> None:  # noqa: F811
    opened = folder.opened()
    opened.prepare(now=0.0)
    for number, step in enumerate((1, 2, 3, 4)):
        opened.save(step, write, signature(step), CheckpointMetadata(3600.0 * number, 0))
        opened.retain(1, 1.0)
    assert [(one.step, one.preserved) for one in opened.manifest.checkpoints] == [(2, True), (3, True), (4, False)]
    assert opened.manifest.last_preserved_at == 7200.0
    opened.save(5, write, signature(5), CheckpointMetadata(3600.0 * 3.5, 0))
    opened.retain(1, 1.0)
    opened.save(6, write, signature(6), CheckpointMetadata(3600.0 * 3.6, 0))
    (folder.path / "model.ckpt-5.index").unlink()  # somebody was quicker
    opened.retain(1, 1.0)
    assert [(one.step, one.preserved) for one in opened.manifest.checkpoints][2:] == [(4, True), (6, False)]
    assert not list(folder.path.glob("model.ckpt-5.*"))


def test_other_content_of_the_same_size_is_damage_that_only_a_thorough_look_finds(folder: Folder) -> None:  # noqa: F811
    folder.save(100)
    data = folder.path / "model.ckpt-100.data-00000-of-00001"
    data.write_bytes(data.read_bytes().swapcase())
    assert folder.opened().inspect(thorough=False) is not None
    with pytest.raises(CheckpointRefused) as caught:
        folder.opened().inspect()
    assert caught.value.lines()[1] == "  model.ckpt-100.data-00000-of-00001 has other content than was saved"
    index = folder.path / "model.ckpt-100.index"
    index.write_bytes(bytes(os.urandom(index.stat().st_size)))
    with pytest.raises(CheckpointRefused):
        folder.opened().inspect(thorough=False)


def test_an_error_of_the_system_is_told_in_its_words(folder: Folder) -> None:  # noqa: F811
    opened = folder.opened()
    with pytest.raises(ModelDirProblem) as caught, opened._problems("it"):
        raise OSError(13, "x")
    assert caught.value.lines()[0] == "Error: models/iris/wide/seed-0 cannot be written: Permission denied"
    with pytest.raises(DiskFull, match=r"^it could not be written: Read-only file system"), opened._problems("it"):
        raise OSError(30, "x")
    with pytest.raises(ModelDirProblem, match="Input/output error"), opened._problems("it"):
        raise OSError("of no number")
    with pytest.raises(DiskFull, match=r"^it could not be written: No space left"), opened._problems("it"):
        raise OSError(28, "x")
