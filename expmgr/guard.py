"""The guard: may this checkpoint be restored into that model?

A pure function of two signatures. `RULES` is the whole of what is known to be harmless; everything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from expmgr.errors import CheckpointRefused
from expmgr.signature import Feature, Signature, Variable


class Verdict(str, Enum):
    """What may happen with a checkpoint, the mildest first."""

    SAME = "same"
    RESUME = "resume"
    WARM_START = "warm-start"
    REFUSE = "refuse"

    @property
    def may_restore(self) -> bool:
        return self in (Verdict.SAME, Verdict.RESUME)


_ORDER = list(Verdict)


@dataclass(frozen=True)
class Rule:
    """What moved, the verdict on it, and why."""

    id: str
    verdict: Verdict
    why: str


RULES = {
    rule.id: rule
    for rule in (
        Rule("variables", Verdict.REFUSE, "the weights do not fit"),
        Rule("optimizer-variables", Verdict.WARM_START, "the optimizer's slots do not fit"),
        Rule("architecture", Verdict.REFUSE, "the same weights would mean something else"),
        Rule("dropout", Verdict.RESUME, "only training uses it"),
        Rule("features", Verdict.REFUSE, "the first layer's weights belong to other columns or values"),
        Rule("label", Verdict.REFUSE, "the outputs say something of another column"),
        Rule("labels", Verdict.REFUSE, "the outputs belong to other classes"),
        Rule("data", Verdict.REFUSE, "the rows that it was trained on are others"),
        Rule("evaluation-data", Verdict.RESUME, "nothing was learned from them; it is evaluated on the new rows"),
        Rule("loss", Verdict.WARM_START, "the weights were trained for another goal"),
        Rule("batch-size", Verdict.RESUME, "only how training goes on"),
        Rule("data-order", Verdict.RESUME, "only how training goes on"),
        Rule("optimizer", Verdict.WARM_START, "another optimizer continues nothing"),
        Rule("optimizer-start", Verdict.REFUSE, "restoring would silently undo it"),
        Rule("optimizer-setting", Verdict.RESUME, "only how training goes on"),
    )
}

#: Settings of an optimizer that take effect from any step on.
_LIVE_SETTINGS = frozenset(
    {"learning_rate", "clipnorm", "momentum", "nesterov", "rho", "epsilon", "beta_1", "beta_2", "weight_decay"}
    | {"learning_rate_power", "l1_regularization_strength", "l2_regularization_strength"}
)


@dataclass(frozen=True)
class Difference:
    """One thing that moved: which rule knows it, what it is called, and both sides."""

    rule: Rule
    what: str
    saved: str
    wanted: str

    def as_dict(self) -> dict[str, str]:
        return {
            "rule": self.rule.id,
            "verdict": self.rule.verdict.value,
            "what": self.what,
            "saved": self.saved,
            "wanted": self.wanted,
            "why": self.rule.why,
        }


@dataclass(frozen=True)
class Judgement:
    """The verdict and every difference behind it, those that weigh most first."""

    verdict: Verdict
    differences: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict.value, "differences": [one.as_dict() for one in self.differences]}


def judge(saved: Signature, wanted: Signature) -> Judgement:
    """Whether the checkpoint of signature `saved` may be restored into the model that offers `wanted`."""
    found = sorted(_differences(saved, wanted), key=lambda one: -_ORDER.index(one.rule.verdict))
    verdict = found[0].rule.verdict if found else Verdict.SAME
    return Judgement(verdict, tuple(found))


def _differences(saved: Signature, wanted: Signature) -> Iterator[Difference]:
    yield from _variables("variables", saved.variables, wanted.variables)
    for key, old, new in _pairs(saved.model, wanted.model):
        yield Difference(RULES["dropout" if key == "dropout" else "architecture"], f"model.{key}", old, new)
    yield from _features(saved.features, wanted.features)
    if saved.label != wanted.label:
        yield Difference(RULES["label"], "data.label", saved.label, wanted.label)
    if saved.labels != wanted.labels:
        yield Difference(RULES["labels"], "labels", _shown(saved.labels), _shown(wanted.labels))
    # A split that only one side has was never compared with anything: adding one changes nothing that was learned.
    both = saved.data.keys() & wanted.data.keys()
    for split, old, new in _pairs(
        *({key: side[key] for key in side if key in both} for side in (saved.data, wanted.data))
    ):
        data_rule = RULES["data" if split == "train" else "evaluation-data"]
        yield Difference(data_rule, f"data.{split}", f"sha256 {old[:12]}", f"sha256 {new[:12]}")
    known = {"batch_size": "batch-size", "shuffle": "data-order", "loss": "loss"}
    for key, old, new in _pairs(saved.training, wanted.training):
        yield Difference(RULES[known.get(key, "architecture")], key, old, new)
    if saved.optimizer.get("kind") != wanted.optimizer.get("kind"):
        kinds = str(saved.optimizer.get("kind")), str(wanted.optimizer.get("kind"))
        yield Difference(RULES["optimizer"], "optimizer", *kinds)
        return
    yield from _variables("optimizer-variables", saved.optimizer_variables, wanted.optimizer_variables)
    for key, old, new in _pairs(saved.optimizer, wanted.optimizer):
        rule = "optimizer-setting" if key in _LIVE_SETTINGS else "optimizer-start"
        yield Difference(RULES[rule], f"optimizer.{key}", old, new)


def _variables(rule: str, saved: Sequence[Variable], wanted: Sequence[Variable]) -> Iterator[Difference]:
    old = {variable.path: variable for variable in saved}
    new = {variable.path: variable for variable in wanted}
    for path in [*old, *(path for path in new if path not in old)]:
        one, two = old.get(path), new.get(path)
        if one is None or two is None or (one.shape, one.dtype, one.trainable) != (two.shape, two.dtype, two.trainable):
            sides = [_variable(side, one, two) for side in (one, two)]
            yield Difference(RULES[rule], path, *sides)
    if old.keys() == new.keys() and list(old) != list(new):
        yield Difference(RULES[rule], "order of the layers", _shown(list(old)), _shown(list(new)))


def _variable(side: Variable | None, one: Variable | None, two: Variable | None) -> str:
    if side is None:
        return "nothing"
    frozen = one is not None and two is not None and one.trainable != two.trainable
    return f"{side} {'trained' if side.trainable else 'frozen'}" if frozen else str(side)


def _features(saved: Sequence[Feature], wanted: Sequence[Feature]) -> Iterator[Difference]:
    rule = RULES["features"]
    if [one.name for one in saved] != [one.name for one in wanted]:
        yield Difference(rule, "features", _shown([one.name for one in saved]), _shown([one.name for one in wanted]))
        return
    for one, two in zip(saved, wanted, strict=True):
        if one.kind != two.kind:
            yield Difference(rule, one.name, one.kind, two.kind)
        elif one.vocabulary != two.vocabulary:
            yield Difference(rule, f"vocabulary of {one.name}", _shown(one.vocabulary), _shown(two.vocabulary))
        elif one.scale != two.scale:
            yield Difference(rule, f"normalisation of {one.name}", _shown(one.scale), _shown(two.scale))


def _pairs(saved: dict[str, Any], wanted: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in [*saved, *(key for key in wanted if key not in saved)]:
        if saved.get(key) != wanted.get(key) or (key in saved) != (key in wanted):
            yield key, _shown(saved.get(key, "nothing")), _shown(wanted.get(key, "nothing"))


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def refusal(judgement: Judgement, checkpoint: str, variant: str) -> CheckpointRefused:
    """The error for a judgement that does not let `checkpoint` (a path to show) into `variant`."""
    shown = judgement.differences[:5]
    widths = [max(len(getattr(one, side)) for one in shown) for side in ("what", "saved")]
    lines = [f"{one.what:<{widths[0]}}   saved {one.saved:<{widths[1]}}   wanted {one.wanted}" for one in shown]
    rest = len(judgement.differences) - len(shown)
    if rest:
        lines.append(f"and {rest} more (expmgr check {variant} --all)")
    return CheckpointRefused(
        f"{checkpoint} was not restored: it does not fit variant {variant}",
        details=[line.rstrip() for line in lines],
        left_alone="Nothing was changed on disk.",
        hint=f"give the change a variant of its own: expmgr new {variant}-2 --from {variant}; "
        f"or start anew, with the old model_dir kept aside: expmgr run {variant} --fresh",
    )
