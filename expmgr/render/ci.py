"""A review for CI: JUnit XML and GitHub annotations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as xml

from expmgr.escape import CONTROL, clean
from expmgr.render.review import answer_word, fix_of, harmless


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
            told = _legal(one["told"] + fix_of(one))
            xml.SubElement(case, "failure", message=told, type="merge").text = told
        for one in checks:
            case = xml.SubElement(
                suite, "testcase", classname=f"expmgr.{_legal(found['candidate'])}", name=_legal(one["id"])
            )
            told = _legal(f"{one['told']}{fix_of(one)}")
            if one["waived"]:
                xml.SubElement(case, "skipped", message=_legal(answer_word(one)))
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
            yield f"::error file={_property(file)},title={title}::{_data(one['told'] + fix_of(one))}"
        for one in found["checks"]:
            level = "notice" if one["waived"] else levels.get(one["answer"])
            if level is not None:
                title = f"{found['candidate']}: {one['id']}{' (waived)' if one['waived'] else ''}"
                yield f"::{level} file={_property(file)},title={_property(title)}::{_data(one['told'] + fix_of(one))}"


def as_error(title: str, told: str, hint: str | None) -> str:
    """An annotation of its own."""
    return f"::error title={_property(title)}::{_data(told + (f'. Hint: {hint}' if hint else ''))}"


def _data(text: str) -> str:
    """Text of a workflow command: a line break would begin another one."""
    return CONTROL.sub("\ufffd", harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
