"""What a person reads of a comparison: each form of the sentence, whole, and the notes beside it."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from comparison.test_checks import SPEC, case, run, spec, split, subject
from expmgr.comparison.checks.table import OF_ONE
from expmgr.comparison.comparison import best_of, compare
from expmgr.comparison.results import Result, results_of
from expmgr.comparison.sides import Case, Subject, Tried
from expmgr.comparison.used_runs import Chosen
from expmgr.errors import UnknownVariant

BASE = [0.70, 0.72, 0.71, 0.74, 0.73, 0.69, 0.75]
CLEAR, SMALL, NONE = (
    [0.05, 0.06, 0.05, 0.06, 0.055],
    [0.003, 0.004, 0.003, 0.004, 0.003],
    [0.001, -0.001, 0.002, -0.002, 0.0],
)
ABOUT, WIDE = [0.01, 0.02, 0.01, 0.03, 0.01], [0.01, -0.02, 0.03, 0.0, 0.01]
SMALLEST, NOT_JUDGED = (
    "1.0 points is the smallest that matters",
    "size not judged: the baseline's spec declares no compare.minimum_effect",
)


def less(values: list[float]) -> list[float]:
    return [-one for one in values]


def variant(name: str, values: list[float], *, first: int = 0, **about: Any) -> Subject:
    """A run per value of accuracy, and one less that as loss; the seeds from `first`."""
    return subject(name, [run(f"iris/{name}", first + place, value, **about) for place, value in enumerate(values)])


def case_of(gains: list[float], *, base: list[float] = BASE, first: int = 0, **about: Any) -> Case:
    """A baseline, and a variant that is better by `gains`, seed by seed."""
    olds = base[: len(gains)]
    news = [old + gain for old, gain in zip(olds, gains, strict=True)]
    return case(variant("base", olds), variant("wide", news, first=first), **{"effect": 0.01, **about})


def result_of(gains: list[float], *, candidates: int = 1, **about: Any) -> Result:
    return results_of([case_of(gains, **about)] * candidates)[0]


@pytest.mark.parametrize(
    ("gains", "effect", "verdict", "sentence", "notes"),
    [
        (CLEAR, 0.01, "better", "better by 4.9 to 6.1 points (95 %, 5 seeds)", [SMALLEST, "P(better) 1.00"]),
        (less(CLEAR), 0.01, "worse", "worse by 4.9 to 6.1 points (95 %, 5 seeds)", [SMALLEST, "P(better) 0.00"]),
        (
            ABOUT, 0.01, "better, size unsure", "better, size unsure: by 0.5 to 2.7 points (95 %, 5 seeds)",
            [SMALLEST, "P(better) 1.00"],
        ),
        (
            less(ABOUT), 0.01, "worse, size unsure", "worse, size unsure: by 0.5 to 2.7 points (95 %, 5 seeds)",
            [SMALLEST, "P(better) 0.00"],
        ),
        (
            NONE, 0.01, "equivalent", "equivalent: -0.2 to 0.2 points (95 %, 5 seeds), less than 1.0 points",
            ["P(better) 0.50"],
        ),
        (
            SMALL, 0.01, "equivalent",
            "equivalent: 0.3 to 0.4 points (95 %, 5 seeds), less than 1.0 points; a difference, smaller than the minimum effect",
            ["P(better) 1.00"],
        ),
        (
            WIDE, 0.01, "inconclusive", "inconclusive: -1.7 to 2.9 points (95 %, 5 seeds); 28 seeds would settle it",
            [SMALLEST, "P(better) 0.70"],
        ),
        (
            less(WIDE), 0.01, "inconclusive",
            "inconclusive: -2.9 to 1.7 points (95 %, 5 seeds); 28 seeds would settle it", [SMALLEST, "P(better) 0.30"],
        ),
        (
            WIDE, None, "inconclusive", "inconclusive: -1.7 to 2.9 points (95 %, 5 seeds); 74 seeds would settle it",
            ["P(better) 0.70"],
        ),
        # Five would do for a difference so large, and five there are: no number is said.
        ([0.3, -0.1, 0.3, -0.1, 0.2], 0.35, "inconclusive", "inconclusive: -13.4 to 37.4 points (95 %, 5 seeds)",
         ["35.0 points is the smallest that matters", "P(better) 0.60"]),
        (
            CLEAR, None, "better, size not judged", "better by 4.9 to 6.1 points (95 %, 5 seeds)",
            [NOT_JUDGED, "P(better) 1.00"],
        ),
        (
            less(CLEAR), None, "worse, size not judged", "worse by 4.9 to 6.1 points (95 %, 5 seeds)",
            [NOT_JUDGED, "P(better) 0.00"],
        ),
    ],
)  # fmt: skip
def test_each_verdict_has_its_sentence(
    gains: list[float], effect: float | None, verdict: str, sentence: str, notes: list[str]
) -> None:
    other = spec(compare={"minimum_effect": effect})
    found = case_of(gains, effect=effect)
    base = subject(
        "base", [one.model_copy(update={"spec": other.resolved()}) for one in found.base.subject.runs], of=other
    )
    (result,) = results_of([case(base, found.other.subject, effect=effect)])
    assert (result.verdict and result.verdict.value, result.sentence, result.notes) == (verdict, sentence, notes)
    told = result.as_dict()
    assert (told["verdict"], told["sentence"], told["notes"], told["is_blocked"]) == (verdict, sentence, notes, False)
    wanted = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    assert told["interval"] == told["family"] == pytest.approx([wanted.low, wanted.high])


@pytest.mark.parametrize(
    ("gains", "sentence", "notes"),
    [
        (less(CLEAR), "better by 0.0488 to 0.0612 (95 %, 5 seeds)", ["0.01 is the smallest that matters", "P(better) 1.00"]),
        (CLEAR, "worse by 0.0488 to 0.0612 (95 %, 5 seeds)", ["0.01 is the smallest that matters", "P(better) 0.00"]),
        (
            NONE, "equivalent: -0.00196 to 0.00196 (95 %, 5 seeds), less than 0.01",
            ["turned round, since less is better: above 0 is better", "P(better) 0.50"],
        ),
        (
            WIDE, "inconclusive: -0.0286 to 0.0166 (95 %, 5 seeds); 28 seeds would settle it",
            ["0.01 is the smallest that matters", "turned round, since less is better: above 0 is better", "P(better) 0.30"],
        ),
    ],
)  # fmt: skip
def test_a_loss_has_no_points_and_less_of_it_is_better(gains: list[float], sentence: str, notes: list[str]) -> None:
    """`gains` are of the loss."""
    found = result_of(less(gains), metric="loss")
    assert (found.sentence, found.notes) == (sentence, notes)


@pytest.mark.parametrize(
    ("gains", "sentence"),
    [
        ([], "no claim: a side has no result"),
        (
            [0.05],
            "no claim: one seed; the rows that are evaluated are themselves good for 1.2 points either way (5,000 rows)",
        ),
        ([0.05, 0.06], "no claim: two seeds, 3 are wanted"),
    ],
)
def test_fewer_than_three_seeds_claim_nothing(gains: list[float], sentence: str) -> None:
    found = result_of(gains)
    assert (found.verdict, found.sentence, found.notes, found.interval, found.holm_p) == (
        None,
        sentence,
        [],
        None,
        None,
    )
    whole = case_of(CLEAR)
    for sides in ((case_of(gains).base, whole.other), (whole.base, case_of(gains).other)):  # one side is enough
        mixed = case(*(side.subject for side in sides))
        assert results_of([mixed])[0].sentence.partition(";")[0] == sentence.partition(";")[0]


@pytest.mark.parametrize(
    "about", [{"metric": "loss"}, {"data": split("eval", rows=None)}, {"data": {}}], ids=["loss", "rows", "nothing"]
)
def test_the_noise_of_one_seed_is_said_where_it_is_known(about: dict[str, Any]) -> None:
    metric = about.pop("metric", "accuracy")
    sides = (variant(name, [value], **about) for name, value in (("base", 0.70), ("wide", 0.75)))
    assert results_of([case(*sides, metric=metric)])[0].sentence == "no claim: one seed"


def test_several_candidates_widen_the_interval_that_decides() -> None:
    """Alone it would be better; as one of three nobody knows."""
    gains = [0.010, 0.018, 0.002, 0.017, 0.006]
    alone, among = result_of(gains, effect=None), result_of(gains, effect=None, candidates=3)
    assert alone.sentence == "better by 0.2 to 1.9 points (95 %, 5 seeds)"
    assert among.sentence.startswith("inconclusive: -0.2 to 2.3 points (98.3 %, 5 seeds); 8 seeds ")
    assert among.interval == alone.interval
    assert alone.difference is not None
    assert alone.holm_p == alone.difference.p
    assert among.holm_p == pytest.approx(3 * alone.difference.p)
    assert [note for note in among.notes if "candidates" in note] == ["of 3 candidates, Holm's p 0.08"]
    assert [note for note in alone.notes if "candidates" in note] == []
    two = results_of([case_of(gains), case_of([])])  # a candidate without a number was one all the same
    assert two[0].holm_p == pytest.approx(2 * alone.difference.p)
    assert [one.candidates for one in two] == [2, 2]
    assert two[0].notes[-1] == "of 2 candidates, Holm's p 0.053"


def test_the_seeds_that_would_settle_it_are_those_of_the_interval_that_decides() -> None:
    alone, among = result_of(WIDE), result_of(WIDE, candidates=3)
    assert (alone.seeds_needed, among.seeds_needed) == (28, 38)
    assert result_of(CLEAR).seeds_needed is None


@pytest.mark.parametrize(
    ("gains", "base", "note"),
    [
        ([0.125] * 3, [0.5, 0.625, 0.75], "the difference is the same on every seed"),
        ([0.25] * 3, [0.5] * 3, "no value moves with the seed"),
    ],
)
def test_an_interval_without_width_says_why(gains: list[float], base: list[float], note: str) -> None:
    found = result_of(gains, base=base)
    assert f"{note}, so the interval has no width" in found.notes
    assert "few seeds" in found.notes
    assert not [one for one in result_of(CLEAR).notes if "no width" in one or "few seeds" in one]


def test_other_seeds_on_both_sides_are_said() -> None:
    found = results_of(
        [case(variant("base", BASE[:5]), variant("wide", [0.8, 0.82, 0.81, 0.83], first=2), effect=0.01)]
    )[0]
    assert found.sentence.endswith(" (95 %, 5 and 4 seeds)")
    assert found.sentence.startswith("better by ")
    assert "few seeds" in found.notes
    assert "the seeds differ, so they are not paired" in found.notes
    assert "the seeds differ, so they are not paired" not in result_of(CLEAR).notes


def test_signs_that_say_otherwise_are_said() -> None:
    """Seven gains, one of them huge: the interval holds zero, the signs do not."""
    found = result_of([0.01] * 6 + [0.2], effect=None)
    warning = "warning: the signs of the pairs say otherwise than the interval"
    assert found.verdict is not None
    assert (found.verdict.value, found.notes[-2:]) == ("inconclusive", ["p by signs 0.016", warning])
    assert result_of([0.03, 0.02, 0.03, 0.02, 0.01, 0.03, 0.02]).notes[-1] == "p by signs 0.016"


def test_a_minimum_effect_of_another_metric_judges_nothing() -> None:
    found = compare([variant("base", BASE[:5]), variant("wide", [one + 0.05 for one in BASE[:5]])], metric="loss")
    assert found.minimum_effect is None
    result = found.rows[1].result
    assert result is not None
    assert result.notes[0] == f"size not judged: compare.minimum_effect is declared for {SPEC.compared.metric}"


def test_that_no_minimum_effect_is_declared_is_said_of_any_metric() -> None:
    of = spec(compare={"minimum_effect": None})
    base = subject("base", [run("iris/base", seed, value, of=of) for seed, value in enumerate(BASE[:5])], of=of)
    found = results_of([case(base, variant("wide", [one + 0.05 for one in BASE[:5]]), metric="loss", effect=None)])[0]
    assert found.notes[0] == NOT_JUDGED


def test_the_minimum_effect_of_the_baseline_s_spec_decides() -> None:
    """The same numbers, three declarations."""
    verdicts = {}
    for effect in (None, 0.001, 0.01):
        of = spec(compare={"minimum_effect": effect})
        sides = []
        for name, gains in (("base", [0.0] * 5), ("wide", SMALL)):
            runs = [run(f"iris/{name}", seed, BASE[seed] + gain, of=of) for seed, gain in enumerate(gains)]
            sides.append(subject(name, runs, of=of))
        found = compare(sides)
        verdicts[effect] = (found.minimum_effect, found.verdict)
    assert verdicts == {
        None: (None, "better, size not judged"),
        0.001: (0.001, "better"),
        0.01: (0.01, "equivalent"),
    }


def test_the_verdict_on_several_is_that_on_the_best() -> None:
    base, good, bad = (
        variant(name, [one + gain for one in BASE[:5]]) for name, gain in (("base", 0), ("a", 0.05), ("b", -0.05))
    )
    for order in ([base, good, bad], [base, bad, good]):
        assert compare(order).verdict == "better"
    assert compare([base, bad]).verdict == "worse"


def test_the_best_of_several_is_found_by_the_metric_s_direction() -> None:
    base, good, bad = (
        variant(name, [one + gain for one in BASE[:5]]) for name, gain in (("base", 0), ("good", 0.05), ("bad", -0.05))
    )
    for metric in (None, "accuracy", "loss"):  # a loss is one less the accuracy here
        best, than = best_of(Chosen([base, bad, good], None, Tried()), metric)
        assert (str(best), str(than)) == ("iris/good", "iris/base")
    best, than = best_of(Chosen([base, bad], None, Tried()), None)
    assert str(best) == "iris/bad"  # the baseline is none of those that are compared with it
    with pytest.raises(UnknownVariant, match="no variant beside iris/base has a result"):
        best_of(Chosen([base, subject("none", [])], None, Tried()), None)


def test_one_that_cannot_be_compared_blocks_the_question_and_not_the_other_s_verdict() -> None:
    base, good = variant("base", BASE[:5]), variant("good", [one + 0.05 for one in BASE[:5]])
    blocked = variant("blocked", [one + 0.2 for one in BASE[:5]], data=split("eval", sha256="others"))
    found = compare([base, good, blocked])
    assert (found.is_blocked, found.verdict) == (True, "better")
    assert compare([base, good]).is_blocked is False


def test_what_was_tried_counts_with_what_is_compared() -> None:
    base, good = variant("base", BASE[:5]), variant("good", [one + 0.05 for one in BASE[:5]])
    tried = Tried({"iris/gone": frozenset({7}), "iris/good": frozenset({0})})
    assert (compare([base, good]).tried, compare([base, good], tried=tried).tried) == (1, 2)


def test_the_split_and_the_review_are_those_that_are_asked_for() -> None:
    base, good = variant("base", BASE[:2]), variant("good", [one + 0.05 for one in BASE[:2]])
    found = compare([base, good], split="test")
    assert (found.split, found.rows[1].side.split) == ("test", "test")
    for in_review, is_confirmed in ((True, False), (False, True)):
        found = compare([base, good], in_review=in_review, is_confirmed=is_confirmed)
        assert (found.is_blocked, found.is_confirmed) == (in_review, is_confirmed)  # too few seeds for a decision


def test_a_variant_alone_is_asked_what_can_be_asked_of_one() -> None:
    assert [one.id for one in compare([variant("base", BASE[:5])]).checks] == list(OF_ONE)
