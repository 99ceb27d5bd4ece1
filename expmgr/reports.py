"""A review as people and machines read it. Everything is made of one dict, which is kept when the review ends: what was
decided then reads the same years later, without records, branches or the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal
from xml.etree import ElementTree as xml

from pydantic import BaseModel, ConfigDict

from expmgr.drawing import forest
from expmgr.escape import CONTROL, clean, fenced, markdown, one_line
from expmgr.events import Event, Moment
from expmgr.paths import seeds_text
from expmgr.reviews import Standing, address

#: Files that are named, of many.
_MOST_FILES = 8
#: What a bot looks for, so that it edits the one comment which it has.
MARK = "<!-- expmgr-review: {id} -->"


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


class _Part(BaseModel):
    """Of a report, what is printed: what others kept is held against it before it is."""

    model_config = ConfigDict(extra="allow")


class _By(_Part):
    name: str


class _Saying(_Part):
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


class _CheckPart(_Part):
    id: str
    answer: Literal["ok", "warn", "unknown", "block"]
    told: str
    mend: str | None
    waived: _Saying | None


class _Row(_Part):
    variant: str
    mean: float | None
    std: float | None
    values: dict[str, float]
    runs: list[str]


class _Comparison(_Part):
    metric: str
    split: str
    variants: list[_Row]


class _EvidencePart(_Part):
    digests: str
    result_set: str
    brings: list[str] = []
    comparison: _Comparison


class _Kept(_Part):
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
        values = json.loads(content or b"{}")
        return dict(values) if _Kept.model_validate(values).id == review else {}
    except (ValueError, RecursionError):
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


# For people.


def moment(at: float) -> str:
    """Seconds since 1970 as date and time, UTC: the same text for everybody."""
    return f"{datetime.fromtimestamp(at, timezone.utc):%Y-%m-%d %H:%M} UTC"


def headline(found: Mapping[str, Any]) -> str:
    """A review in a line."""
    remarks = f" ({', '.join(found['remarks'])})" if found["remarks"] else ""
    return f"review {found['id'][:12]}: {found['candidate']} against {found['baseline']}: {found['state']}{remarks}"


def as_lines(found: Mapping[str, Any], *, everything: bool = False) -> Iterator[str]:
    """For a terminal, or the log of a CI job: no words of anybody begin a line of their own there."""
    return (_harmless(" ".join(line.splitlines())) for line in _lines(found, everything))


def _harmless(line: str) -> str:
    """A line in which no runner of CI finds a command: `##[...]` and `##vso[...]` are looked for anywhere in it, `::` at its
    beginning."""
    return re.sub(r"##(?=\w*\[)", "# #", re.sub(r"\A(\s*):(?=:)", r"\1: ", line))


def _lines(found: Mapping[str, Any], everything: bool) -> Iterator[str]:
    yield headline(found)
    question = f": {one_line(found['question'])}" if found["question"] else ""
    yield f"asked by {found['author']['name']}, {moment(found['opened_at'])}, to be merged into {found['target']}{question}"
    if found["seeds"] is not None:
        yield _seeds(found)
    if found.get("ended"):
        yield _ending(found)
    if found["sentence"]:
        yield ""
        yield f"{found['candidate']}: {'; '.join([found['sentence'], *found['notes']])}"
        yield from found["forest"]
    if found["evidence"]:
        yield ""
        yield from _values(found["evidence"]["comparison"])
        yield from _brings(found)
    checks = [one for one in found["checks"] if everything or one["answer"] != "ok"]
    if checks:
        yield ""
        yield from (f"{_word(one)} ({ids}): {one['told']}{_mend(one)}" for ids, one in _grouped(checks))
    fine = sum(one["answer"] == "ok" for one in found["checks"])
    if found["checks"] and not everything:
        yield f"{fine} of {len(found['checks'])} checks are ok"
    for one in found["opinions"]:
        said = f": {one_line(one['text'])}" if one["text"] else ""
        counts = "" if one["counts"] else f" (does not count: it {one['because']})"
        yield f"{_verb(one['verdict'])} by {one['by']['name']}, {moment(one['at'])}{counts}{said}"
    for one in found["comments"]:
        on = f" on {one['on']}" if one["on"] else ""
        done = f" (resolved by {one['resolved_by']['name']})" if one["resolved_by"] else ""
        yield f"{one['id'][:12]} {one['by']['name']}, {moment(one['at'])}{on}{done}: {one_line(one['text'])}"
    if found["unsigned_claims"]:
        so = ", and not counted" if found.get("signing") == "require" else ""
        yield f"not signed by whom they name{so}: {', '.join(_claims(found))}"
    for one in found["missing"]:
        mend = f": {one['mend']}" if one["mend"] else ""
        yield f"missing: {one['told']}{mend}"


def _claims(found: Mapping[str, Any]) -> Iterator[str]:
    """The events that nobody's signature stands for, each with who is said to say it."""
    known = {one["id"]: one for one in found.get("claims") or []}
    for key in found["unsigned_claims"]:
        one = known.get(key)
        yield f"{one['by']['name']}'s {one['kind']} ({key[:12]})" if one else key[:12]


