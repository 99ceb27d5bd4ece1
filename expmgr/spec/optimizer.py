"""The part `optimizer` of a spec, with its learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from expmgr.spec.part import Part


class Named(Part):
    """A loss or metric: of Keras by its name, or of the repository as `module:name`."""

    use: str = Field(pattern=r"^([A-Za-z_][\w.]*:)?[A-Za-z_]\w*$")
    params: dict[str, Any] = {}
    """What it is made with."""


def kinds_by_name(value: Any) -> Any:
    """A word as `{use: word}`, in lists and by the names of outputs as well."""
    if isinstance(value, str):
        return {"use": value}
    if isinstance(value, list):
        return [kinds_by_name(one) for one in value]
    if isinstance(value, dict) and "use" not in value:
        return {key: kinds_by_name(one) for key, one in value.items()}
    return value


# Learning rates that are a function of the step: names and arguments of `keras.optimizers.schedules`.


class ExponentialDecay(Part):
    """`initial_learning_rate * decay_rate ** (step / decay_steps)`."""

    kind: Literal["exponential_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False
    """Only whole multiples of `decay_steps` count."""


class PiecewiseConstantDecay(Part):
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


class PolynomialDecay(Part):
    """From `initial_learning_rate` to `end_learning_rate` in `decay_steps`."""

    kind: Literal["polynomial_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    end_learning_rate: NonNegativeFloat = 0.0001
    power: PositiveFloat = 1.0
    cycle: bool = False


class InverseTimeDecay(Part):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`."""

    kind: Literal["inverse_time_decay"]
    initial_learning_rate: PositiveFloat
    decay_steps: PositiveInt
    decay_rate: PositiveFloat
    staircase: bool = False


class CosineDecay(Part):
    """Down a half cosine to `alpha * initial_learning_rate`, after an optional linear warm-up."""

    kind: Literal["cosine_decay"]
    initial_learning_rate: NonNegativeFloat
    decay_steps: PositiveInt
    alpha: NonNegativeFloat = 0.0
    warmup_target: PositiveFloat | None = None
    """What the warm-up rises to, and the decay starts from; None: no warm-up."""
    warmup_steps: NonNegativeInt = 0


class CosineDecayRestarts(Part):
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


class _Optimizer(Part):
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
