"""A review as one dict, which is kept when the review ends.

What was decided then reads the same years later, without records, branches or the store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from expmgr.disk.json_text import parse_foreign_json
from expmgr.disk.stored import StoredPart
from expmgr.log.events import Event, Moment
from expmgr.render.drawing import forest
from expmgr.reviews.review import address
from expmgr.reviews.standing import Standing


def report(standing: Standing) -> dict[str, Any]:
    """Everything that is known of a review: `docs/reference/review.md` explains each key."""
    review, evidence = standing.review, standing.evidence
    opened = review.opened
    result = evidence.result if evidence else None
    found: dict[str, Any] = {
        "format": 1,
        "id": review.id,
        "candidate": opened.candidate,
        "baseline": opened.baseline,
        "target": opened.target,
        "question": opened.text,
        "author": _person(opened),
        "opened_at": opened.at,
        "seeds": opened.seeds,
        "is_confirmed": opened.is_confirmed,
        "state": standing.state,
        "remarks": standing.remarks,
        "missing": [{"told": told, "mend": mend} for told, mend in standing.missing],
        "failures": [{"told": told, "mend": mend} for told, mend in standing.failures],
        "verdict": result.verdict.value if result and result.verdict else None,
        "sentence": result.sentence if result else None,
        "notes": result.notes if result else [],
        "forest": forest([(opened.candidate, result)]) if result else [],
        "checks": [],
        "opinions": [
            {**_said(one.event), "verdict": one.event.verdict, "counts": one.because is None, "because": one.because}
            for one in standing.opinions
        ],
        "comments": [
            {
                **_said(one),
                "on": one.on,
                "resolved_by": _person(review.resolved[one.id]) if one.id in review.resolved else None,
            }
            for one in review.comments
        ],
        "signing": review.policy.signing,
        "unsigned_claims": sorted(one.id for one in review.claims),
        "claims": [{"id": one.id, "kind": one.kind, "by": _person(one.event)} for one in review.claims],
        "evidence": evidence.as_dict() if evidence else None,
        "events": [{"id": one.id, **json.loads(one.content)} for one in review.told],
    }
    for check in evidence.checks if evidence else ():
        waiver = standing.waived.get(check.id)
        excused = {**_said(waiver), "text": waiver.reason} if waiver is not None else None
        found["checks"].append({**check.as_dict(), "waived": excused})
    return found


class _By(StoredPart):
    name: str


class _Saying(StoredPart):
    id: str
    by: _By
    at: Moment
    text: str


class _Opinion(_Saying):
    verdict: str
    counts: bool
    because: str | None


class _Comment(_Saying):
    on: str | None
    resolved_by: _By | None


class _CheckPart(StoredPart):
    id: str
    answer: Literal["ok", "warn", "unknown", "block"]
    told: str
    mend: str | None
    waived: _Saying | None


class _Row(StoredPart):
    variant: str
    mean: float | None
    std: float | None
    values: dict[str, float]
    runs: list[str]


class _Comparison(StoredPart):
    metric: str
    split: str
    variants: list[_Row]


class _EvidencePart(StoredPart):
    digests: str
    result_set: str
    brings: list[str] = Field(default_factory=list)
    comparison: _Comparison


class _Kept(StoredPart):
    id: str
    sentence: str | None
    notes: list[str]
    forest: list[str]
    checks: list[_CheckPart]
    opinions: list[_Opinion]
    comments: list[_Comment]
    evidence: _EvidencePart | None


def kept(content: bytes | None, review: str) -> dict[str, Any]:
    """What was kept of a review when it ended; nothing where that is no report of it, which a later version or a hostile
    hand may have written."""
    try:
        values = parse_foreign_json(content or b"{}")
        return dict(values) if _Kept.model_validate(values, strict=True).id == review else {}
    except ValueError:
        return {}


def ended(frozen: Mapping[str, Any], standing: Standing) -> dict[str, Any]:
    """What was kept of a review that has ended, with what ended it, and what was said since."""
    review = standing.review
    end: Event | None = review.merged or review.closed
    told = (
        {"merge": review.merged.commit} if review.merged else {"reason": review.closed.reason if review.closed else ""}
    )
    by = {**_said(end), **told} if end is not None else None
    events = [{"id": one.id, **json.loads(one.content)} for one in review.told]
    lost = [] if standing.is_landed else [{"told": told, "mend": mend} for told, mend in standing.missing]
    now = {"state": standing.state, "remarks": standing.remarks, "missing": lost, "ended": by, "events": events}
    # Whose review it is, the log says; of what was kept, what was decided and on what.
    numbers = ("verdict", "sentence", "notes", "forest", "checks", "opinions", "evidence")
    return {**report(standing), **{key: frozen[key] for key in numbers if key in frozen}, **now}


def _person(event: Event) -> dict[str, Any]:
    return {"name": event.actor.name if event.actor is not None else event.writer, "email": address(event)}


def _said(event: Event) -> dict[str, Any]:
    return {"id": event.id, "by": _person(event), "at": event.at, "text": getattr(event, "text", "")}
