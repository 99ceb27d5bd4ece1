"""The two sides of a comparison with their runs, and the form of a check's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

from expmgr.comparison.statistics import MeanDifference, difference
from expmgr.paths import VariantName, seeds_text
from expmgr.runs.counting import counted_runs, is_outdated
from expmgr.runs.record import RunRecord
from expmgr.spec.experiment import ExperimentSpec


class Answer(str, Enum):
    """What a check says, the mildest first."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARN = "warn"
    BLOCK = "block"

    @property
    def weight(self) -> int:
        """How much it weighs: the heaviest of several decides."""
        return list(Answer).index(self)


@dataclass(frozen=True)
class Check:
    """What one check says of a baseline and another variant."""

    id: str
    answer: Answer
    told: str
    """One sentence or more; what was found also where it is `ok`."""
    inputs: tuple[str, ...]
    """What was looked at: fields of records by run id, keys of specs, what git has."""
    mend: str | None = None
    """The command that mends it."""
    variants: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "answer": self.answer.value,
            "told": self.told,
            "inputs": list(self.inputs),
            "mend": self.mend,
            "variants": list(self.variants),
        }


class Lost(NamedTuple):
    """What is wrong with the code or the selected checkpoint of a run."""

    answer: Answer
    message: str
    fix: str | None = None
    """The command that helps; None: train it again from the start."""


