"""How the data of a checkpoint and a model differ: features, vocabularies, labels and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from expmgr.checkpoints.signature import DataContract, Feature
from expmgr.guard.difference import Difference, both_sides, pairs_of
from expmgr.guard.rules import RULES


def data_differences(saved: DataContract, wanted: DataContract) -> Iterator[Difference]:
    yield from _feature_differences(saved.features, wanted.features)
    if saved.label != wanted.label:
        yield Difference(RULES["label"], "data.label", str(saved.label), str(wanted.label))
    if saved.labels != wanted.labels:
        yield Difference(RULES["labels"], "labels", *both_sides(saved.labels, wanted.labels))
    for name, old, new in pairs_of(saved.declared, wanted.declared):
        yield Difference(RULES["preprocessing"], name, old[:12], new[:12])
    both = saved.splits.keys() & wanted.splits.keys()  # a split that is added was never compared with anything
    moved = {name for name in both if saved.splits[name] != wanted.splits[name]}
    for name in sorted(moved):
        rule = RULES["data" if name == "train" else "evaluation-data"]
        sides = [f"{one.rows} rows, sha256 {one.sha256[:12]}" for one in (saved.splits[name], wanted.splits[name])]
        yield Difference(rule, f"data.{name}", sides[0], sides[1])
    if saved.first_batch and wanted.first_batch and ("eval" not in moved or "train" not in both):
        for part, old, new in pairs_of(saved.first_batch, wanted.first_batch):
            yield Difference(RULES["first-batch"], f"first batch, {part}", old[:12], new[:12])


def _feature_differences(saved: Sequence[Feature], wanted: Sequence[Feature]) -> Iterator[Difference]:
    names = [[one.name for one in side] for side in (saved, wanted)]
    contents = [
        [(one.kind, one.sha256, one.spec, one.vocabulary, one.scale) for one in side] for side in (saved, wanted)
    ]
    if names[0] != names[1]:
        is_known = all(one.sha256 is not None for one in (*saved, *wanted))
        rule = "feature-renamed" if is_known and contents[0] == contents[1] else "features"
        yield Difference(RULES[rule], "features", *both_sides(names[0], names[1]))
        return
    for one, two in zip(saved, wanted, strict=True):
        if (one.kind, one.spec) != (two.kind, two.spec):
            yield Difference(RULES["features"], one.name, one.spec or one.kind, two.spec or two.kind)
        elif one.vocabulary != two.vocabulary:
            yield Difference(
                RULES["vocabulary"], f"vocabulary of {one.name}", *both_sides(one.vocabulary, two.vocabulary)
            )
        elif one.scale != two.scale:
            yield Difference(RULES["features"], f"normalisation of {one.name}", *both_sides(one.scale, two.scale))
