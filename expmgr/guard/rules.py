"""What may change between a checkpoint and the model that wants it: the guard's rules, one after the other.

A rule says what moved, what may then happen, why, and the way out. Everything that no rule knows to be harmless is
refused. `moves` names the values of the probe that a change may move; any other movement is a fault of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from expmgr.paths import seeds_option


class Verdict(str, Enum):
    """What may happen with a checkpoint, the mildest first."""

    SAME = "same"
    RESUME = "resume"
    WARM_START = "warm-start"
    REFUSE = "refuse"

    @property
    def may_restore(self) -> bool:
        return self in (Verdict.SAME, Verdict.RESUME)

    @property
    def weight(self) -> int:
        """How much it weighs: the heaviest of several decides."""
        return list(Verdict).index(self)


@dataclass(frozen=True)
class Rule:
    """What moved, the verdict on it, and why."""

    id: str
    moved: str
    verdict: Verdict
    why: str
    out: str
    """What to type, with `{variant}` in it; empty where nothing has to be done."""
    moves: frozenset[str] = frozenset()
    """Values of the probe that it may move: `outputs`, `loss`, `step`, `metrics`."""

    def way_out(self, variant: str, seed: int = 0) -> str:
        """What a person can type about it."""
        return self.out.format(variant=variant, seeds=seeds_option(seed))


_NEW = (
    "give the change a variant of its own: expmgr new {variant}-2 --from {variant}; "
    "or start anew, with the old model_dir kept aside: expmgr run {variant}{seeds} --fresh"
)
_WARM = (
    "it is no continuation: give the change a variant of its own, and start it from these weights: "
    "expmgr new {variant}-2 --from {variant}, then expmgr run {variant}-2{seeds} --warm-start-from {variant}"
)
_BACK = "set it back as it was, or start anew, with the old model_dir kept aside: expmgr run {variant}{seeds} --fresh"
_NONE = ""
_OUT = frozenset({"outputs", "loss", "step", "metrics"})
_STEP = frozenset({"step"})
_LOSS = frozenset({"loss", "step"})

_SAME, _RESUME, _WARM_START, _REFUSE = Verdict

RULES = {
    rule.id: rule
    for rule in (
        # What the model is made of.
        Rule("variables", "a weight's shape, dtype or number", _REFUSE, "the weights do not fit", _NEW),
        Rule("role", "which part of the model a name stands for", _REFUSE,
             "a weight of that name plays another part now", _NEW),
        Rule("renamed", "a layer's name", _SAME, "the graph is the same: restored by the parts that weights play", _NONE),
        Rule("architecture", "another setting of the model", _REFUSE,
             "the same weights would mean something else", _NEW),
        Rule("computation", "what the model computes, though no setting did", _REFUSE,
             "the code of the model computes something else", _NEW),
        Rule("code", "the model's code, where its graph cannot be traced or compared", _REFUSE,
             "whether it computes the same cannot be known", _NEW),
        Rule("activation", "an activation", _WARM_START, "the weights were trained for another one", _WARM, _OUT),
        Rule("epsilon", "the epsilon of a normalisation", _WARM_START, "the weights were trained for another one",
             _WARM, _OUT),
        Rule("pooling", "the kind of pooling", _WARM_START, "the weights were trained for another one", _WARM, _OUT),
        Rule("stateful", "whether a recurrent layer keeps its state", _WARM_START,
             "the weights were trained without it, or with it", _WARM, _OUT),
        Rule("dtype", "the dtype of weights, not to a wider one", _WARM_START, "digits would be lost", _WARM, _OUT),
        Rule("wider-dtype", "the dtype of weights, to a wider one", _RESUME, "every value is kept", _NONE, _OUT),
        Rule("precision", "the precision of the computation", _RESUME, "the weights are the same", _NONE, _OUT),
        Rule("frozen", "which weights are trained", _WARM_START, "another set of weights goes on learning", _WARM, _STEP),
        Rule("initializer", "an initializer", _REFUSE, "restoring would silently undo it", _BACK),
        Rule("dropout", "dropout, noise or augmentation of training", _RESUME, "only training uses it", _NONE, _STEP),
        Rule("momentum", "the momentum of a batch normalisation", _RESUME, "only how statistics go on", _NONE, _STEP),
        Rule("regularizer", "a regularizer or constraint", _RESUME, "only how training goes on", _NONE, _LOSS),
        Rule("setting", "a setting without effect on what is computed", _SAME, "nothing that is computed changed", _NONE),
        # What it is given.
        Rule("features", "columns, their order or kind", _REFUSE,
             "the first layer's weights belong to other columns or values", _NEW),
        Rule("feature-renamed", "the name of a column", _RESUME, "its values are the same", _NONE),
        Rule("vocabulary", "a vocabulary's content or order", _REFUSE, "the weights belong to other words", _NEW),
        Rule("normalisation", "statistics that a layer normalises by", _RESUME,
             "the checkpoint's are restored, with which its weights were trained", _NONE, _OUT),
        Rule("preprocessing", "what the experiment declares of its preprocessing", _REFUSE,
             "the model would be given other values", _NEW),
        Rule("label", "the column that is predicted", _REFUSE, "the outputs say something of another column", _NEW),
        Rule("labels", "classes or their order", _REFUSE, "the outputs belong to other classes", _NEW),
        Rule("data", "the content of the training split", _REFUSE, "the rows that it was trained on are others", _NEW),
        Rule("first-batch", "the first rows of the evaluation, as they enter the model", _REFUSE,
             "what is done to the data before the model changed", _NEW),
        Rule("evaluation-data", "the content of the eval or test split", _RESUME,
             "nothing was learned from them; it is evaluated on the new rows", _NONE, frozenset({"metrics"})),
        # How training goes on.
        Rule("loss", "the loss", _WARM_START, "the weights were trained for another goal", _WARM, _LOSS),
        Rule("optimizer", "the optimizer", _WARM_START, "another optimizer continues nothing", _WARM, _STEP),
        Rule("optimizer-variables", "the optimizer's slots", _WARM_START, "the optimizer's slots do not fit", _WARM,
             _STEP),
        Rule("optimizer-start", "what the optimizer's slots begin with", _REFUSE, "restoring would silently undo it",
             _BACK),
        Rule("optimizer-setting", "a setting of the optimizer", _RESUME, "only how training goes on", _NONE, _STEP),
        Rule("learning-rate-schedule", "the learning rate's schedule", _RESUME,
             "it is a function of the step, which goes on", _NONE, _STEP),
        Rule("gradient-accumulation", "over how many steps gradients are gathered", _RESUME,
             "what is gathered starts at zero; the count of updates goes on", _NONE, _STEP),
        Rule("weight-average", "whether a moving average of the weights is kept", _RESUME,
             "it begins with the weights as they are; or the weights go on without it", _NONE, _STEP),
        Rule("batch-size", "rows a step", _RESUME, "only how training goes on", _NONE, _STEP),
        Rule("data-order", "whether rows are shuffled", _RESUME, "only how training goes on", _NONE),
        Rule("seed", "the seed of the run", _REFUSE, "a seed has a model_dir of its own", _BACK),
        Rule("training-code", "what a training step does, though no setting did", _REFUSE,
             "the code of the training step does something else", _NEW),
        Rule("unknown", "something that no rule knows", _REFUSE, "nothing says that it is harmless", _NEW),
    )
}  # fmt: skip

#: Changes that a restored run goes on without, or that change nothing for it.
_UNSEEN = frozenset({"normalisation", "feature-renamed", "renamed", "setting", "wider-dtype"})
#: Changes that training does not notice: those, and rows that are evaluated alone.
WITHOUT_EFFECT = _UNSEEN | {"evaluation-data"}


def told(rule_id: str, what: str, saved: str, wanted: str, *, allowed: bool = False) -> str:
    """One change that was let through, as a run says it."""
    rule = RULES[rule_id]
    if allowed:
        return f"{what}: {saved} -> {wanted}, let pass by --allow {rule_id} ({rule.why})"
    effect = "" if rule_id in _UNSEEN else ", takes effect now"
    return f"{what}: {saved} -> {wanted}{effect} ({rule.why})"


#: Rules that say nothing of a model that is only asked, not trained: `evaluate`, `predict`, `export`.
TRAINING = frozenset(
    {"data", "evaluation-data", "loss", "optimizer", "optimizer-variables", "optimizer-start", "optimizer-setting"}
    | {
        "learning-rate-schedule",
        "gradient-accumulation",
        "weight-average",
        "batch-size",
        "data-order",
        "seed",
        "training-code",
    }
    | {"initializer", "regularizer", "dropout", "momentum", "frozen"}
)

#: Differences that no `--allow` lets pass.
NEVER_ALLOWED = frozenset({"variables"})
