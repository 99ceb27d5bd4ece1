"""The index of a checkpoint, read without TensorFlow: what TensorFlow reads, and words for what is none."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.checkpoints.bundle import NotAnIndex, Tensor, read_index
from tables import index_bytes

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
SHAPES = st.lists(st.integers(0, 2**40), max_size=5).map(tuple)


@given(shapes=st.dictionaries(KEYS, SHAPES, max_size=40))
def test_every_key_and_shape_is_found(
    shapes: dict[str, tuple[int, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("index") / "a.index"
    path.write_bytes(index_bytes({key: (1, shape) for key, shape in shapes.items()}))
    assert read_index(path) == {key: Tensor("float32", shape) for key, shape in shapes.items()}


@given(data=st.data())
def test_a_cut_or_changed_index_is_never_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(index_bytes({"variables/a": (1, (4, 10)), "variables/b": (7, ())}))
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 9))] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path = tmp_path_factory.mktemp("index") / "a.index"
    path.write_bytes(bytes(content))
    with contextlib.suppress(NotAnIndex):
        read_index(path)


@pytest.mark.tf
def test_it_reads_what_tensorflow_reads(tmp_path: Path) -> None:
    import tensorflow as tf

    names = (
        "float32 float64 int8 uint8 int16 uint16 int32 uint32 int64 uint64 bool float16 bfloat16 complex64 complex128"
    )
    made = {f"a/{name}": tf.Variable(tf.cast(tf.zeros((2, number)), name)) for number, name in enumerate(names.split())}
    many = {f"b/{number:04d}": tf.Variable(tf.zeros((number % 7, 3))) for number in range(1000)}
    checkpoint = tf.train.Checkpoint(made=made, many=many, word=tf.Variable("word"), scalar=tf.Variable(1.0))
    prefix = Path(checkpoint.write(str(tmp_path / "ckpt")))
    found = read_index(prefix.with_name("ckpt.index"))
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert len(found) == len(shapes) > 1000
    assert {key: one.shape for key, one in found.items()} == {key: tuple(shape) for key, shape in shapes.items()}
    assert {key: one.dtype for key, one in found.items()} == {key: dtype.name for key, dtype in dtypes.items()}


def test_it_reads_an_estimators(tmp_path: Path) -> None:
    """Written by TensorFlow 2.15.1."""
    found = read_index(Path(__file__).parents[1] / "data/estimator_iris/model.ckpt-200.index")
    assert found["dnn/hiddenlayer_0/kernel"] == Tensor("float32", (4, 10))
    assert found["global_step"] == Tensor("int64", ())