def _seeds(found: Mapping[str, Any]) -> str:
    fresh = ", which were chosen before any of them had a result" if found["is_confirmed"] else ""
    return f"judged by seeds {seeds_text(found['seeds'])} alone{fresh}"


def _ending(found: Mapping[str, Any]) -> str:
    end = found["ended"]
    how = f"merged as {end['merge'][:12]}" if "merge" in end else f"closed ({end['reason']})"
    said = f": {one_line(end['text'])}" if end["text"] else ""
    return f"{how} by {end['by']['name']}, {moment(end['at'])}{said}"


def _values(comparison: Mapping[str, Any]) -> Iterator[str]:
    for row in comparison["variants"]:
        mean = "-" if row["mean"] is None else f"{row['mean']:.4f}"
        std = "" if row["std"] is None else f" ± {row['std']:.4f}"
        values = " ".join(f"{value:.4f}" for value in row["values"].values())
        yield f"{row['variant']}: {comparison['metric']} ({comparison['split']}) {mean}{std}, seeds {values or 'none'}"


def _grouped(checks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Checks that say the same as one, with all their ids."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in checks:
        groups.setdefault((_word(one), one["told"], one["mend"] or ""), []).append(one)
    return ((", ".join(one["id"] for one in some), some[0]) for some in groups.values())


def _brings(found: Mapping[str, Any]) -> Iterator[str]:
    """What a merge changes in the target; what lies outside of the experiment's folder by name."""
    files = found["evidence"].get("brings") or []
    folder = f"experiments/{found['candidate'].partition('/')[0]}/"
    outside = [one for one in files if not one.startswith(folder)]
    more = f" and {len(outside) - _MOST_FILES} more" if len(outside) > _MOST_FILES else ""
    named = f"; outside of {folder}: {', '.join(outside[:_MOST_FILES])}{more}" if outside else ""
    if files:
        yield f"a merge changes {len(files)} file{'' if len(files) == 1 else 's'}{named}"


_WORDS = {"block": "Blocks", "warn": "Warning", "unknown": "Unknown", "ok": "ok"}


def _word(check: Mapping[str, Any]) -> str:
    waived = check.get("waived")
    return f"Waived by {waived['by']['name']}, {one_line(waived['text'])}" if waived else _WORDS[check["answer"]]


def _mend(check: Mapping[str, Any]) -> str:
    return f": {check['mend']}" if check.get("mend") and not check.get("waived") else ""


def _verb(verdict: str) -> str:
    return {"approve": "approved", "veto": "vetoed"}.get(verdict, verdict)


def as_markdown(found: Mapping[str, Any]) -> str:
    """For a pull request, a wiki, the repository itself. What people wrote is never markup."""
    return "\n".join(_markdown(found)) + "\n"


def _markdown(found: Mapping[str, Any]) -> Iterator[str]:
    yield MARK.format(id=found["id"])
    yield f"# {markdown(found['candidate'])} against {markdown(found['baseline'])}"
    yield ""
    remarks = f" ({markdown(', '.join(found['remarks']))})" if found["remarks"] else ""
    yield (
        f"**{markdown(found['state'])}**{remarks}, review `{found['id'][:12]}`, into `{_code(found['target'])}`; asked by "
        + (f"{markdown(found['author']['name'])}, {moment(found['opened_at'])}.")
    )
    if found["seeds"] is not None:
        yield ""
        yield f"{_seeds(found)}."
    if found.get("ended"):
        yield ""
        yield markdown(_ending(found)) + "."
    if found["question"]:
        yield ""
        yield fenced(found["question"])
    if found["sentence"]:
        yield ""
        yield markdown(f"{found['candidate']}: {'; '.join([found['sentence'], *found['notes']])}")
    if found["forest"]:
        yield ""
        yield fenced("\n".join(found["forest"]))
    if found["evidence"]:
        yield ""
        yield from _markdown_values(found["evidence"]["comparison"])
        for line in _brings(found):
            yield ""
            yield markdown(line[0].upper() + line[1:]) + "."
    if found["checks"]:
        yield ""
        yield "| check | answer | |"
        yield "|---|---|---|"
        for ids, one in _grouped([one for one in found["checks"] if one["answer"] != "ok"]):
            yield f"| {markdown(ids)} | {markdown(_word(one))} | {markdown(one['told'] + _mend(one))} |"
        fine = sum(one["answer"] == "ok" for one in found["checks"])
        yield f"| {fine} others | ok | |"
    for one in (*found["opinions"], *found["comments"]):
        yield ""
        verb = _verb(one["verdict"]) if "verdict" in one else f"on {one['on']}" if one["on"] else "says"
        done = f" (resolved by {one['resolved_by']['name']})" if one.get("resolved_by") else ""
        counts = "" if one.get("counts", True) else f" (does not count: it {one['because']})"
        yield f"**{markdown(one['by']['name'])}** {markdown(f'{verb}{counts}{done}')}, {moment(one['at'])}"
        if one["text"]:
            yield ""
            yield fenced(one["text"])
    for one in found["missing"]:
        yield ""
        mend = f": `{_code(one['mend'])}`" if one["mend"] else ""
        yield f"Missing: {markdown(one['told'])}{mend}"
    if found["evidence"]:
        yield ""
        result_set, digests = (_code(found["evidence"][key][:12]) for key in ("result_set", "digests"))
        yield f"Result set `{result_set}`, digests `{digests}`."


def _markdown_values(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield f"| variant | {markdown(comparison['metric'])} ({markdown(comparison['split'])}) | std | seeds | runs |"
    yield "|---|---:|---:|---|---|"
    for row in comparison["variants"]:
        mean, std = ("-" if row[key] is None else f"{row[key]:.4f}" for key in ("mean", "std"))
        values = markdown(", ".join(f"{seed}: {value:.4f}" for seed, value in row["values"].items()))
        runs = " ".join(f"`{_code(run)}`" for run in row["runs"])
        yield f"| {markdown(row['variant'])} | {mean} | {std} | {values} | {runs} |"


def _code(text: str) -> str:
    """`text` between single backticks."""
    return one_line(clean(text)).replace("`", "'")


# For machines.


def as_junit(all_found: Sequence[Mapping[str, Any]], problem: str | None = None) -> str:
    """JUnit's XML: a suite a review, a case a check. A block is a failure, and so is what keeps the merge from being judged;
    what is waived, and what is not known, is skipped. `problem`: why there is no review at all."""
    root = xml.Element("testsuites", name="expmgr review")
    if problem is not None:
        suite = xml.SubElement(root, "testsuite", name="expmgr review", tests="1", failures="1", errors="0")
        case = xml.SubElement(suite, "testcase", classname="expmgr", name="review")
        xml.SubElement(case, "failure", message=_legal(problem), type="review").text = _legal(problem)
    for found in all_found:
        checks = found["checks"]
        failures = sum(one["answer"] == "block" and not one["waived"] for one in checks)
        name = f"{found['candidate']} against {found['baseline']}"
        lost = found.get("failures") or []
        counts = {"tests": str(len(checks) + len(lost)), "failures": str(failures + len(lost)), "errors": "0"}
        suite = xml.SubElement(root, "testsuite", {"name": _legal(name), **counts})
        for one in lost:
            case = xml.SubElement(suite, "testcase", classname=f"expmgr.{_legal(found['candidate'])}", name="merge")
            told = _legal(one["told"] + _mend(one))
            xml.SubElement(case, "failure", message=told, type="merge").text = told
        for one in checks:
            case = xml.SubElement(
                suite, "testcase", classname=f"expmgr.{_legal(found['candidate'])}", name=_legal(one["id"])
            )
            told = _legal(f"{one['told']}{_mend(one)}")
            if one["waived"]:
                xml.SubElement(case, "skipped", message=_legal(_word(one)))
            elif one["answer"] == "block":
                xml.SubElement(case, "failure", message=told, type=_legal(one["id"])).text = told
            elif one["answer"] == "unknown":
                xml.SubElement(case, "skipped", message=told)
            elif one["answer"] == "warn":
                xml.SubElement(case, "system-out").text = told
    xml.indent(root)
    return xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _legal(text: str) -> str:
    """`text` without the characters that XML cannot hold."""
    return (
        "".join(one for one in clean(text) if ord(one) >= 32 or one in "\t\n")
        .replace("\ufffe", "")
        .replace("\uffff", "")
    )


def as_annotations(all_found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """GitHub's workflow commands: a line a check that blocks, warns or is not known."""
    levels = {"block": "error", "warn": "warning", "unknown": "notice"}
    for found in all_found:
        file = f"experiments/{found['candidate'].partition('/')[0]}/spec.yaml"
        for one in found.get("failures") or []:
            title = _property(f"{found['candidate']}: merge")
            yield f"::error file={_property(file)},title={title}::{_data(one['told'] + _mend(one))}"
        for one in found["checks"]:
            level = "notice" if one["waived"] else levels.get(one["answer"])
            if level is not None:
                title = f"{found['candidate']}: {one['id']}{' (waived)' if one['waived'] else ''}"
                yield f"::{level} file={_property(file)},title={_property(title)}::{_data(one['told'] + _mend(one))}"


def as_error(title: str, told: str, hint: str | None) -> str:
    """An annotation of its own."""
    return f"::error title={_property(title)}::{_data(told + (f'. Hint: {hint}' if hint else ''))}"


def _data(text: str) -> str:
    """Text of a workflow command: a line break would begin another one."""
    return CONTROL.sub("\ufffd", _harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def frozen_files(found: Mapping[str, Any]) -> dict[str, bytes]:
    """Path to content: what a merge writes into the experiment's folder."""
    folder = f"experiments/{found['candidate'].partition('/')[0]}/reviews/{found['id'][:12]}"
    return {f"{folder}.md": as_markdown(found).encode(), f"{folder}.json": as_json(found)}


def as_json(found: Mapping[str, Any]) -> bytes:
    """The review as it is kept."""
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
