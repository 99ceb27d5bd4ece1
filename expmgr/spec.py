"""The spec of an experiment: what is built, on what data, and how it is run.

One pydantic model, `ExperimentSpec`, which holds no reference to TensorFlow. Every default stands here, so a record that
holds a resolved spec says everything, also after a library has changed its own defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

CLASSIFIERS = frozenset({"dnn_classifier", "linear_classifier"})

#: Metrics of the premade models, and the direction in which each is better.
CLASSIFIER_METRICS = {"accuracy": "max", "loss": "min"}
REGRESSOR_METRICS = {"mean_absolute_error": "min", "root_mean_squared_error": "min", "loss": "min"}

Activation = Literal[
    "relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "softplus", "softsign", "leaky_relu", "relu6", "linear"
]
Mode = Literal["max", "min"]
SplitName = Literal["train", "eval", "test"]


class _Part(BaseModel):
    """A part of the spec: unknown keys are errors, and a number in quotes is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CsvData(_Part):
    """Rows in CSV files with a header, beside the spec."""

    kind: Literal["csv"]
    train: str = Field(min_length=1)
    """File of the training split, relative to the experiment's folder."""
    eval: str = Field(min_length=1)
    """File of the split that is evaluated."""
    test: str | None = None
    """File of a third split, kept for the end."""
    label: str
    """The column that is predicted."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs; None: those of the training split, sorted."""
    features: dict[str, Literal["numeric", "categorical"]] | None = None
    """Columns that the model sees, in this order; None: every column but the label, numeric where all values are."""
    normalize: bool = False
    """Scale numeric columns to mean 0 and variance 1, by the training split."""
    batch_size: PositiveInt = 100
    """Rows a step."""
    shuffle: bool = True
    """Another order in every epoch, a pure function of seed and epoch."""


class _Dnn(_Part):
    hidden_units: list[PositiveInt] = Field(min_length=1)
    """Width of each hidden layer, the input's side first."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the outputs of each hidden layer that is dropped in training."""
    batch_norm: bool = False
    """BatchNormalization after each hidden layer's activation."""


class DnnClassifier(_Dnn):
    """Fully connected layers, then one logit a class."""

    kind: Literal["dnn_classifier"]


class DnnRegressor(_Dnn):
    """Fully connected layers, then one number."""

    kind: Literal["dnn_regressor"]


class LinearClassifier(_Part):
    """One logit a class, linear in the features."""

    kind: Literal["linear_classifier"]


class LinearRegressor(_Part):
    """One number, linear in the features."""

    kind: Literal["linear_regressor"]


class _Optimizer(_Part):
    learning_rate: PositiveFloat
    clipnorm: PositiveFloat | None = None
    """Largest norm of each variable's gradient."""


class Adagrad(_Optimizer):
    kind: Literal["adagrad"]
    initial_accumulator_value: float = Field(default=0.1, ge=0.0)
    epsilon: PositiveFloat = 1e-7


class Sgd(_Optimizer):
    kind: Literal["sgd"]
    momentum: float = Field(default=0.0, ge=0.0, le=1.0)
    nesterov: bool = False


class Adam(_Optimizer):
    kind: Literal["adam"]
    beta_1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta_2: float = Field(default=0.999, ge=0.0, lt=1.0)
    epsilon: PositiveFloat = 1e-7
    amsgrad: bool = False


class AdamW(_Optimizer):
    kind: Literal["adamw"]
    weight_decay: float = Field(default=0.004, ge=0.0)
    beta_1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta_2: float = Field(default=0.999, ge=0.0, lt=1.0)
    epsilon: PositiveFloat = 1e-7


class RmsProp(_Optimizer):
    kind: Literal["rmsprop"]
    rho: float = Field(default=0.9, ge=0.0, lt=1.0)
    momentum: float = Field(default=0.0, ge=0.0, le=1.0)
    epsilon: PositiveFloat = 1e-7
    centered: bool = False


class Ftrl(_Optimizer):
    kind: Literal["ftrl"]
    learning_rate_power: float = Field(default=-0.5, le=0.0)
    initial_accumulator_value: float = Field(default=0.1, ge=0.0)
    l1_regularization_strength: float = Field(default=0.0, ge=0.0)
    l2_regularization_strength: float = Field(default=0.0, ge=0.0)


class Train(_Part):
    max_steps: PositiveInt
    """Training ends at this step, counted from the variant's first."""


class RunConfig(_Part):
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
    session_config: None = None
    train_distribute: None = None
    eval_distribute: None = None
    experimental_distribute: None = None
    device_fn: None = None
    protocol: None = None
    experimental_max_worker_delay_secs: None = None
    session_creation_timeout_secs: Literal[7200] = 7200

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


class LastCheckpoint(_Part):
    """The checkpoint at the end of training stands for the run."""

    checkpoint: Literal["last"] = "last"


