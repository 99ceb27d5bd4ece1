"""What a record states about the machine and its libraries."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import expmgr


def versions() -> dict[str, str]:
    """Versions of what computes."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "expmgr": expmgr.__version__,
    }


def bits(determinism: bool) -> dict[str, Any]:
    """What changes the last bits of a result, whatever is computed."""
    return {
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "cpus": _usable_cpus(),
        "threads": [
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ],
        "gpus": len(tf.config.list_physical_devices("GPU")),
        "determinism": determinism,
    }


_BITS = {
    "tensorflow": "TensorFlow", "keras": "Keras", "onednn": "TF_ENABLE_ONEDNN_OPTS", "cpus": "the number of processors",
    "threads": "the number of threads", "gpus": "the number of GPUs", "determinism": "train.determinism",
}  # fmt: skip


def moved_bits(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What is another now than when a checkpoint was saved, and changes the last bits; a line each."""
    for key, what in _BITS.items():
        if key in saved and saved[key] != now.get(key):
            yield f"{what} was {saved[key]}, and is {now.get(key)}"


def environment(precision: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Versions, hardware, and the switches that change the bits of a result; `about`: name and lock digest of the
    Python environment."""
    return {
        **versions(),
        **about,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": _usable_cpus(),
        "gpus": [_gpu_name(device) for device in tf.config.list_physical_devices("GPU")],
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
        "op_determinism": _op_determinism(),
        "precision_policy": precision,
    }


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu_name(device: Any) -> str:
    return str(tf.config.experimental.get_device_details(device).get("device_name", device.name))


def _op_determinism() -> bool | None:
    from tensorflow.python.framework import config  # not public, so it may go

    try:
        return bool(config.is_op_determinism_enabled())
    except AttributeError:
        return None
