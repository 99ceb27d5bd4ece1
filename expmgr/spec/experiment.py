"""The spec of an experiment: what is built, on what data, and how it is run.

One pydantic model, `ExperimentSpec`, which holds no reference to TensorFlow. Every default stands here, so a record that
holds a resolved spec says everything, also after a library has changed its own defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

CLASSIFIERS = frozenset({"dnn_classifier", "linear_classifier"})

#: Metrics of the premade models, and the direction in which each is better.
CLASSIFIER_METRICS = {"accuracy": "max", "loss": "min"}
REGRESSOR_METRICS = {"mean_absolute_error": "min", "root_mean_squared_error": "min", "loss": "min"}

#: Words at the end of a metric's name that tell the direction in which it is better.
_BETTER_ABOVE: tuple[str, ...] = (
    "accuracy",
    "acc",
    "auc",
    "precision",
    "recall",
    "f1",
    "f1_score",
    "fbeta",
    "iou",
    "io_u",
    "r2",
    "r2_score",
)
_BETTER_ABOVE += ("specificity", "sensitivity", "similarity", "bleu")
_BETTER_BELOW = ("loss", "error", "entropy", "crossentropy", "mae", "mse", "rmse", "perplexity", "divergence", "hinge")

Activation = Literal[
    "relu", "tanh", "sigmoid", "elu", "selu", "gelu", "silu", "softplus", "softsign", "leaky_relu", "relu6", "linear"
]
Mode = Literal["max", "min"]
Reference = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`module:name`, the module looked for in the experiment's folder first, then in the repository."""
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


class PythonData(_Part):
    """What functions of the repository give: `tf.data.Dataset`, arrays, or `keras.utils.PyDataset`.

    A function is called with those of `params`, `seed` and `batch_size` that it names.
    """

    kind: Literal["python"]
    train: Reference
    """The function that gives the training split."""
    eval: Reference
    """The function that gives the split that is evaluated; one that names `path` can read `evaluate --data`."""
    test: Reference | None = None
    """The function of a third split, kept for the end."""
    predict: Reference | None = None
    """The function that reads what `predict --data` names, its `path`: inputs without labels."""
    params: dict[str, Any] = {}
    """What the functions are given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs."""
    vocabularies: dict[str, list[str] | str] = {}
    """Words in their order, or the file of the experiment's folder that holds them: their content counts."""
    preprocessing: dict[str, Any] = {}
    """What else is done to the data before it enters the model: any values, which count by their content."""
    files: dict[str, str] = {}
    """Files, folders and URLs that the functions read, by name: their content counts, and `files` gives their paths."""
    batch_size: PositiveInt = 100
    """Rows a step, where the functions give arrays; a Dataset or PyDataset gives batches itself."""
    shuffle: bool = True
    """Whether arrays, and the batches of a PyDataset, have another order in every epoch; a Dataset shuffles itself."""
    steps_per_epoch: PositiveInt | None = None
    """Steps of an epoch for callbacks, where a Dataset does not know its own length."""


class ScriptData(_Part):
    """What a training script gives to `expmgr.fit`: arrays, a `tf.data.Dataset`, a PyDataset, or a generator."""

    kind: Literal["script"] = "script"
    predict: Reference | None = None
    """The function that reads what `predict --data` names, its `path`: inputs without labels."""
    evaluate: Reference | None = None
    """The function that reads what `evaluate --data` names, its `path`: inputs and labels."""
    labels: list[str] | None = None
    """Classes in the order of the model's outputs."""
    vocabularies: dict[str, list[str] | str] = {}
    """Words in their order, or the file of the experiment's folder that holds them: their content counts."""
    preprocessing: dict[str, Any] = {}
    """What else is done to the data before it enters the model: any values, which count by their content."""
    files: dict[str, str] = {}
    """Files, folders and URLs that the script reads, by name: their content counts."""
    batch_size: PositiveInt | None = None
    """Rows a step, where the script gives arrays; None: what `fit` is called with."""
    shuffle: bool | None = None
    """Whether arrays have another order in every epoch; None: what `fit` is called with."""
    steps_per_epoch: PositiveInt | None = None
    """Steps of an epoch for callbacks, where nothing else tells; None: what `fit` is called with."""

    @property
    def test(self) -> None:
        """A script has no third split."""


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


