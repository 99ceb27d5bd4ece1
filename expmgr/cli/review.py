"""`expmgr review`: a question, its evidence, people's verdicts, and the decision."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expmgr.cli import output
from expmgr.errors import ExitCode, ExpmgrError, OutputProblem, ReviewProblem, did_you_mean
from expmgr.escape import one_line

if TYPE_CHECKING:
    from expmgr.git.repo import CommitId
    from expmgr.project import Project
    from expmgr.reviews.evidence import Evidence
    from expmgr.reviews.review import Review
    from expmgr.reviews.standing import Standing

Named = Annotated[str, typer.Argument(metavar="REVIEW", help="Its id or the beginning, or the variant under review.")]
Message = Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")]

_UNTOUCHED = "Nothing was changed."


class ReportFormat(str, Enum):
    """How `check` prints."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"
    GITLAB = "gitlab"


def add_to(app: typer.Typer) -> None:
    sub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Decide whether a variant is merged.")
    commands = (open_review, list_reviews, show, check, comment, resolve, waive, approve, veto, lift, close, merge)
    for command in commands:
        sub.command(name=command.__name__.removesuffix("_review").removesuffix("_reviews"))(command)
    app.add_typer(sub, name="review")


def _opened() -> Project:
    from expmgr.comparison.statistics import begin_to_import
    from expmgr.project import Project

    begin_to_import()
    return Project.open(output.folder())


def _standing(project: Project, review: Review, *, base: CommitId | None = None) -> Standing:
    """Where a review stands now."""
    from expmgr.reviews.evidence import gather, question_of
    from expmgr.reviews.standing import standing

    if review.end is not None:
        return standing(project, review, None)
    evidence = gather(project, question_of(project, review.opened), base=base, policy=review.policy)
    return standing(project, review, evidence)


def _report(project: Project, found: Standing) -> dict[str, Any]:
    """Everything that is known of it; of one that has ended, what was kept."""
    from expmgr.log.logs import REVIEW_FILE
    from expmgr.reviews.page import ended, kept, report

    end = found.review.end
    if end is None:
        return report(found)
    (content,) = project.logs.beside([end], REVIEW_FILE)
    return ended(kept(content, found.review.id), found)


def _current(project: Project, text: str) -> Review:
    """A review that is open, or was merged and the target does not have it: a push that was refused, and a rebase."""
    from expmgr.reviews.review import find_review
    from expmgr.reviews.standing import is_landed, reopened, require_open

    review = find_review(project, text)
    if not is_landed(project, review):
        review = reopened(review)
    require_open(review)
    return review


def _live(project: Project, text: str) -> tuple[Review, Standing, Evidence]:
    """A review that is open, and what is known now."""
    review = _current(project, text)
    found = _standing(project, review)
    assert found.evidence is not None
    return review, found, found.evidence


def _unjudged(project: Project, text: str) -> tuple[Review, Standing]:
    """As `_live`, also where what it asks cannot be looked at any more: then nothing is known but what people said."""
    from expmgr.reviews.standing import standing

    review = _current(project, text)
    try:
        return review, _standing(project, review)
    except ExpmgrError as error:
        output.tell([f"Note: what it asks cannot be judged: {error.message}"])
        return review, standing(project, review, None)


def _tell(project: Project, kind: Any, values: dict[str, object], as_json: bool) -> None:
    from expmgr.log.logs import Draft
    from expmgr.team.publish import tell

    (event,) = tell(project, [Draft(kind, values)])
    if as_json:
        output.show_json({"format": 1, "id": event.id})
        return
    output.show(f"{event.id[:12]}: {one_line(event.title)}")
    output.tell_unheard(project)
    _next(project)


def _next(project: Project, *more: str) -> None:
    from expmgr.git.remotes import remote_names

    if remote_names(project.repo):
        output.tell([f"Next: {'; '.join([*more, 'expmgr push'])}"])


def _words(message: str) -> str:
    if not message.strip():
        raise typer.BadParameter("-m has no words")
    return message.strip()


# Asking.


