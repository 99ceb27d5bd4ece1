"""A review as text for a terminal, as Markdown and as JSON.

Everything is made of one dict, which is kept when the review ends: what was decided then reads the same years later, without
records, branches or the store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from expmgr.escape import clean, fenced, markdown, moment, one_line
from expmgr.paths import seeds_text

#: Files that are named, of many.
_MOST_FILES = 8
#: What a bot looks for, so that it edits the one comment which it has.
MARK = "<!-- expmgr-review: {id} -->"


# For people.


def headline(found: Mapping[str, Any]) -> str:
    """A review in a line."""
    remarks = f" ({', '.join(found['remarks'])})" if found["remarks"] else ""
    return f"review {found['id'][:12]}: {found['candidate']} against {found['baseline']}: {found['state']}{remarks}"


def as_lines(found: Mapping[str, Any], *, everything: bool = False) -> Iterator[str]:
    """For a terminal, or the log of a CI job: no words of anybody begin a line of their own there."""
    return (harmless(" ".join(line.splitlines())) for line in _lines(found, everything))


def harmless(line: str) -> str:
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
        yield from (f"{answer_word(one)} ({ids}): {one['told']}{fix_of(one)}" for ids, one in _grouped(checks))
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
        groups.setdefault((answer_word(one), one["told"], one["mend"] or ""), []).append(one)
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


def answer_word(check: Mapping[str, Any]) -> str:
    waived = check.get("waived")
    return f"Waived by {waived['by']['name']}, {one_line(waived['text'])}" if waived else _WORDS[check["answer"]]


def fix_of(check: Mapping[str, Any]) -> str:
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
            yield f"| {markdown(ids)} | {markdown(answer_word(one))} | {markdown(one['told'] + fix_of(one))} |"
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


def frozen_files(found: Mapping[str, Any]) -> dict[str, bytes]:
    """Path to content: what a merge writes into the experiment's folder."""
    folder = f"experiments/{found['candidate'].partition('/')[0]}/reviews/{found['id'][:12]}"
    return {f"{folder}.md": as_markdown(found).encode(), f"{folder}.json": as_json(found)}


def as_json(found: Mapping[str, Any]) -> bytes:
    """The review as it is kept."""
    return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
