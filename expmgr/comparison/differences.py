"""What differs between variants: spec, code, data, environment, architecture and training.

Read from specs, git objects, records and the signatures beside checkpoints; no code runs for it. What no run has shown yet
is not known, and never the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expmgr.checkpoints.signature import Signature
from expmgr.comparison.sides import Side, Subject
from expmgr.errors import BadArgument, ExpmgrError
from expmgr.runs.counting import ABOUT
from expmgr.runs.record import RunRecord
from expmgr.spec.changes import flat
from expmgr.variants.code_digest import counted_files

if TYPE_CHECKING:
    from expmgr.project import Project

#: Parts of the environment that say where a run happened, and nothing of what it computed.
_ELSEWHERE = frozenset({"platform"})


@dataclass(frozen=True)
class PartRow:
    """One thing, and what it is in each variant; None where a variant has no such thing."""

    what: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class VariantPart:
    """A part of what makes a variant: `spec`, `code`, `data`, `environment`, `architecture` or `training`."""

    name: str
    rows: Sequence[PartRow]
    variants: Sequence[str]
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Variant to why nothing is known of it."""

    @property
    def changed(self) -> list[PartRow]:
        """What is not the same in all of which it is known."""
        known = [place for place, name in enumerate(self.variants) if name not in self.unknown]
        return [row for row in self.rows if any(row.values[place] != row.values[known[0]] for place in known)]

    @property
    def same(self) -> list[PartRow]:
        """The other rows."""
        changed = {row.what for row in self.changed}
        return [row for row in self.rows if row.what not in changed]


@dataclass(frozen=True)
class Differences:
    """What differs between some variants, with the first of which the others are compared."""

    variants: Sequence[str]
    parts: Sequence[VariantPart]
    mends: Mapping[str, str]
    """Variant to the command that makes known what is not."""

    def __repr__(self) -> str:
        counts = [f"{part.name} ({len(part.changed)})" for part in self.parts if part.changed]
        return f"<differences of {', '.join(self.variants)}: {', '.join(counts) or 'none'}; {self.sentence}>"

    @property
    def sentence(self) -> str:
        """That nothing else differs, where every part is known; else which parts differ, and which nobody knows."""
        changed = [part.name for part in self.parts if part.changed]
        unknown = [part.name for part in self.parts if part.unknown]
        same = [part.name for part in self.parts if not part.changed and not part.unknown]
        if unknown:
            told = f"; the same: {', '.join(same)}" if same else ""
            return f"not known: {', '.join(unknown)}{told}"
        if not changed:
            return "nothing differs"
        return f"nothing else differs: {', '.join(same)} are the same" if len(same) > 1 else _rest(same)

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": 1,
            "variants": list(self.variants),
            "nothing_else": not any(part.unknown for part in self.parts),
            "sentence": self.sentence,
            "parts": [
                {
                    "part": part.name,
                    "differences": [{"what": row.what, "values": list(row.values)} for row in part.changed],
                    "same": [row.what for row in part.same],
                    "unknown": dict(part.unknown),
                }
                for part in self.parts
            ],
        }


def _rest(same: Sequence[str]) -> str:
    return f"nothing else differs: {same[0]} is the same" if same else "every part differs"


def differences_of(project: Project, names: Sequence[str]) -> Differences:
    """What differs between two variants or more, with the first of which the others are compared."""
    from expmgr.comparison.used_runs import chosen

    if len(names) < 2:
        raise BadArgument("two variants or more are compared with each other")
    return differences(project, chosen(project, names, names[0]).subjects)


def differences(project: Project, subjects: Sequence[Subject], *, with_same: bool = True) -> Differences:
    """What differs between `subjects`, each at its branch's tip and with a run that counts; `with_same` lists the files of
    code that are the same, too."""
    runs = _runs(subjects)
    signatures = [_signature(project, one, run) for one, run in zip(subjects, runs, strict=True)]
    names = [str(one.name) for one in subjects]
    missing = {name: "it has no run that counts" for name, run in zip(names, runs, strict=True) if run is None}
    unread = {name: told for name, (_, told) in zip(names, signatures, strict=True) if told is not None}
    found = [signature for signature, _ in signatures]
    parts = [
        VariantPart("spec", _merged([_spec(one) for one in subjects]), names),
        VariantPart("code", [*_code(project, subjects)] if with_same or _has_other_code(subjects) else [], names),
        VariantPart("data", _merged([_data(run) for run in runs]), names, missing),
        VariantPart("environment", _merged([_environment(run) for run in runs]), names, missing),
        VariantPart("architecture", _merged([_architecture(one) for one in found]), names, unread),
        VariantPart("training", _merged([_training(one) for one in found]), names, unread),
    ]
    sides = [Side(one, one.spec.compared.metric, one.spec.compared.split) for one in subjects]
    return Differences(
        names, parts, {side.name: side.command() for side in sides if side.name in {**missing, **unread}}
    )


