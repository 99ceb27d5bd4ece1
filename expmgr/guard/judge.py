"""The guard's judgement: compares two signatures and gives a verdict with its reasons.

A pure function of two signatures. `rules.py` is the whole of what is known; here it is found out what moved.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from expmgr.checkpoints.signature import AVERAGE, Signature, TrainingSetup, Variable, slot_path
from expmgr.guard.data import data_differences
from expmgr.guard.difference import Difference, both_sides, pairs_of
from expmgr.guard.layers import layer_differences
from expmgr.guard.rules import RULES, Rule, Verdict
from expmgr.guard.training import training_differences

#: Kinds of models that code of the repository makes.
_OWN = frozenset({"python", "script", "estimator"})
#: Settings of the spec's model section that a rule of its own knows.
_ARCHITECTURE = {"dropout": "dropout", "activation": "activation"}
_WIDTH = {"bfloat16": 1, "float16": 1, "float32": 2, "float64": 3}
#: What accumulates gradients, and what scales the loss, in the optimizer's variables.
_ACCUMULATOR = "_gradient_accumulator"


@dataclass(frozen=True)
class Judgement:
    """The verdict and every difference behind it, those that weigh most first."""

    verdict: Verdict
    differences: tuple[Difference, ...]
    renames: Mapping[str, str] = field(default_factory=dict)
    """Path of a variable in the checkpoint to its path in the model, where it has another one now."""
    notes: tuple[str, ...] = ()
    """What the verdict rests on where it is not the graph."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "differences": [one.as_dict() for one in self.differences],
            "renames": dict(self.renames),
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Judgement:
        """The judgement that another process told of (`as_dict`)."""
        differences = tuple(
            Difference(RULES[one["rule"]], one["what"], one["saved"], one["wanted"], one["allowed"])
            for one in told["differences"]
        )
        return cls(Verdict(told["verdict"]), differences, dict(told["renames"]), tuple(told["notes"]))


def judge(
    saved: Signature, wanted: Signature, allowed: Collection[str] = (), *, purpose: Literal["train", "ask"] = "train"
) -> Judgement:
    """Whether the checkpoint of signature `saved` may be restored into the model that offers `wanted`.

    `allowed` are the ids of rules whose refusal a person takes upon themselves; a weight that does not fit is none.
    A model that is only asked (`purpose`) does not depend on how it was trained.
    """
    case = _Case(saved, wanted)
    found = [
        Difference(one.rule, one.what, one.saved, one.wanted, _is_let_pass(one.rule, allowed))
        for one in case.differences()
        if purpose == "train" or not one.rule.only_training
    ]
    found.sort(key=lambda one: -one.verdict.weight)
    verdict = found[0].verdict if found else Verdict.SAME
    return Judgement(verdict, tuple(found), case.renames, tuple(case.notes))


def _is_let_pass(rule: Rule, allowed: Collection[str]) -> bool:
    return rule.id in allowed and rule.may_be_allowed and not rule.verdict.may_restore