def open_review(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="The candidate.")],
    against: Annotated[
        str | None, typer.Option("--against", metavar="BASELINE", help="Default: compare.baseline of its spec.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="SEEDS", help="These alone count: 10-14.")] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Run both on fresh seeds first, and judge by these alone.")
    ] = False,
    message: Annotated[
        str, typer.Option("-m", "--message", metavar="TEXT", help="What is to be decided, and why.")
    ] = "",
    as_json: output.AsJson = False,
) -> None:
    """Ask for a decision: is this variant to be merged, instead of the baseline?

    Example: expmgr review open iris/wide --against iris/baseline
    """
    from expmgr.cli.options import parse_seeds
    from expmgr.log.events import ReviewOpened
    from expmgr.log.logs import Draft
    from expmgr.render.review import as_lines
    from expmgr.reviews.evidence import Question, gather, target_name
    from expmgr.reviews.page import report
    from expmgr.reviews.review import all_reviews, find_review
    from expmgr.reviews.standing import standing
    from expmgr.team.publish import tell
    from expmgr.variants.variants import find_variant, spec_of

    project = _opened()
    candidate = find_variant(project.repo, variant)
    declared = against or spec_of(project.repo, candidate).compared.baseline
    if declared is None:
        raise ReviewProblem(
            f"nothing says what {candidate.name} is held against",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review open {candidate.name} --against VARIANT",
        )
    baseline = find_variant(project.repo, declared)
    if baseline.name == candidate.name:
        raise ReviewProblem(f"{candidate.name} cannot be held against itself", left_alone=_UNTOUCHED)
    names = (str(candidate.name), str(baseline.name))
    for one in all_reviews(project):
        if one.end is None and (one.opened.candidate, one.opened.baseline) == names:
            otherwise = f"; to ask otherwise: expmgr review close {one.short} --reason superseded"
            raise ReviewProblem(
                f"review {one.short} of {names[0]} against {names[1]} is open",
                left_alone=_UNTOUCHED,
                hint=f"expmgr review show {one.short}{otherwise}",
            )
    target = target_name(project)
    taken = tuple(parse_seeds(seeds)) if seeds is not None else None
    if confirm:
        taken = _fresh(project, names, taken)
    asked = Question(candidate, baseline, target, seeds=taken, is_confirmed=confirm)
    evidence = gather(project, asked)
    comparison = evidence.comparison
    values: dict[str, object] = {
        "candidate": names[0],
        "baseline": names[1],
        "commit": candidate.commit,
        "base_commit": baseline.commit,
        "target": target,
        "metric": comparison.metric,
        "split": comparison.split,
        "digests": evidence.digests,
        "result_set": evidence.result_set,
        "seeds": list(taken) if taken is not None else None,
        "is_confirmed": confirm,
        "text": message.strip(),
    }
    (event,) = tell(project, [Draft(ReviewOpened, values)])
    found = report(standing(project, find_review(project, event.id), evidence))
    if as_json:
        output.show_json(found)
        return
    output.show(*as_lines(found))
    _next(project)


