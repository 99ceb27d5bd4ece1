"""`expmgr doctor`: prints what is wrong with this set-up, and fixes what is safe."""

from __future__ import annotations

from typing import Annotated

import typer

from expmgr.cli import output
from expmgr.errors import ExitCode
from expmgr.redact import redacted


def add_to(app: typer.Typer) -> None:
    app.command(name="doctor")(doctor)


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Do what is safe: delete dead locks of expmgr, a broken cache.")
    ] = False,
    network: Annotated[bool, typer.Option("--network", help="Also ask the git remotes and the store.")] = False,
    as_json: output.AsJson = False,
) -> None:
    """Check git, the repository, locks, disks, the index, remote and store; exit code 1 if something is an error.

    Example: expmgr doctor
    """
    from expmgr.api import doctor as checks

    found = checks.doctor(output.folder(), fix=fix, network=network)
    if as_json:
        output.show_json(found.as_dict())
    else:
        for one in found.findings:
            state = "fixed" if one.is_fixed else one.state
            output.show(f"{state:<5}  {one.check:<10}  {redacted(one.message)}")
            if one.fix and one.state != "ok":
                output.show(f"{'':<19}fix: {redacted(one.fix)}")
            if one.hint and one.state != "ok":
                output.show(f"{'':<19}hint: {redacted(one.hint)}")
    raise typer.Exit(ExitCode.MISTAKE if found.has_errors else ExitCode.DONE)
