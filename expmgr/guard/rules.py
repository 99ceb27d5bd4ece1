"""The guard's rules: which changes between a checkpoint and a model get which verdict, and why.

A rule says what moved, what may then happen, why, and the way out. Everything that no rule knows to be harmless is
refused. `moves` names the values of the probe that a change may move; any other movement is a fault of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

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
    explains_inference: bool = False
    """Whether it is reason enough for a changed graph of inference, so that `computation` adds nothing."""
    explains_step: bool = False
    """Whether it is a reason for a changed graph of the training step."""
    sets_layers: bool = False
    """Whether it changes settings of layers that only training uses: a changed step may come from those alone, with the
    code of the model changed too."""
    only_training: bool = False
    """Whether a model that is only used for inference (`evaluate`, `predict`, `export`) does not depend on it."""
    changes_meaning: bool = False
    """Whether a weight of the same name and shape means something else after it, so that no warm start takes the weight."""
    effect: Literal["training", "evaluation", "none"] = "training"
    """What notices it in a run that is restored; `none` if nothing does."""
    may_be_allowed: bool = True
    """Whether `--allow` can let it pass."""

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
        Rule("variables", "a weight's shape, dtype or number", _REFUSE, "the weights do not fit", _NEW,
             explains_inference=True, explains_step=True, may_be_allowed=False),
        Rule("role", "which part of the model a name stands for", _REFUSE,
             "a weight of that name plays another part now", _NEW, explains_step=True, changes_meaning=True),
        Rule("renamed", "a layer's name", _SAME, "the graph is the same: restored by the parts that weights play",
             _NONE, effect="none"),
        Rule("architecture", "another setting of the model", _REFUSE, "the same weights would mean something else",
             _NEW, explains_inference=True, explains_step=True),
        Rule("computation", "what the model computes, though no setting did", _REFUSE,
             "the code of the model computes something else", _NEW, explains_step=True, changes_meaning=True),
        Rule("code", "the model's code, where its graph cannot be traced or compared", _REFUSE,
             "whether it computes the same cannot be known", _NEW, explains_step=True, changes_meaning=True),
        Rule("activation", "an activation", _WARM_START, "the weights were trained for another one", _WARM, _OUT,
             explains_inference=True, explains_step=True),
        Rule("epsilon", "the epsilon of a normalisation", _WARM_START, "the weights were trained for another one",
             _WARM, _OUT, explains_inference=True, explains_step=True),
        Rule("pooling", "the kind of pooling", _WARM_START, "the weights were trained for another one", _WARM, _OUT,
             explains_inference=True, explains_step=True),
        Rule("stateful", "whether a recurrent layer keeps its state", _WARM_START,
             "the weights were trained without it, or with it", _WARM, _OUT, explains_inference=True,
             explains_step=True),
        Rule("dtype", "the dtype of weights, not to a wider one", _WARM_START, "digits would be lost", _WARM, _OUT,
             explains_step=True),
        Rule("wider-dtype", "the dtype of weights, to a wider one", _RESUME, "every value is kept", _NONE, _OUT,
             explains_step=True, effect="none"),
        Rule("precision", "the precision of the computation", _RESUME, "the weights are the same", _NONE, _OUT,
             explains_step=True),
        Rule("frozen", "which weights are trained", _WARM_START, "another set of weights goes on learning", _WARM,
             _STEP, explains_step=True, only_training=True),
        Rule("initializer", "an initializer", _REFUSE, "restoring would silently undo it", _BACK, only_training=True),
        Rule("dropout", "dropout, noise or augmentation of training", _RESUME, "only training uses it", _NONE, _STEP,
             explains_step=True, sets_layers=True, only_training=True),
        Rule("momentum", "the momentum of a batch normalisation", _RESUME, "only how statistics go on", _NONE, _STEP,
             explains_step=True, sets_layers=True, only_training=True),
        Rule("regularizer", "a regularizer or constraint", _RESUME, "only how training goes on", _NONE, _LOSS,
             explains_step=True, sets_layers=True, only_training=True),
        Rule("setting", "a setting without effect on what is computed", _SAME, "nothing that is computed changed",
             _NONE, effect="none"),
        # What it is given.
        Rule("features", "columns, their order or kind", _REFUSE,
             "the first layer's weights belong to other columns or values", _NEW, explains_inference=True,
             explains_step=True, changes_meaning=True),
        Rule("feature-renamed", "the name of a column", _RESUME, "its values are the same", _NONE, effect="none"),
        Rule("vocabulary", "a vocabulary's content or order", _REFUSE, "the weights belong to other words", _NEW,
             explains_inference=True, explains_step=True, changes_meaning=True),
        Rule("normalisation", "statistics that a layer normalises by", _RESUME,
             "the checkpoint's are restored, with which its weights were trained", _NONE, _OUT, explains_step=True,
             effect="none"),
        Rule("preprocessing", "what the experiment declares of its preprocessing", _REFUSE,
             "the model would be given other values", _NEW, changes_meaning=True),
        Rule("label", "the column that is predicted", _REFUSE, "the outputs say something of another column", _NEW),
        Rule("labels", "classes or their order", _REFUSE, "the outputs belong to other classes", _NEW,
             changes_meaning=True),
        Rule("data", "the content of the training split", _REFUSE, "the rows that it was trained on are others", _NEW,
             only_training=True),
        Rule("first-batch", "the first rows of the evaluation, as they enter the model", _REFUSE,
             "what is done to the data before the model changed", _NEW),
        Rule("evaluation-data", "the content of the eval or test split", _RESUME,
             "nothing was learned from them; it is evaluated on the new rows", _NONE, frozenset({"metrics"}),
             only_training=True, effect="evaluation"),
        # How training goes on.
        Rule("loss", "the loss", _WARM_START, "the weights were trained for another goal", _WARM, _LOSS,
             explains_step=True, only_training=True),
        Rule("optimizer", "the optimizer", _WARM_START, "another optimizer continues nothing", _WARM, _STEP,
             explains_step=True, only_training=True),
        Rule("optimizer-variables", "the optimizer's slots", _WARM_START, "the optimizer's slots do not fit", _WARM,
             _STEP, explains_step=True, only_training=True),
        Rule("optimizer-start", "what the optimizer's slots begin with", _REFUSE, "restoring would silently undo it",
             _BACK, explains_step=True, only_training=True),
        Rule("optimizer-setting", "a setting of the optimizer", _RESUME, "only how training goes on", _NONE, _STEP,
             explains_step=True, only_training=True),
        Rule("learning-rate-schedule", "the learning rate's schedule", _RESUME,
             "it is a function of the step, which goes on", _NONE, _STEP, explains_step=True, only_training=True),
        Rule("gradient-accumulation", "over how many steps gradients are gathered", _RESUME,
             "what is gathered starts at zero; the count of updates goes on", _NONE, _STEP, explains_step=True,
             only_training=True),
        Rule("weight-average", "whether a moving average of the weights is kept", _RESUME,
             "it begins with the weights as they are; or the weights go on without it", _NONE, _STEP,
             explains_step=True, only_training=True),
        Rule("batch-size", "rows a step", _RESUME, "only how training goes on", _NONE, _STEP, only_training=True),
        Rule("data-order", "whether rows are shuffled", _RESUME, "only how training goes on", _NONE,
             only_training=True),
        Rule("seed", "the seed of the run", _REFUSE, "a seed has a model_dir of its own", _BACK, only_training=True),
        Rule("training-code", "what a training step does, though no setting did", _REFUSE,
             "the code of the training step does something else", _NEW, only_training=True),
        Rule("unknown", "something that no rule knows", _REFUSE, "nothing says that it is harmless", _NEW),
    )
}  # fmt: skip


def told(rule_id: str, what: str, saved: str, wanted: str, *, allowed: bool = False) -> str:
    """One change that was let through, as a run says it."""
    rule = RULES[rule_id]
    if allowed:
        return f"{what}: {saved} -> {wanted}, {allowed_by(rule_id)} ({rule.why})"
    effect = "" if rule.effect == "none" else ", takes effect now"
    return f"{what}: {saved} -> {wanted}{effect} ({rule.why})"


def allowed_by(*rule_ids: str) -> str:
    """That a person allowed what the guard refused, by the ids of its rules."""
    return f"allowed by --allow {' '.join(rule_ids)}"