class PythonModel(_Part):
    """What a function of the repository builds: `build(params) -> keras.Model`."""

    kind: Literal["python"]
    build: Reference
    """The function; it may name `seed` too."""
    params: dict[str, Any] = {}
    """What it is given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made, so that `--set` checks them."""


class ScriptModel(_Part):
    """What a training script hands to `expmgr.fit`, compiled."""

    kind: Literal["script"]
    script: str = Field(min_length=1, pattern=r"^[^/].*\.py$")
    """The script, in the experiment's folder."""
    params: dict[str, Any] = {}
    """What `expmgr.params({...})` gives in it, in the place of the defaults that stand there."""


class EstimatorModel(_Part):
    """What a function of the repository builds: `build(params, run_config) -> tf.estimator.Estimator`.

    It is trained by TensorFlow 2.14 or 2.15, the last that have Estimators, in an environment of its own.
    """

    kind: Literal["estimator"]
    build: Reference
    """The function; it is given the run's `tf.estimator.RunConfig` as `run_config`, and may name `seed` too."""
    params: dict[str, Any] = {}
    """What it is given as `params`."""
    params_model: Reference | None = None
    """A pydantic model that `params` are made, so that `--set` checks them."""
    serving: Reference | None = None
    """A `serving_input_receiver_fn` for `export`; None: raw tensors, as the features of the data are."""


class Named(_Part):
    """A loss or metric: of Keras by its name, or of the repository as `module:name`."""

    use: str = Field(pattern=r"^([A-Za-z_][\w.]*:)?[A-Za-z_]\w*$")
    params: dict[str, Any] = {}
    """What it is made with."""


def _named(value: Any) -> Any:
    """A word as `{use: word}`, in lists and by the names of outputs as well."""
    if isinstance(value, str):
        return {"use": value}
    if isinstance(value, list):
        return [_named(one) for one in value]
    if isinstance(value, dict) and "use" not in value:
        return {key: _named(one) for key, one in value.items()}
    return value


# Learning rates that are a function of the step: names and arguments of `keras.optimizers.schedules`.


