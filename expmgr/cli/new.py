"""`expmgr new`: creates a variant, also with `--edit` and `--switch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.errors import ExpmgrError

if TYPE_CHECKING:
    from expmgr.project import Project


def add_to(app: typer.Typer) -> None:
    app.command(name="new")(new)


def new(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="EXPERIMENT/VARIANT, such as iris/wide.")],
    base: Annotated[
        str | None,
        typer.Option("--from", metavar="BASE", help="A variant or any commit; default: what is checked out."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of the spec and its YAML value; null unsets it."),
    ] = None,
    why: Annotated[str | None, typer.Option("-m", "--message", metavar="WHY", help="Why this variant.")] = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Open the spec in $EDITOR; it is checked before anything is committed.")
    ] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Check the new branch out, for work on code: git switch.")
    ] = False,
    as_json: output.AsJson = False,
) -> None:
    """Make a variant: a branch with one commit that changes the spec. Your checkout is not touched without --switch.

    Example: expmgr new iris/wide --from iris/baseline --set 'model.hidden_units=[20, 20]' -m "twice the width"
    """
    from expmgr.project import Project
    from expmgr.team.publish import new_variant
    from expmgr.variants.variants import plan_variant, switch_to

    project = Project.open(output.folder(), output.note)
    if switch and project.repo.root is None:
        raise typer.BadParameter("--switch needs a checkout: this is a bare repository")
    editing = (lambda spec_text, check: edited(project, spec_text, check)) if edit else None
    plan = plan_variant(project.repo, variant, base, assignments or [], why, editing, project.settings.code_packages)
    commit = new_variant(project, plan, output.tell_unsaid, output.note)
    if switch:
        switch_to(project.repo, plan.name)
    if as_json:
        output.show_json(
            {
                "format": 1,
                "variant": str(plan.name),
                "branch": plan.name.branch,
                "commit": commit,
                "base": plan.base,
            }
        )
        return
    output.show(f"{plan.name}: branch {plan.name.branch} at {commit[:12]}")
    if switch:
        output.tell([f'Next: work on {plan.name.folder}/, then expmgr run {plan.name} --commit "what changed"'])
        return
    output.tell([f"Next: expmgr run {plan.name}"])


def edited(project: Project, spec_text: bytes, check: Callable[[bytes], None]) -> bytes:
    """`spec` as the user's editor leaves it, once it is right. What is wrong can be edited again, or is kept."""
    path = project.layout.own / f"edit-{os.getpid()}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(spec_text)
    while True:
        _edit(path)
        content = path.read_bytes()
        try:
            check(content)
        except ExpmgrError as error:
            if sys.stdin.isatty():
                output.tell(error.lines())
                if typer.confirm("Edit it again?", default=True, err=True):
                    continue
            error.left_alone = f"No branch was made. What you wrote is kept: {path}"
            raise
        path.unlink()
        return content


def _edit(path: Path) -> None:
    """Let the user's editor work on `path`: as git finds it."""
    from expmgr.git.process import call_git

    editor = call_git(path.parent, ["var", "GIT_EDITOR"]).text.strip()
    # It may be a command with arguments, so a shell reads it, as git has it.
    status = subprocess.call(["sh", "-c", f'{editor} "$@"', editor, str(path)])
    if status:
        path.unlink(missing_ok=True)
        raise EditorFailed(f"{editor} ended with {status}", left_alone="No branch was made.")


class EditorFailed(ExpmgrError):
    """The user's editor ended with an error."""
