"""`expmgr init`: prepares a repository, and adds an example or a first experiment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from expmgr.cli import output


def add_to(app: typer.Typer) -> None:
    app.command(name="init")(init)


def init(
    example: Annotated[
        str | None,
        typer.Option(
            "--example", metavar="NAME", help="Bring a runnable experiment: iris, digits, messages, houses, bars-vae."
        ),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="NAME", help="Write the first spec of your own.")
    ] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="With --experiment: data to read columns from.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="With --csv: the column to predict.")
    ] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Commit what was written.")] = False,
) -> None:
    """Make a repository ready, and bring an experiment into it.

    Example: expmgr init --example iris --commit
    """
    from expmgr.git.checkouts import ignored_by_git
    from expmgr.project import Project
    from expmgr.variants import experiments

    if example is not None and experiment is not None:
        raise typer.BadParameter("--example and --experiment cannot be given together")
    if (csv_file is None) != (label is None) or (csv_file is not None and experiment is None):
        raise typer.BadParameter("--csv FILE, --label COLUMN and --experiment NAME go together")
    if commit and example is None and experiment is None:
        raise typer.BadParameter("--commit needs --example or --experiment: there is nothing to commit")
    project = Project.open(output.folder(), output.note)
    name = example or experiment
    files = experiments.files_of(example, experiment, csv_file, label)
    if commit:
        project.repo.identity()
    written = experiments.add_experiment(project, name, files) if name else []
    project.layout.own.mkdir(parents=True, exist_ok=True)
    project.ignore_models()
    if name is None:
        output.tell(
            ["Ready.", "Next: expmgr init --example iris --commit, or --experiment NAME --csv FILE --label COLUMN"]
        )
        return
    for path in written:
        output.show(path)
    assert project.repo.root is not None
    ignored = ignored_by_git(project.repo.root, written)
    if ignored:
        output.tell([f"Note: git ignores {', '.join(ignored)}; a run reads what is committed, so they have to be"])
    if commit:
        made = experiments.commit_experiment(project, written, f"Add experiment {name}")
        output.tell([f"committed as {made[:12]}", f"Next: expmgr new {name}/baseline"])
    else:
        output.tell(_next(name, has_data=example is not None or csv_file is not None, is_ignored=bool(ignored)))


def _next(name: str, *, has_data: bool, is_ignored: bool) -> Iterator[str]:
    """What is to be typed next."""
    if not has_data:
        yield f"Next: put train.csv and eval.csv into experiments/{name}, say in spec.yaml which column is the label,"
        yield f'then: git add experiments/{name} && git commit -m "Add experiment {name}"; expmgr new {name}/baseline'
        return
    force = "--force " if is_ignored else ""
    yield f'Next: git add {force}experiments/{name} && git commit -m "Add experiment {name}"'
    yield f"Then: expmgr new {name}/baseline"