class ExponentialDecay(_Part):
    """`initial_learning_rate * decay_rate ** (step / decay_steps)`."""

    kind: Literal["exponential_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False
    """Only whole multiples of `decay_steps` count."""


class PiecewiseConstantDecay(_Part):
    """`values[i]` up to and with step `boundaries[i]`, the last one after them."""

    kind: Literal["piecewise_constant_decay"]
    boundaries: list[PositiveInt] = Field(min_length=1)
    values: list[PositiveFloat]

    @model_validator(mode="after")
    def _agree(self) -> PiecewiseConstantDecay:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(f"values must be one more than boundaries: {len(self.values)}, {len(self.boundaries)}")
        if self.boundaries != sorted(set(self.boundaries)):
            raise ValueError("boundaries must rise")
        return self


class PolynomialDecay(_Part):
    """From `initial_learning_rate` to `end_learning_rate` in `decay_steps`."""

    kind: Literal["polynomial_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    end_learning_rate: NonNegativeFloat = 0.0001
    power: PositiveFloat = 1.0
    cycle: bool = False


class InverseTimeDecay(_Part):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`."""

    kind: Literal["inverse_time_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False


class CosineDecay(_Part):
    """Down a half cosine to `alpha * initial_learning_rate`, after an optional linear warm-up."""

    kind: Literal["cosine_decay"]
    initial_learning_rate: NonNegativeFloat
    decay_steps: PositiveInt
    alpha: NonNegativeFloat = 0.0
    warmup_target: PositiveFloat | None = None
    """What the warm-up rises to, and the decay starts from; None: no warm-up."""
    warmup_steps: NonNegativeInt = 0


class CosineDecayRestarts(_Part):
    """Cosine decays one after the other, each `t_mul` times as long and `m_mul` times as high as the last."""

    kind: Literal["cosine_decay_restarts"]
    initial_learning_rate: PositiveFloat
    first_decay_steps: PositiveInt
    t_mul: PositiveFloat = 2.0
    m_mul: PositiveFloat = 1.0
    alpha: NonNegativeFloat = 0.0


def _rate_tag(value: Any) -> str | None:
    if isinstance(value, BaseModel):
        return str(getattr(value, "kind", None))
    if isinstance(value, dict):
        kind = value.get("kind")
        return None if kind is None else str(kind)
    return NUMBER


#: The tag of a learning rate that is no schedule.
NUMBER = "number"

LearningRate = Annotated[
    Annotated[PositiveFloat, Tag(NUMBER)]
    | Annotated[ExponentialDecay, Tag("exponential_decay")]
    | Annotated[PiecewiseConstantDecay, Tag("piecewise_constant_decay")]
    | Annotated[PolynomialDecay, Tag("polynomial_decay")]
    | Annotated[InverseTimeDecay, Tag("inverse_time_decay")]
    | Annotated[CosineDecay, Tag("cosine_decay")]
    | Annotated[CosineDecayRestarts, Tag("cosine_decay_restarts")],
    Discriminator(_rate_tag),
]


class _Optimizer(_Part):
    learning_rate: LearningRate
    """A number, or a schedule: `{kind: cosine_decay, initial_learning_rate: 0.1, decay_steps: 1000}`."""
    clipnorm: PositiveFloat | None = None
    """Largest norm of each variable's gradient."""
    clipvalue: PositiveFloat | None = None
    """Largest absolute value in a gradient."""
    global_clipnorm: PositiveFloat | None = None
    """Largest norm of all gradients together."""
    gradient_accumulation_steps: Annotated[int, Field(ge=2)] | None = None
    """Over how many steps gradients are gathered for one update."""
    ema_momentum: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """A moving average of the weights is kept, and it is what is evaluated, asked and exported; None: none is."""

    @model_validator(mode="after")
    def _one_clip(self) -> _Optimizer:
        given = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} cannot both be set")
        return self


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


class EarlyStopping(_Part):
    """Training ends where a metric of the eval split has not become better for `patience` evaluations."""

    metric: str
    mode: Mode | None = None
    """The direction that is better; None: the metric's own."""
    patience: PositiveInt
    """Evaluations (of `eval.every_steps` or `eval.every_secs`) without a better value."""
    min_delta: NonNegativeFloat = 0.0
    """By how much a value has to be better to count."""


class Train(_Part):
    max_steps: PositiveInt
    """Training ends at this step, counted from the variant's first."""
    class_weight: dict[str, NonNegativeFloat] | None = None
    """What an example of a class counts in the loss of training; 1 for a class that is not named."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """What layers compute in; weights and the last layer are float32."""
    early_stopping: EarlyStopping | None = None
    determinism: bool = False
    """Only operations that give the same bits again (on a GPU; on a CPU they do anyhow): slower."""
    grace_secs: PositiveInt = 30
    """Seconds that a run which was asked to stop has to finish its step and save."""


class Eval(_Part):
    """When the eval split is evaluated. Each checkpoint is, besides, where `selection` goes by a metric."""

    every_steps: PositiveInt | None = None
    every_secs: PositiveInt | None = None
    at_end: bool = True
    """Whether it is evaluated at the last step."""
    steps: PositiveInt | None = None
    """Batches of an evaluation in training; None: all. At the end all count."""

    @model_validator(mode="after")
    def _one_schedule(self) -> Eval:
        if self.every_steps is not None and self.every_secs is not None:
            raise ValueError("every_steps and every_secs cannot both be set")
        return self


class Callback(_Part):
    """A Keras callback: of the experiment's own code, or of Keras."""

    use: Reference
    params: dict[str, Any] = {}
    """What it is called with."""


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

    @model_validator(mode="after")
    def _check_mode(self) -> Compare:
        own = direction_of(self.metric) if self.metric is not None else None
        if self.mode is not None and own is not None and self.mode != own:
            raise ValueError(
                f"compare.mode is {self.mode}, but {self.metric} is better where it is "
                f"{'more' if own == 'max' else 'less'}: compare.mode={own}, or null"
            )
        return self


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
    environment: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The Python environment that it runs in, a name of `[tool.expmgr.environments]`; None: expmgr's own."""
    data: Annotated[CsvData | PythonData | ScriptData, Field(discriminator="kind")]
    """May be left out where a script brings it."""
    model: Annotated[
        DnnClassifier | DnnRegressor | LinearClassifier | LinearRegressor | PythonModel | ScriptModel | EstimatorModel,
        Field(discriminator="kind"),
    ]
    optimizer: Annotated[Adagrad | Sgd | Adam | AdamW | RmsProp | Ftrl, Field(discriminator="kind")] | None = None
    """None where the function that builds the model compiles it."""
    loss: Named | list[Named] | dict[str, Named] | None = None
    """Of a model of one's own that is not compiled: one loss, or one an output."""
    loss_weights: list[float] | dict[str, float] | None = None
    """What the loss of each output counts."""
    metrics: list[Named] | dict[str, Named | list[Named]] | None = None
    """Of a model of one's own that is not compiled: for all outputs, or by the name of an output."""
    train: Train
    eval: Eval = Eval()
    callbacks: list[Callback] = []
    run_config: RunConfig = RunConfig()
    selection: LastCheckpoint | BestCheckpoint = LastCheckpoint()
    compare: Compare | None = None
    probe: Literal["on", "off"] = "on"
    """Whether a few rows of the eval split are stored with the checkpoints, to ask a restored model again."""

    @property
    def is_own(self) -> bool:
        """Whether code of the repository makes the model."""
        return isinstance(self.model, PythonModel | ScriptModel | EstimatorModel)

    @property
    def is_classifier(self) -> bool:
        """Whether the model's outputs are classes, as far as the spec knows."""
        if self.is_own:
            return self.data.labels is not None
        return self.model.kind in CLASSIFIERS

    @property
    def known_metrics(self) -> dict[str, str] | None:
        """The metrics that an evaluation gives, and the direction in which each is better; None: code decides."""
        if self.is_own:
            return None
        return CLASSIFIER_METRICS if self.is_classifier else REGRESSOR_METRICS

    @property
    def named_metrics(self) -> dict[str, str]:
        """The keys of the spec that name a metric of an evaluation, and which."""
        stopping, said = self.train.early_stopping, self.compare
        named = {
            "selection.metric": getattr(self.selection, "metric", None),
            "compare.metric": said.metric if said else None,
            "train.early_stopping.metric": stopping.metric if stopping else None,
        }
        return {key: metric for key, metric in named.items() if metric is not None}

    @property
    def evaluates(self) -> bool:
        """Whether training evaluates anything: at its end, on a schedule, or for a selection."""
        needed = self.named_metrics.keys() - {"compare.metric"}
        return bool(needed) or self.eval.at_end or bool(self.eval.every_steps or self.eval.every_secs)

    @property
    def compared(self) -> Compared:
        """What `compare` looks at: what the spec says, or the model's first metric on the eval split."""
        said = self.compare or Compare()
        metric = said.metric or next(iter(self.known_metrics or ("loss",)))
        about = said.model_dump(exclude={"metric", "mode"})
        return Compared(metric=metric, mode=said.mode or self.direction(metric), **about)

    def direction(self, metric: str) -> Mode:
        """Where a metric of the model is better."""
        known = (self.known_metrics or {}).get(metric)
        return "max" if known == "max" else "min" if known == "min" else direction_of(metric) or "min"

    @model_validator(mode="after")
    def _parts_agree(self) -> ExperimentSpec:
        data = self.data
        if isinstance(self.model, EstimatorModel):
            self._check_estimator(self.model)
        else:
            self._check_run_config()
        if isinstance(self.model, ScriptModel):
            self._check_script(self.model)
        elif isinstance(data, ScriptData):
            raise ValueError(f"data.kind script: only model.kind script brings it, not {self.model.kind}")
        if not self.is_own:
            self._check_premade(self.model.kind)
            if not self.is_classifier and data.labels is not None:
                raise ValueError(f"data.labels names classes, but {self.model.kind} predicts a number")
        if data.labels is not None and (len(set(data.labels)) != len(data.labels) or len(data.labels) < 2):
            raise ValueError("data.labels must name at least two classes, each once")
        if (
            isinstance(data, CsvData)
            and data.features is not None
            and (not data.features or data.label in data.features)
        ):
            raise ValueError("data.features must name at least one column, and not the label")
        self._check_metrics()
        if self.compare is not None and self.compare.split == "test" and data.test is None:
            kind = "file" if isinstance(data, CsvData) else "function"
            raise ValueError(f"compare.split is test, but data.test names no {kind}")
        if self.train.early_stopping and not (self.eval.every_steps or self.eval.every_secs):
            raise ValueError("train.early_stopping needs evaluations to look at: set eval.every_steps")
        if self.train.class_weight is not None:
            if self.is_own and data.labels is None:
                raise ValueError("train.class_weight names classes: set data.labels, in the order of the outputs")
            _check_class_weight(self.train.class_weight, data.labels, self.model.kind, self.is_classifier)
        return self

    def _check_premade(self, kind: str) -> None:
        """What only a model of one's own may leave open, or say."""
        if isinstance(self.data, PythonData):
            raise ValueError(
                f"model.kind {kind} takes columns, so data.kind csv; a model for other data is kind python"
            )
        if self.optimizer is None:
            raise ValueError("optimizer is missing")
        for name in ("loss", "loss_weights", "metrics"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: {kind} has its own; only model.kind python takes one")

    def _check_estimator(self, model: EstimatorModel) -> None:
        """What the Estimator's own code says, and not the spec."""
        for name in ("optimizer", "loss", "loss_weights", "metrics"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: an Estimator brings its own: it stands in the code of {model.build}")
        for name, default in (("class_weight", None), ("precision", "float32"), ("determinism", False)):
            if getattr(self.train, name) != default:
                raise ValueError(f"train.{name}: an Estimator brings its own: it stands in the code of {model.build}")
        if self.callbacks:
            raise ValueError("callbacks are Keras'; an Estimator's hooks stand in its own code (training_hooks)")
        if isinstance(self.data, CsvData) and self.data.normalize:
            raise ValueError("data.normalize: an Estimator normalises in its feature columns (normalizer_fn)")

    def _check_script(self, model: ScriptModel) -> None:
        """What the script says, and not the spec."""
        if not isinstance(self.data, ScriptData):
            raise ValueError(f"data.kind {self.data.kind}: the script brings its data; leave data out")
        for name in ("optimizer", "loss", "loss_weights", "metrics"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: {model.script} compiles its model itself")
        if self.train.precision != "float32":
            raise ValueError(f"train.precision: {model.script} says it itself (keras.config.set_dtype_policy)")

    def _check_run_config(self) -> None:
        for name, reason in RUN_CONFIG_REASONS.items():
            field = RunConfig.model_fields.get(name)
            if field is not None and getattr(self.run_config, name) != field.default:
                raise ValueError(f"run_config.{name}: cannot be honoured: {reason}")

    def _check_metrics(self) -> None:
        modes = {
            "selection.metric": getattr(self.selection, "mode", None),
            "compare.metric": self.compare.mode if self.compare else None,
            "train.early_stopping.metric": self.train.early_stopping.mode if self.train.early_stopping else None,
        }
        for where, metric in self.named_metrics.items():
            known = self.known_metrics
            if known is not None and metric not in known:
                raise ValueError(f"{where}: {self.model.kind} has no metric {metric!r}, it has {', '.join(known)}")
            if known is None and modes[where] is None and direction_of(metric) is None:
                mode = where.replace("metric", "mode")
                raise ValueError(f"{mode} must say max or min: which is better of {metric!r} cannot be known")

    @model_validator(mode="before")
    @classmethod
    def _data_of_a_script(cls, values: Any) -> Any:
        # A script brings its data: nothing has to be said of it.
        if (
            isinstance(values, dict)
            and isinstance(values.get("model"), dict)
            and values["model"].get("kind") == "script"
        ):
            data = values.get("data")
            if data is None or (isinstance(data, dict) and "kind" not in data):
                return {**values, "data": {"kind": "script", **(data or {})}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _short_names(cls, values: Any) -> Any:
        # `loss: mse` is `{use: mse}`, `metrics: [accuracy]` is `[{use: accuracy}]`.
        if not isinstance(values, dict):
            return values
        return {key: _named(value) if key in ("loss", "metrics") else value for key, value in values.items()}

    @model_validator(mode="before")
    @classmethod
    def _short_callbacks(cls, values: Any) -> Any:
        # `callbacks: ["module:Class"]` is `[{use: "module:Class"}]`.
        if isinstance(values, dict) and isinstance(values.get("callbacks"), list):
            named = [{"use": one} if isinstance(one, str) else one for one in values["callbacks"]]
            return {**values, "callbacks": named}
        return values

    def resolved(self) -> dict[str, Any]:
        """The whole spec as JSON values, defaults included."""
        values = self.model_dump(mode="json")
        values["compare"] = self.compared.model_dump(mode="json")
        if isinstance(self.selection, BestCheckpoint) and self.selection.mode is None:
            values["selection"]["mode"] = self.direction(self.selection.metric)
        stopping = self.train.early_stopping
        if stopping is not None and stopping.mode is None:
            values["train"]["early_stopping"]["mode"] = self.direction(stopping.metric)
        return values


def direction_of(metric: str) -> Mode | None:
    """Where a metric of this name is better, as far as its last words tell."""
    name = metric.lower()
    for words, mode in ((_BETTER_ABOVE, "max"), (_BETTER_BELOW, "min")):
        if any(name == word or name.endswith(f"_{word}") for word in words):
            return "max" if mode == "max" else "min"
    return None


def _check_class_weight(weights: dict[str, float], labels: list[str] | None, model: str, is_classifier: bool) -> None:
    if not is_classifier:
        raise ValueError(f"train.class_weight names classes, but {model} predicts a number")
    unknown = [name for name in weights if labels is not None and name not in labels]
    if unknown:
        raise ValueError(f"train.class_weight: {unknown[0]!r} is none of data.labels ({', '.join(labels or ())})")


def learned_from(resolved: dict[str, Any]) -> dict[str, Any]:
    """The parts of a resolved spec that a checkpoint depends on: not how long, how often, or what is compared."""
    seed = resolved["run_config"]["tf_random_seed"]
    parts = {key: resolved[key] for key in ("data", "model", "optimizer", "callbacks")}
    parts |= {key: resolved[key] for key in ("loss", "loss_weights") if resolved.get(key) is not None}
    of_training = {key: resolved["train"][key] for key in ("class_weight", "precision", "determinism")}
    return {**parts, **of_training, "tf_random_seed": seed}


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
    # A mapping that is empty on one side: what stands in it on the other says it all.
    found = {path: sides for path, sides in found.items() if any(side not in (None, {}) for side in sides)}
    orders = [list(values.get("data", {}).get("features") or ()) for values in (base, other)]
    if orders[0] != orders[1] and set(orders[0]) == set(orders[1]):  # the order of the columns is the first layer's
        found["data.features"] = (orders[0], orders[1])
    return found
