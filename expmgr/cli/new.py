"""`expmgr new`."""

from __future__ import annotations

from typing import Annotated

import typer

from expmgr.cli import output


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
    as_json: output.AsJson = False,
) -> None:
    """Make a variant: a branch with one commit that changes the spec. Your checkout is not touched.

    Example: expmgr new iris/wide --from iris/baseline --set 'model.hidden_units=[20, 20]' -m "twice the width"
    """
    from expmgr.project import Project
    from expmgr.variants import make_variant, plan_variant

    project = Project.open(output.folder())
    plan = plan_variant(project.repo, variant, base, assignments or [], why)
    commit = make_variant(project.repo, plan)
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
    earlier = project.records.of_variant(plan.name)
    model_dir = project.layout.variant_dir(plan.name)
    if earlier or model_dir.exists():
        output.tell(
            [
                f"Note: there was a variant {plan.name} before: {len(earlier)} runs of it are recorded, and its model_dir "
                f"{project.shown(model_dir)} is kept",
                f"Hint: to begin anew beside what it holds: expmgr run {plan.name} --fresh",
            ]
        )
    output.show(f"{plan.name}: branch {plan.name.branch} at {commit[:12]}")
    output.tell([f"Next: expmgr run {plan.name}"])