class BestCheckpoint(_Part):
    """The checkpoint with the best value of a metric stands for the run; every checkpoint is evaluated."""

    metric: str
    mode: Mode | None = None
    """The direction that is better; None: the metric's own."""
    split: Literal["eval"] = "eval"


class Compare(_Part):
    """What `expmgr compare` looks at where nothing else is said."""

    metric: str | None = None
    """None: the first that the model has."""
    mode: Mode | None = None
    """The direction that is better; None: the metric's own."""
    split: Literal["eval", "test"] = "eval"
    minimum_effect: float | None = Field(default=None, ge=0.0)
    """Smallest difference of the metric that matters to you."""
    baseline: str | None = None
    """The variant that others are compared with."""


class Compared(_Part):
    """`Compare`, with what it leaves open filled in."""

    metric: str
    mode: Mode
    split: Literal["eval", "test"]
    minimum_effect: float | None
    baseline: str | None


class ExperimentSpec(_Part):
    """`experiments/<experiment>/spec.yaml`."""

    experiment: str
    question: str | None = None
    """What the experiment is to find out."""
    data: CsvData
    model: Annotated[DnnClassifier | DnnRegressor | LinearClassifier | LinearRegressor, Field(discriminator="kind")]
    optimizer: Annotated[Adagrad | Sgd | Adam | AdamW | RmsProp | Ftrl, Field(discriminator="kind")]
    train: Train
    run_config: RunConfig = RunConfig()
    selection: LastCheckpoint | BestCheckpoint = LastCheckpoint()
    compare: Compare | None = None
    probe: Literal["on", "off"] = "on"
    """Whether a few rows of the eval split are stored with the checkpoints, to ask a restored model again."""

    @property
    def is_classifier(self) -> bool:
        return self.model.kind in CLASSIFIERS

    @property
    def metrics(self) -> dict[str, str]:
        """The metrics that an evaluation gives, and the direction in which each is better."""
        return CLASSIFIER_METRICS if self.is_classifier else REGRESSOR_METRICS

    @property
    def compared(self) -> Compared:
        """What `compare` looks at: what the spec says, or the model's first metric on the eval split."""
        said = self.compare or Compare()
        metric = said.metric or next(iter(self.metrics))
        about = said.model_dump(exclude={"metric", "mode"})
        return Compared(metric=metric, mode=said.mode or self.direction(metric), **about)

    def direction(self, metric: str) -> Mode:
        """Where a metric of the model is better."""
        return "max" if self.metrics[metric] == "max" else "min"

    @model_validator(mode="after")
    def _parts_agree(self) -> ExperimentSpec:
        data = self.data
        if not self.is_classifier and data.labels is not None:
            raise ValueError(f"data.labels names classes, but {self.model.kind} predicts a number")
        if data.labels is not None and (len(set(data.labels)) != len(data.labels) or len(data.labels) < 2):
            raise ValueError("data.labels must name at least two classes, each once")
        if data.features is not None and (not data.features or data.label in data.features):
            raise ValueError("data.features must name at least one column, and not the label")
        for where, metric in (
            ("selection.metric", getattr(self.selection, "metric", None)),
            ("compare.metric", self.compare.metric if self.compare else None),
        ):
            if metric is not None and metric not in self.metrics:
                known = ", ".join(self.metrics)
                raise ValueError(f"{where}: {self.model.kind} has no metric {metric!r}, it has {known}")
        if self.compare is not None and self.compare.split == "test" and data.test is None:
            raise ValueError("compare.split is test, but data.test names no file")
        return self

    def resolved(self) -> dict[str, Any]:
        """The whole spec as JSON values, defaults included."""
        values = self.model_dump(mode="json")
        values["compare"] = self.compared.model_dump(mode="json")
        if isinstance(self.selection, BestCheckpoint) and self.selection.mode is None:
            values["selection"]["mode"] = self.direction(self.selection.metric)
        return values


def learned_from(resolved: dict[str, Any]) -> dict[str, Any]:
    """The parts of a resolved spec that a checkpoint depends on: not how long, how often, or what is compared."""
    seed = resolved["run_config"]["tf_random_seed"]
    return {**{key: resolved[key] for key in ("data", "model", "optimizer")}, "tf_random_seed": seed}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"model": {"kind": "x"}}` as `{"model.kind": "x"}`; lists stay whole."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flattened.update(flat(value, f"{path}."))
        else:
            flattened[path] = value
    return flattened


def changes(base: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What `other` has otherwise than `base`, two resolved specs: dotted path to both values, None for a missing one."""
    one, two = flat(base), flat(other)
    paths = [*one, *(path for path in two if path not in one)]
    found = {path: (one.get(path), two.get(path)) for path in paths if one.get(path) != two.get(path)}
    orders = [list(values.get("data", {}).get("features") or ()) for values in (base, other)]
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):  # the order of the columns is the first layer's
        found["data.features"] = (orders[0], orders[1])
    return found