class _Case:
    """Two signatures, and what is found out about them on the way."""

    def __init__(self, saved: Signature, wanted: Signature) -> None:
        self.saved, self.wanted = saved, wanted
        self.notes: list[str] = []
        self.is_same_precision = set(_dtypes(saved)) == set(_dtypes(wanted))
        self.is_comparable = self._is_comparable()
        self.renames = self._renames()

    def differences(self) -> Iterator[Difference]:
        before = [
            *self._variables(),
            *self._roles(),
            *self._layers(),
            *data_differences(self.saved.data, self.wanted.data),
        ]
        before += [*training_differences(self.saved.training, self.wanted.training), *self._optimizer_variables()]
        found = [*before, *self._inference(before)]
        found += self._training_step(found)
        yield from found
        yield from self._unknown(alone=not found)

    # What the model is made of.

    def _is_comparable(self) -> bool:
        """Whether both fingerprints were traced from a graph, by the same TensorFlow and Keras."""
        sides = (self.saved, self.wanted)
        for name in ("tensorflow", "keras"):
            one, two = (side.provenance.get(name) for side in sides)
            if one != two:
                self.notes.append(
                    f"it was saved with {name} {one}, this is {two}: the graphs cannot be compared, the configuration decides"
                )
                return False
        for side in sides:
            if side.inference.by != "graph":
                reason = side.inference.reason or "no reason is known"
                self.notes.append(f"the model cannot be traced ({reason}): its code decides")
                return False
        return True

    def _is_same_inference(self) -> bool:
        """Whether both compute the same, names apart."""
        one, two = self.saved.inference, self.wanted.inference
        if self.is_comparable:
            return one.digest == two.digest if self.is_same_precision else one.blind == two.blind
        return self.saved.code == self.wanted.code and (self.saved.code is not None or one.by == two.by == "graph")

    def _renames(self) -> dict[str, str]:
        """Old path to new one of every variable that has another now, by the part that each plays; {} where it is not
        known."""
        old, new = (_by_path(side.variables) for side in (self.saved, self.wanted))
        if old.keys() == new.keys() or not self.is_comparable or not self._is_same_inference():
            return {}
        gone = [path for path in old if path not in new]
        come = {self._role(new[path]): path for path in new if path not in old}
        if len(gone) != len(come) or None in come or any(self._role(old[path]) not in come for path in gone):
            return {}
        return {path: come[self._role(old[path])] for path in gone}

    def _role(self, variable: Variable) -> int | None:
        if self.is_same_precision or variable.blind_role is None:
            return variable.role
        return variable.blind_role

    def _variables(self) -> Iterator[Difference]:
        old = {self.renames.get(one.path, one.path): one for one in self.saved.variables}
        new = _by_path(self.wanted.variables)
        for path in [*old, *(path for path in new if path not in old)]:
            yield from _variable_difference(path, old.get(path), new.get(path), "variables")
        for one, two in self.renames.items():
            yield Difference(RULES["renamed"], "name", one, two)

    def _roles(self) -> Iterator[Difference]:
        """A name that both sides have has to play the same part."""
        if not self.is_comparable or not self._is_same_inference():
            return
        old, new = (_by_path(side.variables) for side in (self.saved, self.wanted))
        if old.keys() == new.keys() and self.is_same_precision:
            one, two = self.saved.training_step, self.wanted.training_step
            if one.named and two.named and one.digest == two.digest and one.named != two.named:
                yield Difference(RULES["role"], "names in a training step", one.named[:12], two.named[:12])
            one, two = self.saved.inference, self.wanted.inference
            if one.named and one.named == two.named:
                return  # which of two alike comes first in the graph is the tracing's affair
        for path in old:
            if path in new and self._role(old[path]) != self._role(new[path]):
                parts = [_part(self._role(side[path])) for side in (old, new)]
                yield Difference(RULES["role"], path, parts[0], parts[1])

    def _layers(self) -> Iterator[Difference]:
        """What the configuration says. Settings of the spec's model section stand for those of the layers they make."""
        one, two = self.saved.architecture, self.wanted.architecture
        is_premade = one is not None and two is not None and not _OWN & {one.get("kind"), two.get("kind")}
        if is_premade and one is not None and two is not None and one != two:
            for key, old, new in pairs_of(one, two):
                yield Difference(
                    RULES[_ARCHITECTURE.get(key.partition(".")[0], "architecture")], f"model.{key}", old, new
                )
            return
        for what, old_value, new_value, rule in layer_differences(self.saved.layers, self.wanted.layers):
            if rule is None:
                rule = "setting" if self.is_comparable and self._is_same_inference() else "architecture"
            yield Difference(RULES[rule], what, *both_sides(old_value, new_value))

    def _inference(self, found: Sequence[Difference]) -> Iterator[Difference]:
        """The graph, where nothing else said yet that the model computes something else."""
        if self._is_same_inference():
            return
        if any(one.rule.explains_inference for one in found):
            return
        one, two = self.saved.inference, self.wanted.inference
        if self.is_comparable:
            yield Difference(RULES["computation"], "graph", one.digest[:12], two.digest[:12])
        elif self.saved.code is not None or self.wanted.code is not None or "none" in (one.by, two.by):
            sides = [side.code[:12] if side.code else "not known" for side in (self.saved, self.wanted)]
            yield Difference(RULES["code"], "code of the model", sides[0], sides[1])

    def _training_step(self, found: Sequence[Difference]) -> Iterator[Difference]:
        one, two = self.saved.training_step, self.wanted.training_step
        if not self.is_comparable or {one.by, two.by} != {"graph"}:
            if one.by != two.by and self.is_comparable:
                yield Difference(RULES["training-code"], "training step", f"by {one.by}", f"by {two.by}")
            return
        is_same = one.digest == two.digest if self.is_same_precision else one.blind == two.blind
        if self.is_same_precision and one.named and one.named == two.named:
            is_same = True  # the same by names: which of two alike comes first is the tracing's affair
        if not is_same and not self._is_explained(found):
            yield Difference(RULES["training-code"], "graph of a training step", one.digest[:12], two.digest[:12])

    def _is_explained(self, found: Sequence[Difference]) -> bool:
        """Whether what was found says why a training step is another one, and all of it.

        A change that training goes on with must hide no other: the step's own code has to be what it was, and either
        the model's code is, or nothing but numbers moved in the graph.
        """
        moves = [one for one in found if one.rule.explains_step]
        # A plain learning rate of Keras is the value of a variable, which moves no graph.
        explaining = [one for one in moves if self.saved.keys == "names" or not _is_rate(one)]
        if not explaining or any(not one.rule.verdict.may_restore for one in explaining):
            return bool(explaining)
        one, two = self.saved.training_step, self.wanted.training_step
        are_numbers_alone = bool(one.neutral) and one.neutral == two.neutral
        is_same_step = self.saved.step_code == self.wanted.step_code
        if not is_same_step or not self._account_for_params(moves, explaining):
            return False
        is_of_layers = all(one.rule.sets_layers for one in explaining)
        return are_numbers_alone or is_of_layers or self.saved.code == self.wanted.code

    def _account_for_params(self, moves: Sequence[Difference], explaining: Sequence[Difference]) -> bool:
        """Whether every changed param of a user's function is seen in a setting that moved: by its value, or, where none
        has its value (a rate that is a tenth of it), by a setting that no other param accounts for."""
        one, two = ((side.architecture or {}).get("params") or {} for side in (self.saved, self.wanted))
        changed = [two.get(name) for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
        unseen = [value for value in changed if not any(_is_shown(value, move.wanted) for move in moves)]
        settings: dict[str, set[str]] = {}
        for move in explaining:  # a schedule with two rates is one setting, and so is a further optimizer
            settings.setdefault(".".join(move.what.split(".")[:2]), set()).add(move.wanted)
        free = {
            frozenset(shown)
            for shown in settings.values()
            if not any(_is_shown(value, text) for value in changed for text in shown)
        }
        return len(unseen) <= len(free)

    def _unknown(self, *, alone: bool) -> Iterator[Difference]:
        """Where nothing was found, what is compared has to be equal, or a rule is missing. What a function of the user's
        is given has to be where no graph says what becomes of it, whatever else was found."""
        is_own = any((side.architecture or {}).get("kind") in _OWN for side in (self.saved, self.wanted))
        for name in ("architecture", "training", "data") if alone else ("architecture",) if is_own else ():
            old, new = getattr(self.saved, name), getattr(self.wanted, name)
            if name == "architecture" and self._is_told_by_graphs():
                continue  # what a user's own function is called and given counts by what it makes of it
            if name == "data":  # a split that one side has alone was compared with nothing
                old, new = (side.model_copy(update={"splits": {}, "first_batch": {}}) for side in (old, new))
            if old != new:
                yield Difference(RULES["unknown"], name, *both_sides(old, new))

    def _is_told_by_graphs(self) -> bool:
        """Whether the model is a user's own, and graphs alone say what it computes and how it is trained."""
        sides = (self.saved, self.wanted)
        is_own = all((side.architecture or {}).get("kind") in _OWN for side in sides)
        return is_own and self.is_comparable and all(side.training_step.by == "graph" for side in sides)

    # The optimizer.

    def _optimizer_variables(self) -> Iterator[Difference]:
        one, two = self.saved.training, self.wanted.training
        if one.optimizer.get("kind") != two.optimizer.get("kind"):
            return
        old = {slot_path(variable.path, dict(self.renames)): variable for variable in self.saved.optimizer_variables}
        new = _by_path(self.wanted.optimizer_variables)
        frozen = _frozen(self.saved, self.renames) ^ _frozen(self.wanted, {})
        for path in [*old, *(path for path in new if path not in old)]:
            first, second = old.get(path), new.get(path)
            if (first is None) != (second is None) and (_comes_and_goes(path, one, two) or _slot_of(path, frozen)):
                continue
            yield from _variable_difference(path, first, second, "optimizer-variables")


def _is_shown(value: Any, text: str) -> bool:
    """Whether `text`, a side of a difference, shows `value`; numbers as of 32 bits."""
    try:
        return math.isclose(float(text), float(value), rel_tol=1e-6)
    except (TypeError, ValueError):
        return text == str(value)


def _is_rate(difference: Difference) -> bool:
    """Whether a plain learning rate moved."""
    return difference.rule.id == "optimizer-setting" and difference.what == "optimizer.learning_rate"


def _dtypes(side: Signature) -> Iterator[str]:
    """The precisions that layers compute in, and those of the weights."""
    for config in side.layers.values():
        yield str(config.get("dtype"))
    for variable in side.variables:
        yield variable.dtype


def _by_path(variables: Sequence[Variable]) -> dict[str, Variable]:
    return {variable.path: variable for variable in variables}


def _part(role: int | None) -> str:
    return "none" if role is None else f"part {role}"


def _frozen(side: Signature, renames: Mapping[str, str]) -> set[str]:
    return {renames.get(one.path, one.path) for one in side.variables if not one.trainable}


def _slot_of(path: str, variables: Collection[str]) -> bool:
    _, _, rest = path.partition("/")
    return any(rest.startswith(f"{name.replace('/', '_')}_") for name in variables)


def _comes_and_goes(path: str, one: TrainingSetup, two: TrainingSetup) -> bool:
    """Whether a rule of resuming states what happens where only one side has this variable of the optimizer."""
    if "loss_scale" in path:
        return (one.loss_scale is None) != (two.loss_scale is None)
    if path.endswith("learning_rate"):
        return isinstance(one.optimizer.get("learning_rate"), dict) != isinstance(
            two.optimizer.get("learning_rate"), dict
        )
    if path.endswith(AVERAGE):
        return one.optimizer.get("use_ema") != two.optimizer.get("use_ema")
    return path.endswith(_ACCUMULATOR)


def _variable_difference(path: str, one: Variable | None, two: Variable | None, rule: str) -> Iterator[Difference]:
    if one is None or two is None or one.shape != two.shape:
        yield Difference(RULES[rule], path, str(one or "nothing"), str(two or "nothing"))
        return
    if one.dtype != two.dtype:
        widths = [_WIDTH.get(side.dtype, 0) for side in (one, two)]
        kind = "wider-dtype" if 0 < widths[0] < widths[1] else "dtype"
        yield Difference(RULES[kind], path, str(one), str(two))
    if one.trainable != two.trainable and rule == "variables":
        sides = ["trained" if side.trainable else "frozen" for side in (one, two)]
        yield Difference(RULES["frozen"], path, sides[0], sides[1])