@dataclass(frozen=True)
class Subject:
    """A variant as it goes into a comparison: its spec and code now, and all its runs."""

    name: VariantName
    spec: ExperimentSpec
    code_digest: str
    runs: Sequence[RunRecord]
    commit: str = ""
    """The newest commit of its branch."""
    lost: Mapping[str, Lost] = field(default_factory=dict)
    """Run id to what is wrong with its code or its selected checkpoint."""

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The newest finished run of each seed, of those that were made with the spec and the code that the branch has."""
        return counted_runs(one for one in self.runs if not is_outdated(one, self.spec, self.code_digest))

    @property
    def newest_params(self) -> dict[str, Any]:
        """What its code was given in the newest run that counts, defaults included."""
        return max(self.counted, key=lambda one: one.run_id).params if self.counted else {}


@dataclass(frozen=True)
class Tried:
    """The variants that were tried against a baseline, deleted ones too: each with the seeds that finished."""

    seeds: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One variant with the runs that a comparison takes: those of `seeds`, or of all where it is None."""

    subject: Subject
    metric: str
    split: str
    seeds: frozenset[int] | None = None

    @property
    def name(self) -> str:
        return str(self.subject.name)

    @property
    def spec(self) -> ExperimentSpec:
        return self.subject.spec

    def _is_asked(self, seed: int) -> bool:
        return self.seeds is None or seed in self.seeds

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The runs that count, evaluated or not."""
        return [one for one in self.subject.counted if self._is_asked(one.seed)]

    @cached_property
    def runs(self) -> list[RunRecord]:
        """Those that were evaluated by the metric."""
        return [one for one in self.counted if one.metric(self.metric, self.split) is not None]

    @cached_property
    def values(self) -> dict[int, float]:
        """Seed to the metric at the selected checkpoint."""
        found = {one.seed: one.metric(self.metric, self.split) for one in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    @cached_property
    def left_aside(self) -> dict[int, str]:
        """Seed to its newest finished run, where that was made with another spec or other code than the branch has."""
        known = {one.seed for one in self.counted}
        return {
            one.seed: one.run_id
            for one in counted_runs(self.subject.runs)
            if one.seed not in known and self._is_asked(one.seed)
        }

    @cached_property
    def waiting(self) -> dict[int, str]:
        """Seed to the status of its newest run, where none finished."""
        newest = {one.seed: one for one in sorted(self.subject.runs, key=lambda one: one.run_id) if not one.by_hand}
        known = {one.seed for one in self.counted} | set(self.left_aside)
        return {
            seed: one.status
            for seed, one in sorted(newest.items())
            if seed not in known and self._is_asked(seed) and one.status != "finished"
        }

    @cached_property
    def without_metric(self) -> list[int]:
        """Seeds whose run was not evaluated by the metric."""
        return [one.seed for one in self.counted if one.seed not in self.values]

    @cached_property
    def unasked(self) -> list[int]:
        """Seeds with a run that counts, which `--seeds` leaves out."""
        return [one.seed for one in self.subject.counted if not self._is_asked(one.seed)]

    def command(self, seeds: Sequence[int] | None = None) -> str:
        """What runs it, with `seeds` where the spec does not fix one."""
        is_fixed = self.spec.run_config.tf_random_seed is not None
        return f"expmgr run {self.name}" + ("" if is_fixed or not seeds else f" --seeds {seeds_text(seeds)}")

    def of(self, what: str) -> list[str]:
        """Which fields of its records are meant, for `inputs`."""
        return [f"{one.run_id}:{what}" for one in self.runs]


@dataclass(frozen=True)
class Case:
    """A baseline, and another variant that is held against it."""

    base: Side
    other: Side
    mode: str
    effect: float | None
    tried: Tried
    is_confirmed: bool = False
    """Whether its seeds were chosen before any of them had a result."""
    in_review: bool = False
    """Whether a decision hangs on it: too few seeds are no basis for one."""

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.base, self.other

    @cached_property
    def screened(self) -> list[int]:
        """Seeds of the variant on which another one that was tried has a result, too."""
        others = {seed for name, seeds in self.tried.seeds.items() if name != self.other.name for seed in seeds}
        return sorted(others & self.other.values.keys())

    @cached_property
    def picked_out(self) -> dict[str, list[int]]:
        """Of a confirmation: side to the seeds which it leaves out though they picked nothing: no other variant has them,
        or they were run after one that is asked for."""
        others = {seed for name, seeds in self.tried.seeds.items() if name != self.other.name for seed in seeds}
        tried_others = any(name not in (self.other.name, self.base.name) for name in self.tried.seeds)
        found: dict[str, list[int]] = {}
        for side in self.sides:
            made = {one.seed: one.created_at for one in side.subject.counted}
            first = min((made[seed] for seed in side.values), default=None)
            seeds = [
                seed
                for seed in side.unasked
                if (tried_others and seed not in others) or (first is not None and made[seed] >= first)
            ]
            if seeds and side.values:
                found[side.name] = sorted(seeds)
        return found

    @property
    def is_fresh(self) -> bool:
        """Whether it is judged by seeds that picked nothing."""
        return self.is_confirmed and not self.screened

    @cached_property
    def difference(self) -> MeanDifference | None:
        """The difference of their values; None where a side has fewer than three seeds."""
        return difference(self.base.values, self.other.values, is_more_better=self.mode == "max")


def weights_of(record: RunRecord, runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """Digests of the files with the weights that a run ended with; empty where none was trained, or recorded. A run that
    only evaluated saved none: the one that it goes on from did."""
    for one in chain(record, runs) if record.step else ():
        if one.checkpoints:
            files = one.checkpoints[-1].files
            return tuple(sorted(digest for name, digest in files.items() if ".data-" in name))
    return ()


def equal_weights(counted: Sequence[RunRecord], runs: Sequence[RunRecord]) -> tuple[tuple[int, ...], ...]:
    """Seeds whose runs, of those that are counted, ended with the same weights to the last bit."""
    ended: dict[tuple[str, ...], list[int]] = {}
    for record in counted:
        if digests := weights_of(record, runs):
            ended.setdefault(digests, []).append(record.seed)
    return tuple(tuple(seeds) for seeds in ended.values() if len(seeds) > 1)


def trained_s(record: RunRecord, runs: Sequence[RunRecord]) -> float:
    """Seconds of training of a run, and of those that it continues."""
    return sum(one.train_s for one in chain(record, runs))


def chain(record: RunRecord, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The run, and those whose training it continues, at other commits."""
    known = {one.run_id: one for one in runs if one.run_id != record.run_id}
    found = [record]
    while found[-1].attempts[0].from_step and (parent := known.pop(found[-1].parent_run or "", None)) is not None:
        found.append(parent)  # each once: a record of another clone may name itself
    return found
