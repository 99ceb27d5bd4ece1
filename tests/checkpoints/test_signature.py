"""The signature file: there and back, packed where a field is long, and held against the checkpoint's own index."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from clones import signature
from expmgr.checkpoints.bundle import Tensor, key_of
from expmgr.checkpoints.signature import (
    FORMAT,
    ProbeValues,
    Signature,
    Variable,
    packed,
    read_signature,
    slot_path,
    unpacked,
)
from expmgr.errors import CheckpointRefused
from tables import index_bytes

PREFIX = "zlib+base64:"


def variables(count: int) -> list[Variable]:
    return [
        Variable(path=f"block_{number}/dense/kernel", shape=[number, 7], dtype="float32") for number in range(count)
    ]


def of(**changes: Any) -> Signature:
    return signature(9).model_copy(update=changes)


@pytest.mark.parametrize("make", [lambda text: [text], lambda text: {"é": text}], ids=["list", "dict"])
def test_a_field_over_8000_bytes_is_packed_and_unpacked(make: Any) -> None:
    """Of its JSON without spaces, other characters than ASCII as `\\\\uXXXX`."""
    room = 8_000 - len(json.dumps(make(""), separators=(",", ":")))
    fits, over = make("x" * room), make("x" * (room + 1))
    assert packed(fits) is fits
    text = packed(over)
    assert text.startswith(PREFIX)
    assert len(text) < 200
    assert unpacked(text) == over
    assert json.loads(zlib.decompress(base64.b64decode(text[len(PREFIX) :]))) == over


@pytest.mark.parametrize("value", [None, 7, 0.1, "y" * 9_000, "", True])
def test_what_is_neither_list_nor_dict_stays_as_it_is(value: Any) -> None:
    assert packed(value) is value
    if isinstance(value, str):
        assert unpacked(value) == value


def test_a_large_signature_there_and_back() -> None:
    """1,000 variables, 200 layers and a vocabulary: each long field packed, none lost, under 100 kB."""
    layers = {f"block_{number}": {"class": "Dense", "units": number, "é": None} for number in range(200)}
    data = signature(0).data.model_copy(update={"labels": [f"class {number}" for number in range(2_000)]})
    whole = of(
        variables=variables(1_000), optimizer_variables=variables(900), layers=layers, data=data, code="c" * 9_000
    )
    content = whole.model_dump_json(indent=1)
    stored = json.loads(content)
    long = {key for key, value in stored.items() if isinstance(value, str) and value.startswith(PREFIX)}
    assert long == {"variables", "optimizer_variables", "layers", "data"}
    assert stored["code"] == whole.code
    assert stored["state"] == []
    assert len(content) < 100_000
    assert Signature.model_validate_json(content) == whole
    assert Signature.model_validate(whole.model_dump(mode="json")) == whole


def test_a_small_signature_stays_readable() -> None:
    stored = json.loads(of(variables=variables(3)).model_dump_json())
    assert stored["variables"][1]["path"] == "block_1/dense/kernel"
    assert PREFIX not in json.dumps(stored)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-8],
        lambda text: text[:40] + ("A" if text[40] != "A" else "B") + text[41:],
        lambda _text: PREFIX + "not base64",
        lambda _text: PREFIX + base64.b64encode(zlib.compress(b"{no JSON")).decode(),
        lambda _text: PREFIX + base64.b64encode(zlib.compress(b"\xff")).decode(),
        lambda _text: PREFIX,
    ],
)
def test_a_damaged_packed_field_is_refused_in_words(tmp_path: Path, damage: Any) -> None:
    prefix = stored(tmp_path, of(variables=variables(1_000)))
    path = prefix.with_name(f"{prefix.name}.json")
    values = json.loads(path.read_text())
    values["variables"] = damage(values["variables"])
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointRefused) as caught:
        read_signature(prefix, "models/x/model.ckpt-9")
    assert caught.value.lines()[0] == (
        "Error: models/x/model.ckpt-9 was not restored: its signature model.ckpt-9.json cannot be read"
    )
    assert "Nothing was changed on disk." in caught.value.lines()


def stored(folder: Path, one: Signature, index: dict[str, tuple[int, tuple[int, ...]]] | None = None) -> Path:
    """The signature, and an index that bears it out unless `index` says otherwise."""
    prefix = folder / "model.ckpt-9"
    prefix.with_name("model.ckpt-9.json").write_text(one.model_dump_json())
    sides = {"variables": one.variables, "optimizer": one.optimizer_variables}
    right = {key_of(group, var.path): (1, tuple(var.shape)) for group, some in sides.items() for var in some}
    prefix.with_name("model.ckpt-9.index").write_bytes(index_bytes(right if index is None else index))
    return prefix


def refused(prefix: Path) -> list[str]:
    with pytest.raises(CheckpointRefused) as caught:
        read_signature(prefix, "models/x/model.ckpt-9")
    return caught.value.lines()


def test_what_its_index_bears_out_is_read(tmp_path: Path) -> None:
    whole = of(variables=variables(3), optimizer_variables=[Variable(path="adam/m", shape=[2], dtype="float32")])
    assert read_signature(stored(tmp_path, whole), "x") == whole


def test_what_its_index_does_not_bear_out_is_refused(tmp_path: Path) -> None:
    whole = of(variables=variables(8))
    lines = refused(stored(tmp_path, whole, {}))
    assert lines[0] == "Error: models/x/model.ckpt-9 was not restored: its signature is not that of its files"
    assert lines[1:7] == [
        *(f"  variables/block_{number}/dense/kernel: the checkpoint does not hold it" for number in range(5)),
        "  and 3 more",
    ]
    assert lines[-1] == "Nothing was changed on disk."
    (tmp_path / "model.ckpt-9.index").write_bytes(b"nonsense")
    assert "  model.ckpt-9.index does not end as an index does" in refused(tmp_path / "model.ckpt-9")
    (tmp_path / "model.ckpt-9.index").unlink()
    assert "  model.ckpt-9.index: No such file or directory" in refused(tmp_path / "model.ckpt-9")


def test_a_signature_that_is_missing_or_of_another_format_is_refused(tmp_path: Path) -> None:
    prefix = stored(tmp_path, of())
    path = tmp_path / "model.ckpt-9.json"
    values = json.loads(path.read_text())
    assert values["format"] == FORMAT == 2
    path.write_text(json.dumps({**values, "format": 3}))
    assert refused(prefix)[0].endswith("model.ckpt-9.json has format 3, this expmgr reads format 2")
    path.write_text(json.dumps({**values, "mood": "good"}))
    assert refused(prefix)[:2] == [
        "Error: models/x/model.ckpt-9 was not restored: its signature model.ckpt-9.json cannot be read",
        "  mood: Extra inputs are not permitted",
    ]
    for content in ("", "[]", "{", json.dumps({"format": 2})):
        path.write_text(content)
        assert refused(prefix)[0].endswith("its signature model.ckpt-9.json cannot be read")
    path.unlink()
    assert refused(prefix)[0].endswith("its signature model.ckpt-9.json is missing")


FLOAT, INT = Variable(path="a/b", shape=[2, 3], dtype="float32"), Variable(path="opt/n", shape=[], dtype="int64")


@pytest.mark.parametrize(
    ("index", "lines"),
    [
        ({"variables/a/b": Tensor("float32", (2, 3)), "optimizer/opt/n": Tensor("int64", ())}, []),
        (
            {"variables/a/b": Tensor("float32", (3, 2)), "optimizer/opt/n": Tensor("int64", ())},
            ["variables/a/b: float32 (3, 2) in the checkpoint, float32 (2, 3) in its signature"],
        ),
        (
            {"variables/a/b": Tensor("float16", (2, 3)), "optimizer/opt/n": Tensor("int64", (1,))},
            [
                "optimizer/opt/n: int64 (1) in the checkpoint, int64 () in its signature",
                "variables/a/b: float16 (2, 3) in the checkpoint, float32 (2, 3) in its signature",
            ],
        ),
        (
            {"variables/a/b": Tensor("float32", (2, 3)), "optimizer/m": Tensor("int64", ())},
            ["optimizer/m: its signature does not know it", "optimizer/opt/n: the checkpoint does not hold it"],
        ),
        # Seeds and running metrics are not compared.
        (
            {
                "variables/a/b": Tensor("float32", (2, 3)), "optimizer/opt/n": Tensor("int64", ()),
                "state/seed": Tensor("int64", (2,)), "_CHECKPOINTABLE_OBJECT_GRAPH": Tensor("string", ()),
            },
            [],
        ),
    ],
)  # fmt: skip
def test_what_an_index_says_otherwise(index: dict[str, Tensor], lines: list[str]) -> None:
    value = "/.ATTRIBUTES/VARIABLE_VALUE"
    whole = of(variables=[FLOAT], optimizer_variables=[INT])
    keys = {name if name.startswith("_") else f"{name}{value}": one for name, one in index.items()}
    assert list(whole.unlike(keys)) == lines


def test_an_estimator_s_checkpoint_is_known_by_names() -> None:
    """All but the global step counts, what is no weight too."""
    whole = of(
        keys="names", variables=[FLOAT], optimizer_variables=[INT], state=[Variable(path="s", shape=[1], dtype="int64")]
    )
    right = {"a/b": Tensor("float32", (2, 3)), "opt/n": Tensor("int64", ()), "s": Tensor("int64", (1,))}
    assert list(whole.unlike({**right, "global_step": Tensor("int64", ())})) == []
    del right["s"]
    assert list(whole.unlike({**right, "t": Tensor("int64", ())})) == [
        "s: the checkpoint does not hold it", "t: its signature does not know it"
    ]  # fmt: skip


def test_a_slot_follows_its_renamed_variable() -> None:
    renames = {"a": "z", "a/b": "x/y"}
    assert slot_path("adam/a_b_momentum", renames) == "adam/x_y_momentum"  # of a/b, and not of a
    assert slot_path("adam/a_momentum", renames) == "adam/z_momentum"
    assert slot_path("adam/ab_momentum", renames) == "adam/ab_momentum"
    assert slot_path("adam/iteration", renames) == "adam/iteration"


def test_values_that_were_once_written_as_null_are_not_known() -> None:
    about = {"batch": "b", "where": "w", "loss": None, "metrics": {}}
    found = ProbeValues.model_validate({**about, "outputs": [1.0, None], "step": [2.0]})
    assert (found.outputs, found.step) == ([], [2.0])
    found = ProbeValues.model_validate({**about, "outputs": [1.0], "step": [None]})
    assert (found.outputs, found.step) == ([1.0], [])
