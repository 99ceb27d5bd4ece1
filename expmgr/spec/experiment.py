"""`ExperimentSpec`, the whole spec: all parts with their defaults, and rules that span parts.

One pydantic model, `ExperimentSpec`, which holds no reference to TensorFlow. Every default stands here, so a record that
holds a resolved spec says everything, also after a library has changed its own defaults.

Names: `spec_text` is the content of spec.yaml, `spec` the model, `resolved` (`spec` in a record) the dict with every
default, and `type_spec` TensorFlow's `tf.TypeSpec` of a batch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from expmgr.spec.data import CsvData, PythonData, ScriptData
from expmgr.spec.limits import check_values
from expmgr.spec.metrics import CLASSIFIER_METRICS, REGRESSOR_METRICS, Mode, direction_of
from expmgr.spec.model import (
    CLASSIFIERS,
    DnnClassifier,
    DnnRegressor,
    EstimatorModel,
    LinearClassifier,
    LinearRegressor,
    PythonModel,
    ScriptModel,
)
from expmgr.spec.optimizer import Adagrad, Adam, AdamW, Ftrl, Named, RmsProp, Sgd, kinds_by_name
from expmgr.spec.part import Part
from expmgr.spec.run_config import RUN_CONFIG_REASONS, RunConfig
from expmgr.spec.training import BestCheckpoint, Callback, Eval, LastCheckpoint, Train, check_class_weight


class Compare(Part):
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


class Compared(Part):
    """`Compare`, with what it leaves open filled in."""

    metric: str
    mode: Mode
    split: Literal["eval", "test"]
    minimum_effect: float | None
    baseline: str | None


class ExperimentSpec(Part):
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
            check_class_weight(self.train.class_weight, data.labels, self.model.kind, self.is_classifier)
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
        return {key: kinds_by_name(value) if key in ("loss", "metrics") else value for key, value in values.items()}

    @model_validator(mode="before")
    @classmethod
    def _short_callbacks(cls, values: Any) -> Any:
        # `callbacks: ["module:Class"]` is `[{use: "module:Class"}]`.
        if isinstance(values, dict) and isinstance(values.get("callbacks"), list):
            named = [{"use": one} if isinstance(one, str) else one for one in values["callbacks"]]
            return {**values, "callbacks": named}
        return values

    @model_validator(mode="before")
    @classmethod
    def _within_limits(cls, values: Any) -> Any:
        check_values(values)  # the first of all validators: the last that is defined
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
