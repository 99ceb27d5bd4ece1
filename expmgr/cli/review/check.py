"""`expmgr review check`: what a merge still needs, for people and for CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from expmgr.cli import output
from expmgr.cli.review.messages import opened
from expmgr.errors import ExitCode, OutputProblem, ReviewProblem


class ReportFormat(str, Enum):
    """How `check` prints."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"
    GITLAB = "gitlab"


def check(
    review: Annotated[
        str | None, typer.Argument(metavar="REVIEW", help="Its id or the beginning, or the variant.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="REV", help="In CI: what it would be merged into.")
    ] = None,
    head: Annotated[str | None, typer.Option("--head", metavar="REV", help="In CI: what would be merged.")] = None,
    layout: Annotated[
        ReportFormat, typer.Option("--format", help="text, json, junit, github, gitlab.")
    ] = ReportFormat.TEXT,
    file: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it there.")] = None,
    silent: Annotated[bool, typer.Option("--no-log", help="Say nothing of it in the log.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Look whether the question makes sense, for what would be merged. Exit code 0; 5: a check blocks; 1: no results.

    Example: expmgr review check 3f2a9c

    Example: expmgr review check --base origin/main --head HEAD --format github
    """
    layout = ReportFormat.JSON if as_json else layout
    if (review is None) == (base is None and head is None) or (base is None) != (head is None):
        raise typer.BadParameter("name a REVIEW, or both --base and --head")
    from expmgr.reviews.current import between, checked, gravest, report_of

    project = opened()
    if review is not None:
        found = [checked(project, review, log=not silent)]
    else:
        try:
            found = between(project, str(base), str(head))
        except ReviewProblem as error:
            _print_problem(error, layout, file)
            raise
    code = gravest(found)
    _print_check([report_of(project, one) for one in found], layout, file, code)
    raise typer.Exit(code)


def _print_problem(error: ReviewProblem, layout: ReportFormat, file: Path | None) -> None:
    """That there is no review to look at, where a host of CI looks for what fails."""
    from expmgr.render.ci import as_error, as_junit

    if layout is ReportFormat.GITHUB:
        output.show(as_error("experiment review", error.message, error.hint))
        _summarize(f"{error.message}\n")
    elif layout is ReportFormat.GITLAB or (layout is ReportFormat.JUNIT and file is not None):
        _write(file or Path("expmgr-review.xml"), as_junit([], problem=error.message))
    elif layout is ReportFormat.JUNIT:
        output.show(as_junit([], problem=error.message).rstrip("\n"))


def _summarize(text: str) -> None:
    """Add to the step's summary, where the host keeps one."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with open(summary, "a", encoding="utf-8") as out:
                out.write(text)
        except OSError as error:
            raise OutputProblem(f"the step summary {summary} cannot be written: {error.strerror}") from None


def _print_check(reports: list[dict[str, Any]], layout: ReportFormat, file: Path | None, code: ExitCode) -> None:
    from expmgr.render.ci import as_annotations, as_junit
    from expmgr.render.review import as_lines, as_markdown

    def text() -> Iterator[str]:
        for number, one in enumerate(reports):
            yield from ([""] if number else [])
            yield from as_lines(one)
        if not reports:
            yield "no experiment would change"

    if layout is ReportFormat.JSON:
        import json

        value = {"format": 1, "exit_code": int(code), "reviews": reports}
        if file is None:
            output.show_json(value)
        else:
            _write(file, json.dumps(value, indent=1) + "\n")
        return
    if layout in (ReportFormat.JUNIT, ReportFormat.GITLAB):
        if layout is ReportFormat.GITLAB:
            output.show(*text())
            _write(file or Path("expmgr-review.xml"), as_junit(reports))
        elif file is not None:
            _write(file, as_junit(reports))
        else:
            output.show(as_junit(reports).rstrip("\n"))
        return
    lines = list(text())
    if layout is ReportFormat.GITHUB:
        lines += as_annotations(reports)
        _summarize("\n".join(as_markdown(one) for one in reports) or "No experiment would change.\n")
    if file is None:
        output.show(*lines)
    else:
        _write(file, "\n".join(lines) + "\n")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputProblem(f"{file} cannot be written: {error.strerror}") from None
    output.tell([f"wrote {file}"])
