"""Checks of data, metric and selection: whether both sides have the same rows and the same measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from expmgr.comparison.checks.finding import Found, again, digest_of
from expmgr.comparison.sides import Answer, Case, Side
from expmgr.spec.training import BestCheckpoint

#: Shares of evaluated rows that stand in training: below, chance; above, it is no evaluation any more.
_FEW_ROWS, _MOST_ROWS = 0.01, 0.5


def evaluated_rows(case: Case) -> Iterator[Found | str]:
    split = case.base.split
    digests = [{one.seed: digest_of(one, split) for one in side.runs} for side in case.sides]
    if any(digest is None for side in digests for digest in side.values()) or not all(digests):
        yield Found(Answer.UNKNOWN, f"on which rows of {split} they were evaluated is not recorded")
        return
    common = digests[0].keys() & digests[1].keys()
    is_seedwise = digests[0].keys() == digests[1].keys() and all(
        digests[0][seed] == digests[1][seed] for seed in common
    )
    if is_seedwise or len({*digests[0].values(), *digests[1].values()}) == 1:
        yield f"evaluated on the same rows ({_rows(case.base, split)})"
        return
    told = f"evaluated on other rows ({split}): {_rows(case.base, split)} and {_rows(case.other, split)}"
    yield Found(Answer.BLOCK, told, f"expmgr diff {case.base.name} {case.other.name}")


def _rows(side: Side, split: str) -> str:
    """How many rows, and which, as far as the records say."""
    found = dict.fromkeys(
        (one.data[split].rows, (one.data[split].sha256 or "")[:8]) for one in side.runs if split in one.data
    )
    return f"{side.name}: " + ", ".join(
        f"{'?' if rows is None else f'{rows:,}'} rows, {digest}" for rows, digest in found
    )


def training_rows(case: Case) -> Iterator[Found | str]:
    digests = [{digest_of(one, "train") for one in side.runs} for side in case.sides]
    if not all(digests) or None in digests[0] | digests[1]:
        yield Found(
            Answer.UNKNOWN, "training rows were a stream or are not recorded, so nobody knows whether they are the same"
        )
    elif digests[0] != digests[1]:
        told = f"trained on other rows: {_rows(case.base, 'train')} and {_rows(case.other, 'train')}"
        is_meant = (
            case.base.spec.data != case.other.spec.data
            or case.base.subject.code_digest != case.other.subject.code_digest
        )
        reason = ", as spec or code say" if is_meant else ", though spec and code are the same"
        yield Found(
            Answer.WARN if is_meant else Answer.BLOCK, told + reason, f"expmgr diff {case.base.name} {case.other.name}"
        )
    yield f"trained on the same rows ({_rows(case.base, 'train')})"


def overlap(case: Case) -> Iterator[Found | str]:
    split = case.base.split
    for side in case.sides:
        for record in side.runs:
            about = record.data.get(split)
            if about is None or about.also_in_train is None or not about.rows:
                yield Found(Answer.UNKNOWN, f"whether rows of {split} stand in training is not known of {side.name}")
                continue
            share = about.also_in_train / about.rows
            told = f"{about.also_in_train} of {about.rows:,} rows of {split} stand in the training rows of {side.name}"
            if share > _FEW_ROWS:
                mend = f"take them out of training: data.train in experiments/{side.subject.name.experiment}/spec.yaml"
                yield Found(Answer.BLOCK if share >= _MOST_ROWS else Answer.WARN, told, mend)
            else:
                yield told


def measured(case: Case) -> Iterator[Found | str]:
    keys = ("loss", "steps") if case.base.metric == "loss" else ("metrics", "steps")
    measures = [{key: value for one in side.runs for key, value in one.measures.items()} for side in case.sides]
    if any(not one.measures for side in case.sides for one in side.runs) or not all(measures):
        yield Found(Answer.UNKNOWN, "by what they were evaluated is not recorded", again(case))
        return
    if "code" in measures[0] or "code" in measures[1]:
        if measures[0] != measures[1]:
            yield Found(
                Answer.UNKNOWN,
                "other code makes the model and its metrics: whether they are evaluated alike is not known",
            )
        yield "the same code evaluates them"
        return
    found = {key: {one.measures[key] for side in case.sides for one in side.runs} for key in keys}
    words = {
        "loss": "the loss (its kind, its weights or its penalties)",
        "metrics": "the metrics",
        "steps": "the code of the evaluation",
    }
    for key in keys:
        if len(found[key]) > 1:
            yield Found(Answer.BLOCK, f"evaluated by other means: {words[key]} differs", again(case))
    yield f"evaluated alike ({' and '.join(words[key] for key in keys)})"


def same_question(case: Case) -> Iterator[Found | str]:
    one, two = ((said.metric, said.mode, said.split) for said in (side.spec.compared for side in case.sides))
    if one != two:
        told = f"by its own spec {case.base.name} is compared by {' '.join(one)}, {case.other.name} by {' '.join(two)}"
        yield Found(Answer.WARN, told, f"expmgr diff {case.base.name} {case.other.name}")
    yield f"both specs are compared by {one[0]} on {one[2]}"


def selection(case: Case) -> Iterator[Found | str]:
    one, two = (side.spec.selection.model_dump() for side in case.sides)
    if one != two:
        told = f"another rule selects the checkpoint: {_rule(one)} and {_rule(two)}"
        value = "{" + ", ".join(f"{key}: {value}" for key, value in one.items() if value is not None) + "}"
        yield Found(
            Answer.BLOCK, told, f"expmgr new {case.other.name}-2 --from {case.other.name} --set 'selection={value}'"
        )
    yield f"the same rule selects the checkpoint: {_rule(one)}"


def _rule(selection: Mapping[str, Any]) -> str:
    return f"the best {selection['metric']}" if selection.get("metric") else "the last"


def selected_on_reported(case: Case) -> Iterator[Found | str]:
    for side in case.sides:
        chooses = [
            word
            for word, is_so in (
                ("the checkpoint was selected", isinstance(side.spec.selection, BestCheckpoint)),
                ("training was stopped", side.spec.train.early_stopping is not None),
            )
            if is_so
        ]
        if not chooses:
            yield f"{side.name} selects by no evaluation"
            continue
        rows = {(digest_of(one, "eval"), digest_of(one, side.split)) for one in side.runs}
        if not rows or any(None in pair for pair in rows):
            yield Found(Answer.UNKNOWN, f"of {side.name} it is not recorded on which rows {chooses[0]}")
        elif any(one == two for one, two in rows):
            told = f"of {side.name} {' and '.join(chooses)} on the rows that are reported ({side.split}): its number is flattered"
            mend = "name a third split: data.test, and compare: {split: test}"
            yield Found(Answer.WARN if side.split == "eval" else Answer.BLOCK, told, mend)
        else:
            yield f"{side.name} selects on other rows than are reported"
