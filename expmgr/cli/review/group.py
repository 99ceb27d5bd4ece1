"""`expmgr review`: puts its commands together."""

from __future__ import annotations

import typer

from expmgr.cli.review.check import check
from expmgr.cli.review.decide import approve, close, lift, merge, veto, waive
from expmgr.cli.review.open import comment, open_review, resolve
from expmgr.cli.review.show import list_reviews, show


def add_to(app: typer.Typer) -> None:
    sub = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Decide whether a variant is merged.")
    commands = (open_review, list_reviews, show, check, comment, resolve, waive, approve, veto, lift, close, merge)
    for command in commands:
        sub.command(name=command.__name__.removesuffix("_review").removesuffix("_reviews"))(command)
    app.add_typer(sub, name="review")