def _runs(subjects: Sequence[Subject]) -> list[RunRecord | None]:
    """A run of each: of the lowest seed that all have, else its newest."""
    found = [{one.seed: one for one in subject.counted} for subject in subjects]
    common = set.intersection(*(set(one) for one in found)) if found else set()
    if common:
        return [one[min(common)] for one in found]
    return [max(one.values(), key=lambda run: run.run_id) if one else None for one in found]


def _merged(sides: Sequence[Mapping[str, Any]]) -> list[PartRow]:
    keys = dict.fromkeys(key for side in sides for key in side)
    return [PartRow(key, tuple(side.get(key) for side in sides)) for key in keys]


def _spec(subject: Subject) -> dict[str, Any]:
    return {key: value for key, value in flat(subject.spec.resolved()).items() if not key.startswith(ABOUT)}


def _has_other_code(subjects: Sequence[Subject]) -> bool:
    return len({one.code_digest for one in subjects}) > 1


def _code(project: Project, subjects: Sequence[Subject]) -> Iterator[PartRow]:
    """Files that a variant reaches: lines that came and went, against the first."""
    files = [counted_files(project.repo, one.commit, one.name) for one in subjects]
    counts = [project.repo.changed_lines(subjects[0].commit, one.commit) for one in subjects]
    for path in sorted({path for one in files for path in one}):
        ids = [(one[path].oid, one[path].mode) if path in one else None for one in files]
        if len(set(ids)) == 1:
            yield PartRow(path, tuple("as it is" for _ in subjects))
        else:
            yield PartRow(path, tuple(_lines(path, ids[0], one, count) for one, count in zip(ids, counts, strict=True)))


def _lines(path: str, base: Any, other: Any, counts: Mapping[str, tuple[int, int] | None]) -> str | None:
    if other is None or other == base:
        return None if other is None else "as it is"
    count = counts.get(path)
    return "changed" if count is None else f"+{count[0]} -{count[1]}"


def _data(run: RunRecord | None) -> dict[str, Any]:
    if run is None:
        return {}
    return {
        name: f"{'?' if one.rows is None else f'{one.rows:,}'} rows, sha256 {(one.sha256 or '?')[:12]}"
        for name, one in run.data.items()
    }


def _environment(run: RunRecord | None) -> dict[str, Any]:
    found = {key: value for key, value in (run.environment if run else {}).items() if key not in _ELSEWHERE}
    return {key: value[:12] if key == "lock" and value else value for key, value in found.items()}


def _signature(project: Project, subject: Subject, run: RunRecord | None) -> tuple[Signature | None, str | None]:
    """The signature of the newest checkpoint of the run's model_dir, or why there is none."""
    if run is None:
        return None, "it has no run that counts"
    folder = project.model_dir(subject.name, run.seed)
    try:
        whole = folder.inspect(thorough=False)
    except ExpmgrError as error:
        return None, error.message
    if whole is None:
        return None, f"{folder.shown} holds no checkpoint"
    if whole.signature.provenance.get("run_id") not in (None, run.run_id):
        return None, f"{folder.shown} holds checkpoints of another run"
    return whole.signature, None


def _architecture(signature: Signature | None) -> dict[str, Any]:
    """Parameters, each variable, each setting of each layer, and the digests of what is computed."""
    if signature is None:
        return {}
    sizes = [_size(one.shape) for one in signature.variables if one.trainable]
    found: dict[str, Any] = {"parameters": sum(sizes)}
    found |= {one.path: f"{one}{'' if one.trainable else ', not trained'}" for one in signature.variables}
    for layer, config in signature.layers.items():
        found |= {f"{layer}: {key}": value for key, value in flat(dict(config)).items() if key != "name"}
    found["fingerprint: inference"] = signature.inference.digest[:12]
    return found


def _training(signature: Signature | None) -> dict[str, Any]:
    """Loss and optimizer with every setting, and the digest of what a step computes."""
    if signature is None:
        return {}
    values = signature.training.model_dump(mode="json", exclude={"seed"})
    found = {key: value for key, value in flat(values).items() if not key.endswith(".name")}
    return {**found, "fingerprint: training step": signature.training_step.digest[:12]}


def _size(shape: Sequence[int]) -> int:
    size = 1
    for one in shape:
        size *= one
    return size