def _fresh(project: Project, names: Sequence[str], seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Run both on seeds that no run has had, unless no seed could make them comparable."""
    from expmgr.cli.confirming import confirmed, is_hopeless
    from expmgr.comparison.used_runs import chosen
    from expmgr.paths import seeds_text

    found = chosen(project, list(names), names[1])
    done = [{one.seed for one in side.counted} for side in found.subjects]
    if seeds is not None and all(set(seeds) <= one for one in done):
        raise ReviewProblem(
            f"seeds {seeds_text(seeds)} have results on both sides, so they confirm nothing",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review open {names[0]} --against {names[1]} --confirm takes fresh ones; "
            "without --confirm these are judged as what they are",
        )
    if is_hopeless(found, None):
        output.tell(["Nothing was run: other seeds do not make these comparable"])
        return tuple(seeds or ())
    again = f"expmgr review open {names[0]} --against {names[1]}"
    return tuple(confirmed(project, found, None, seeds, again)[1])


# Looking.


def list_reviews(
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    as_json: output.AsJson = False,
    as_csv: output.AsCsv = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """List the open reviews, with what is missing for a merge; with `--all` every one.

    Example: expmgr review list --all
    """
    from expmgr.reviews.review import all_reviews
    from expmgr.reviews.standing import is_landed

    how = output.form(as_json, as_csv, as_markdown)
    project = _opened()
    reviews = [one for one in all_reviews(project) if everything or one.end is None or not is_landed(project, one)]
    found = []
    for review in reviews:
        try:
            found.append(_report(project, _standing(project, review)))
        except ExpmgrError as error:  # a spec that cannot be read, a commit that is not here: the others are listed
            told = f"Note: review {review.short} of {review.opened.candidate} was passed over: {error.message}"
            output.tell([told])
    if how is output.Form.JSON:
        output.show_json({"format": 1, "reviews": found})
        return
    table = output.Table(
        ("review", "candidate", "against", "state", "remarks", "result", "asked by", "at"),
        wrap=frozenset({"result", "remarks"}),
        dropped=("at", "asked by"),
    )
    for one in found:
        table.rows.append(
            (
                one["id"][:12],
                one["candidate"],
                one["baseline"],
                one["state"],
                _remarks(one),
                one["sentence"] or "",
                one_line(one["author"]["name"]),
                output.moment(one["opened_at"]),
            )
        )
    if not found and how is output.Form.TERMINAL:
        more = "" if everything else "; --all shows those that were decided"
        output.tell([f"no review is open{more}"])
        return
    table.show(how)


def _remarks(found: dict[str, Any]) -> str:
    """What there is to say of a review in a list, and what a merge still needs of people."""
    vetoed = [f"vetoed by {one['by']['name']}" for one in found["opinions"] if one["verdict"] == "veto"]
    lacks = found["state"] == "open" and not any(one["counts"] for one in found["opinions"])
    said = [*found["remarks"], *(vetoed if found["state"] == "open" else ()), *(["not approved"] if lacks else ())]
    return one_line(", ".join(said))


def show(
    review: Named,
    everything: Annotated[bool, typer.Option("--all", help="Checks that are ok, too.")] = False,
    as_json: output.AsJson = False,
    as_markdown: output.AsMarkdown = False,
) -> None:
    """Show a review: numbers, checks, verdicts, comments, and what a merge still needs.

    Example: expmgr review show 3f2a9c
    """
    from expmgr.render.review import as_lines
    from expmgr.render.review import as_markdown as to_markdown
    from expmgr.reviews.review import find_review

    how = output.form(as_json, False, as_markdown)
    project = _opened()
    found = _report(project, _standing(project, find_review(project, review)))
    if how is output.Form.JSON:
        output.show_json(found)
    elif how is output.Form.MARKDOWN:
        output.show(to_markdown(found).rstrip("\n"))
    else:
        output.show(*as_lines(found, everything=everything))


def check(
    review: Annotated[
        str | None, typer.Argument(metavar="[REVIEW]", help="Its id or the beginning, or the variant.")
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
    project = _opened()
    if review is not None:
        from expmgr.reviews.review import find_review

        found = [_standing(project, find_review(project, review))]
        if not silent and found[0].evidence is not None:
            _log_check(project, found[0])
    else:
        assert base is not None
        assert head is not None
        try:
            found = _between(project, base, head)
        except ReviewProblem as error:
            _print_problem(error, layout, file)
            raise
    reports = [_report(project, one) for one in found]
    code = max((_code_of(one) for one in found), key=_GRAVITY.index, default=ExitCode.DONE)
    _print_check(reports, layout, file, code)
    raise typer.Exit(code)


_GRAVITY = [ExitCode.DONE, ExitCode.NOT_COMPARABLE, ExitCode.MISTAKE]


def _code_of(found: Standing) -> ExitCode:
    evidence = found.evidence
    if evidence is not None and evidence.without_results:
        return ExitCode.MISTAKE
    is_blocked = bool(found.blocks) or bool(evidence and (evidence.conflicts or evidence.is_lost))
    return ExitCode.NOT_COMPARABLE if is_blocked else ExitCode.DONE


def _log_check(project: Project, found: Standing) -> None:
    """Keep what the checks said, unless that stands in the log."""
    from expmgr.log.events import Checked
    from expmgr.log.logs import Draft
    from expmgr.team.publish import tell

    evidence, before = found.evidence, found.review.checked
    assert evidence is not None
    answers = {one.id: one.answer.value for one in evidence.checks}
    told = (evidence.digests, evidence.result_set, answers, evidence.result.sentence)
    if before is not None and (before.digests, before.result_set, before.answers, before.sentence) == told:
        return
    values: dict[str, object] = {
        "review": found.review.id,
        "commit": evidence.question.candidate.commit,
        "digests": evidence.digests,
        "result_set": evidence.result_set,
        "answers": answers,
        "sentence": evidence.result.sentence,
    }
    tell(project, [Draft(Checked, values)])


def _between(project: Project, base: str, head: str) -> list[Standing]:
    """The open reviews of what HEAD is, as it would be merged into BASE; none where no experiment changes between them."""
    from expmgr.errors import UnknownVariant
    from expmgr.reviews.evidence import changed_experiments, gather, question_of
    from expmgr.reviews.review import all_reviews
    from expmgr.reviews.standing import standing

    commits = []
    for text in (base, head):
        commit = project.repo.commit_of(text)
        if commit is None:
            raise UnknownVariant(f"there is no commit {text}", hint="git fetch; a shallow clone has not all of them")
        commits.append(commit)
    onto, tip = commits
    found = []
    for one in all_reviews(project, onto):
        asked = question_of(project, one.opened)
        if one.end is None and tip in (asked.candidate.commit, one.opened.commit):
            exactly = replace(asked, candidate=replace(asked.candidate, commit=tip))
            try:
                found.append(standing(project, one, gather(project, exactly, base=onto, policy=one.policy)))
            except ExpmgrError as error:
                raise ReviewProblem(
                    f"review {one.short} of {one.opened.candidate} cannot be judged: {error.message}",
                    details=error.details,
                    hint=f"expmgr review close {one.short} --reason abandoned, if nobody wants it any more",
                ) from None
    reviewed = {one.review.opened.candidate.partition("/")[0] for one in found}
    changed = [one for one in changed_experiments(project, onto, tip) if one not in reviewed]
    if changed:
        raise ReviewProblem(
            f"{', '.join(changed)} would change, and no open review is of {tip[:12]}"
            + (f" and {'it' if len(changed) == 1 else 'them'}" if found else ""),
            hint="expmgr review open VARIANT --against BASELINE; expmgr push; and here expmgr pull before this",
        )
    return found


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


# Talking.


def comment(
    review: Named,
    message: Message,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="WHAT", help="check:ID, run:ID, run:VARIANT:SEED, or FILE:LINE of the candidate."),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Say something in a review, of all of it, a check, a run, or a line of code.

    Example: expmgr review comment 3f2a9c -m "why this rate?" --on experiments/iris/spec.yaml:5
    """
    from expmgr.log.events import Commented
    from expmgr.reviews.review import find_review

    project = _opened()
    found = find_review(project, review)
    values: dict[str, object] = {"review": found.id, "text": _words(message)}
    if on is not None:
        values |= {"on": on, **_place(project, found, on)}
    _tell(project, Commented, values, as_json)


def _place(project: Project, review: Review, on: str) -> dict[str, object]:
    """What a comment is on has to be there: the id of a run, the commit of a line of code."""
    from expmgr.comparison.checks import CHECKS
    from expmgr.errors import UnknownRun
    from expmgr.reviews.evidence import question_of
    from expmgr.variants.named_run import run_named

    kind, _, name = on.partition(":")
    if kind == "check" and name:
        if name not in CHECKS:
            raise ReviewProblem(f"there is no check {name}", left_alone=_UNTOUCHED, hint=did_you_mean(name, CHECKS))
        return {}
    if kind == "run" and name:
        record = run_named(project, name)
        if record is None:
            raise UnknownRun(f"there is no run {name}", left_alone=_UNTOUCHED, hint="expmgr show VARIANT has their ids")
        return {"on": f"run:{record.run_id}"}
    path, _, line = on.rpartition(":")
    commit = question_of(project, review.opened).candidate.commit
    content = project.repo.read(commit, path) if path and line.isdigit() else None
    if content is None or not 0 < int(line) <= content.count(b"\n") + 1:
        raise ReviewProblem(
            f"{on} is no check, no run, and no line of {review.opened.candidate}",
            left_alone=_UNTOUCHED,
            hint="--on check:few-seeds, --on run:20260102-030405678-abcdef, --on experiments/iris/spec.yaml:5",
        )
    return {"commit": commit}


def resolve(
    review: Named,
    comment: Annotated[str, typer.Argument(metavar="COMMENT", help="Its id, or the beginning.")],
    as_json: output.AsJson = False,
) -> None:
    """Say that what a comment asked for is settled.

    Example: expmgr review resolve 3f2a9c 81d0
    """
    from expmgr.errors import UnknownEvent
    from expmgr.log.events import Resolved
    from expmgr.reviews.review import find_review

    project = _opened()
    found = find_review(project, review)
    meant = [one for one in found.comments if comment and one.id.startswith(comment)]
    if len(meant) != 1:
        what = f"{len(meant)} comments begin with {comment}" if meant else f"there is no comment {comment} in it"
        raise UnknownEvent(what, left_alone=_UNTOUCHED, hint=f"expmgr review show {found.short}")
    before = found.resolved.get(meant[0].id)
    if before is not None:
        raise ReviewProblem(f"{found.person(before).name} has settled {meant[0].id[:12]} before", left_alone=_UNTOUCHED)
    _tell(project, Resolved, {"review": found.id, "event": meant[0].id}, as_json)


def waive(
    review: Named,
    name: Annotated[str, typer.Argument(metavar="CHECK", help="The check that blocks.")],
    message: Message,
    as_json: output.AsJson = False,
) -> None:
    """Excuse a check that blocks, for the results that there are now; by somebody whose work it is not.

    Example: expmgr review waive 3f2a9c overlap -m "the customer's own split"
    """
    from expmgr.log.events import Waived

    project = _opened()
    found, now, evidence = _live(project, review)
    blocking = {one.id: one for one in evidence.blocks}
    if name not in blocking:
        raise ReviewProblem(
            f"{name} does not block review {found.short}",
            left_alone=_UNTOUCHED,
            hint=f"{', '.join(blocking)} {'does' if len(blocking) == 1 else 'do'}" if blocking else "nothing does",
        )
    _require_other(project, now, evidence, "waives a check of")
    values: dict[str, object] = {
        "review": found.id,
        "check": name,
        "told": blocking[name].told,
        "reason": _words(message),
        "digests": evidence.digests,
        "result_set": evidence.result_set,
    }
    _tell(project, Waived, values, as_json)


def _require_other(project: Project, now: Standing, evidence: Evidence, what: str) -> None:
    """The rule of the target branch: nobody decides on their own work."""
    from expmgr.reviews.review import authors_of
    from expmgr.team.publish import actor_of

    if not now.rules.by_others:
        return
    actor = actor_of(project)
    if actor is None or not actor.email:
        raise ReviewProblem(
            f"nobody {what} a review without a name",
            left_alone=_UNTOUCHED,
            hint='git config user.name "..."; git config user.email ...; record_user = true',
        )
    own = now.review.key_of(actor.email.casefold())
    if own in map(now.review.key_of, authors_of(project, now.review, evidence)):
        raise ReviewProblem(
            f"{actor.name} {what} their own work: it takes somebody else",
            details=["authors are who opened the review, made the variant, or wrote one of its commits"],
            left_alone=_UNTOUCHED,
            hint="by_others = false in [tool.expmgr.review] on the target branch, for who works alone",
        )


# Deciding.


def approve(
    review: Named,
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """Approve what would be merged, with the results that there are now. Takes the place of a veto of yours.

    Example: expmgr review approve 3f2a9c -m "I ran seed 11 myself"
    """
    project = _opened()
    found, now, evidence = _live(project, review)
    if evidence.without_results or evidence.tree is None or evidence.is_lost:
        raise ReviewProblem(
            f"there is nothing to approve in review {found.short} yet",
            details=[told + (f": {mend}" if mend else "") for told, mend in now.missing_results][:5],
            left_alone=_UNTOUCHED,
            hint=f"expmgr review show {found.short}",
        )
    _require_other(project, now, evidence, "approves")
    _decide(project, found, now, "approve", message, as_json)


def veto(review: Named, message: Message, as_json: output.AsJson = False) -> None:
    """Keep it from being merged, until you lift that, whatever changes.

    Example: expmgr review veto 3f2a9c -m "the eval rows come from production logs of one day"
    """
    project = _opened()
    found, now = _unjudged(project, review)
    _decide(project, found, now, "veto", _words(message), as_json)


def lift(
    review: Named,
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """Take back your veto, or your approval.

    Example: expmgr review lift 3f2a9c
    """
    from expmgr.log.writers import writer_id
    from expmgr.team.publish import actor_of

    project = _opened()
    found, now = _unjudged(project, review)
    actor = actor_of(project)
    mail = actor.email.casefold() if actor is not None else ""
    key = found.key_of(mail) if mail else writer_id(project.layout.own)
    if key not in {one.person.key for one in now.opinions}:
        raise ReviewProblem(
            f"no verdict in review {found.short} is yours",
            left_alone=_UNTOUCHED,
            hint=f"expmgr review show {found.short}",
        )
    _decide(project, found, now, "lift", message, as_json)


def _decide(project: Project, review: Review, now: Standing, verdict: str, message: str, as_json: bool) -> None:
    from expmgr.log.events import Decided

    _tell(project, Decided, _decision(review, now, verdict, message), as_json)


def _decision(review: Review, now: Standing, verdict: str, message: str, reason: str = "") -> dict[str, object]:
    known = now.evidence
    return {
        "review": review.id,
        "verdict": verdict,
        "commit": known.question.candidate.commit if known else review.opened.commit,
        "digests": known.digests if known else review.opened.digests,
        "result_set": known.result_set if known else review.opened.result_set,
        "text": message.strip(),
        "reason": reason,
    }


def close(
    review: Named,
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="WHY", help="no gain, worse, not comparable, superseded, or abandoned."),
    ],
    message: Annotated[str, typer.Option("-m", "--message", metavar="TEXT", help="The words.")] = "",
    as_json: output.AsJson = False,
) -> None:
    """End a review without a merge. The answer is kept, with the numbers that it rests on.

    Example: expmgr review close 3f2a9c --reason "no gain" -m "twice the parameters for nothing"
    """
    from expmgr.log.events import Decided
    from expmgr.log.logs import Draft
    from expmgr.reviews.merging import end_with
    from expmgr.reviews.review import REASONS

    if reason not in REASONS:
        raise typer.BadParameter(f"--reason takes one of: {', '.join(REASONS)}")
    project = _opened()
    found, now = _unjudged(project, review)
    event = end_with(project, now, Draft(Decided, _decision(found, now, "close", message, reason)))
    if as_json:
        output.show_json({"format": 1, "id": event.id})
        return
    output.show(f"{event.id[:12]}: {one_line(event.title)}")
    _next(project)


def merge(review: Named, as_json: output.AsJson = False) -> None:
    """Merge the candidate into the target branch, with what was decided in it. Exit code 5 where a check blocks.

    Example: expmgr review merge 3f2a9c
    """
    from expmgr.git.remotes import remote_names
    from expmgr.reviews.merging import merge as merged

    project = _opened()
    found, now, evidence = _live(project, review)
    done = merged(project, now)
    target = evidence.question.target
    if as_json:
        about = {"review": found.id, "target": target, "commit": done.commit, "files": done.files}
        output.show_json({"format": 1, **about, "checkout": done.checkout, "was_merged": done.was_there})
        return
    if done.was_there:
        output.show(
            f"{found.opened.candidate} was merged into {target} before, as {done.commit[:12]}: the log says so now"
        )
    else:
        output.show(f"merged {found.opened.candidate} into {target} as {done.commit[:12]}")
        output.show(*(f"  {one}" for one in done.files))
        if done.checkout:
            output.tell([f"Note: {done.checkout}, where {target} is checked out, has it"])
    remotes = remote_names(project.repo)
    if remotes:
        name = "origin" if "origin" in remotes else remotes[0]
        output.tell([f"Next: git push {name} {target} && expmgr push"])
