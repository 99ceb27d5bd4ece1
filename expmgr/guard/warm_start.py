"""Plans a warm start: which weights of a checkpoint a new model takes, by path and shape.

A pure function of two signatures and of what the user asks for. A warm start is no continuation: training begins at
step 0. What the taken weights would mean something else in is refused here as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from expmgr.checkpoints.signature import Signature, Variable, slot_path
from expmgr.errors import CheckpointRefused, WarmStartProblem
from expmgr.guard.difference import Difference
from expmgr.guard.judge import judge
from expmgr.guard.layers import layer_differences
from expmgr.guard.rules import RULES

#: Settings of a layer that its weights' shapes show.
_SHAPES = frozenset({"units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "value_dim"})


@dataclass(frozen=True)
class Wish:
    """What a user asks of a warm start."""

    maps: Sequence[tuple[str, str]] = ()
    """Old path, new path; both may end with `/*`, which stands for all paths that begin so."""
    only: Sequence[str] = ()
    """Patterns of paths in the new model (`hidden_*`); empty: all."""
    with_optimizer: bool = False
    grow: bool = False
    """Let a larger variable take what it overlaps with."""
    allow: Sequence[str] = ()


@dataclass(frozen=True)
class Taken:
    """One variable that is taken over."""

    old: str
    new: str
    shape: tuple[int, ...]
    """Shape of what is taken: the old variable's."""
    grown: bool = False

    @property
    def parameters(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """What is taken, what of the checkpoint is left, and what of the model starts anew."""

    taken: tuple[Taken, ...]
    left: tuple[Variable, ...]
    fresh: tuple[Variable, ...]
    slots: tuple[Taken, ...] = ()
    """Variables of the optimizer."""
    changes: tuple[Difference, ...] = field(default=())
    """What the guard would have refused, let pass by `--allow`."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "taken": [
                {"from": one.old, "to": one.new, "shape": list(one.shape), "grown": one.grown} for one in self.taken
            ],
            "left": [one.path for one in self.left],
            "fresh": [one.path for one in self.fresh],
            "optimizer": [one.new for one in self.slots],
            "parameters": {
                "taken": sum(one.parameters for one in self.taken),
                "left": sum(prod(one.shape) for one in self.left),
                "fresh": sum(prod(one.shape) for one in self.fresh),
            },
        }


def plan_warm_start(saved: Signature, wanted: Signature, wish: Wish, shown: str) -> Plan:
    """What a model that offers `wanted` takes from the checkpoint `shown`, of signature `saved`.

    Raises `WarmStartProblem` where the wish names what is not there, `CheckpointRefused` where nothing fits, where
    weights would mean something else, or where the optimizer was asked for and its slots do not fit.
    """
    sources = _sources(saved, wanted, wish)
    old = {one.path: one for one in saved.variables}
    taken, fresh = [], []
    for variable in wanted.variables:
        source = old.get(sources.get(variable.path, ""))
        fit = _fit(source, variable, wish.grow) if source and _is_chosen(variable.path, wish.only) else None
        if fit is None:
            fresh.append(variable)
        else:
            taken.append(fit)
    if not taken:
        raise _refused(shown, "no variable of it fits the model by path and shape", [])
    used = {one.old for one in taken}
    left = tuple(one for one in saved.variables if one.path not in used)
    blocked, allowed = _blocked(saved, wanted, {one.new for one in taken}, wish)
    if blocked:
        lines = [f"{one.what}   saved {one.saved}   wanted {one.wanted}   (rule {one.rule.id})" for one in blocked[:5]]
        raise _refused(shown, "its weights would mean something else in the model", lines)
    slots = tuple(_slots(saved, wanted, taken, shown)) if wish.with_optimizer else ()
    return Plan(tuple(taken), left, tuple(fresh), slots, tuple(allowed))


def _sources(saved: Signature, wanted: Signature, wish: Wish) -> dict[str, str]:
    """Path in the model to path in the checkpoint."""
    found = {one.path: one.path for one in wanted.variables}
    there = {one.path for one in saved.variables}
    for old, new in wish.maps:
        pairs = list(_mapped(old, new, there))
        if not pairs:
            raise WarmStartProblem(f"--map {old}={new}: the checkpoint has no variable {old}", hint=_listed(there))
        for source, target in pairs:
            if target not in found:
                raise WarmStartProblem(f"--map {old}={new}: the model has no variable {target}", hint=_listed({*found}))
            found[target] = source
    for pattern in wish.only:
        if not any(fnmatchcase(path, pattern) for path in found):
            raise WarmStartProblem(f"--only {pattern}: no variable of the model is called so", hint=_listed({*found}))
    return found


def _mapped(old: str, new: str, there: Collection[str]) -> Iterator[tuple[str, str]]:
    if old.endswith("/*") and new.endswith("/*"):
        for path in there:
            if path.startswith(old[:-1]):
                yield path, new[:-1] + path[len(old) - 1 :]
    elif old in there:
        yield old, new


def _is_chosen(path: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(path, pattern) for pattern in patterns)


def _fit(old: Variable, new: Variable, grow: bool) -> Taken | None:
    if old.shape == new.shape:
        return Taken(old.path, new.path, tuple(old.shape))
    is_larger = len(old.shape) == len(new.shape) and all(a <= b for a, b in zip(old.shape, new.shape, strict=True))
    return Taken(old.path, new.path, tuple(old.shape), grown=True) if grow and is_larger else None


def _blocked(
    saved: Signature, wanted: Signature, taken: Collection[str], wish: Wish
) -> tuple[list[Difference], list[Difference]]:
    """What makes the taken weights mean something else: what stands in the way, and what was let pass."""
    found = [one for one in judge(saved, wanted).differences if one.rule.changes_meaning]
    counts = [len(side.data.labels or ()) for side in (saved, wanted)]
    if counts[0] != counts[1] or wish.only:
        # The outputs have another shape, and start anew; or the user says which parts are taken.
        found = [one for one in found if one.rule.id != "labels"]
    found.extend(_layers(saved.layers, wanted.layers, taken))
    return (
        [one for one in found if one.rule.id not in wish.allow],
        [Difference(one.rule, one.what, one.saved, one.wanted, True) for one in found if one.rule.id in wish.allow],
    )


def _layers(
    saved: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]], taken: Collection[str]
) -> Iterator[Difference]:
    """Layers whose weights are taken, with a setting that no shape shows and no rule knows."""
    for what, old, new, rule in layer_differences(saved, wanted):
        layer, dot, key = what.rpartition(".")
        name = (layer if dot else what).rpartition("/")[2]
        if rule is None and key not in _SHAPES and any(name in path.split("/")[:-1] for path in taken):
            yield Difference(RULES["architecture"], what, str(old), str(new))


def _slots(saved: Signature, wanted: Signature, taken: Sequence[Taken], shown: str) -> Iterator[Taken]:
    kinds = [side.training.optimizer.get("kind") for side in (saved, wanted)]
    if kinds[0] != kinds[1]:
        raise _refused(shown, f"--with-optimizer: it has the slots of {kinds[0]}, the model trains with {kinds[1]}", [])
    if any(one.grown for one in taken):
        raise _refused(shown, "--with-optimizer: slots do not grow with --grow", [])
    renames = {one.old: one.new for one in taken}
    chosen = {one.new.replace("/", "_") for one in taken}
    old = {slot_path(one.path, renames): one for one in saved.optimizer_variables}
    for variable in wanted.optimizer_variables:
        name = variable.path.partition("/")[2]
        if name == "learning_rate" or not (name == "iteration" or any(name.startswith(f"{one}_") for one in chosen)):
            continue
        source = old.get(variable.path)
        if source is None or source.shape != variable.shape:
            raise _refused(shown, f"--with-optimizer: {variable.path} does not fit", [])
        yield Taken(source.path, variable.path, tuple(source.shape))


def _refused(shown: str, why: str, details: Sequence[str]) -> CheckpointRefused:
    return CheckpointRefused(
        f"{shown} gives no warm start: {why}",
        details=details,
        left_alone="Nothing was changed on disk.",
        hint="take a part of it with --only PATTERN, say what is what with --map OLD=NEW, or --allow RULE",
    )


def _listed(paths: Collection[str]) -> str:
    shown = sorted(paths)[:8]
    return f"there are {', '.join(shown)}{' and more' if len(paths) > len(shown) else ''}"
