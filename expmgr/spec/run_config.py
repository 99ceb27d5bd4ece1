"""The part `run_config` of a spec: names and defaults of `tf.estimator.RunConfig`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from expmgr.spec.part import Part, Reference


class RunConfig(Part):
    """Names and defaults of `tf.estimator.RunConfig` (TensorFlow 2.15).

    What has no meaning under Keras 3 is accepted at its default alone, and refused otherwise with the reason.
    """

    tf_random_seed: NonNegativeInt | None = None
    """Seed of every run of the variant; None: the run's own seed (`--seeds`)."""
    save_summary_steps: PositiveInt | None = 100
    """Steps from one point of the training curves to the next; None: no training curves."""
    save_checkpoints_secs: PositiveInt | None = 600
    """Seconds from one checkpoint to the next; None where `save_checkpoints_steps` is set."""
    save_checkpoints_steps: PositiveInt | None = None
    """Steps from one checkpoint to the next."""
    keep_checkpoint_max: NonNegativeInt | None = 5
    """How many of the newest checkpoints are kept; None or 0: all."""
    keep_checkpoint_every_n_hours: PositiveFloat = 10_000
    """Beside the newest, one checkpoint every so many hours of training is kept."""
    log_step_count_steps: PositiveInt | None = 100
    """Steps from one report of steps a second to the next; None: none."""
    checkpoint_save_graph_def: bool = True
    """Whether `graph.pbtxt`, the graph of the model, is written beside the checkpoints."""
    session_config: dict[str, Any] | None = None
    """Fields of `tf.compat.v1.ConfigProto`. This and what follows is for Estimators alone."""
    train_distribute: Reference | None = None
    """A function that gives the `tf.distribute.Strategy` of training."""
    eval_distribute: Reference | None = None
    """A function that gives that of evaluations."""
    experimental_distribute: Reference | None = None
    """A function that gives a `tf.contrib.distribute.DistributeConfig`, or what stands in for it."""
    device_fn: Reference | None = None
    """A function of an operation that gives its device."""
    protocol: Literal["grpc", "grpc+verbs"] | None = None
    experimental_max_worker_delay_secs: NonNegativeInt | None = None
    session_creation_timeout_secs: PositiveInt = 7200

    @model_validator(mode="before")
    @classmethod
    def _one_checkpoint_schedule(cls, values: Any) -> Any:
        # As in TF 2.15: save_checkpoints_steps alone switches the default of save_checkpoints_secs off.
        if isinstance(values, dict) and values.get("save_checkpoints_steps") is not None:
            if values.get("save_checkpoints_secs") is not None:
                raise ValueError("save_checkpoints_steps and save_checkpoints_secs cannot both be set")
            return {**values, "save_checkpoints_secs": None}
        return values


#: Why a value of RunConfig other than its default cannot be honoured.
RUN_CONFIG_REASONS = {
    "session_config": "Keras 3 has no session",
    "train_distribute": "distribution strategies are not run from a spec",
    "eval_distribute": "distribution strategies are not run from a spec",
    "experimental_distribute": "distribution strategies are not run from a spec",
    "device_fn": "Keras 3 places operations itself",
    "protocol": "there is no parameter server to speak to",
    "experimental_max_worker_delay_secs": "there are no workers to delay",
    "session_creation_timeout_secs": "Keras 3 has no session to wait for",
    "model_dir": "a variant's model_dir follows from its name (models_dir in the settings moves the root of all)",
}
