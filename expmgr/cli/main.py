"""The entry point of all commands: turns errors into `Error:` and `Hint:` lines and an exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from expmgr import __version__
from expmgr.cli import output
from expmgr.cli.streams import give_up_output
from expmgr.disk.durable import system_error
from expmgr.errors import ExitCode, ExpmgrError
from expmgr.escape import is_text
from expmgr.redact import redacted

#: The modules of `expmgr.cli` with the commands that each adds, in the order of `expmgr --help`; a group comes last there.
COMMANDS = {
    "init": ("init",),
    "new": ("new",),
    "run": ("run",),
    "status": ("status", "logs", "stop"),
    "check": ("check", "checkpoints"),
    "adopt": ("adopt",),
    "inference": ("evaluate", "predict", "export"),
    "compare": ("compare",),
    "diff": ("diff",),
    "show": ("list", "ls", "show"),
    "log": ("log", "note", "retract"),
    "restore": ("restore",),
    "push_pull": ("push", "pull"),
    "review.group": ("review",),
    "doctor": ("doctor",),
    "tensorboard": ("tensorboard",),
}


def make_app(command: str | None = None, *, names_only: bool = False) -> typer.Typer:
    """The app with all commands, or only with those of the module that has `command`; with `names_only` they have a name and
    a help text, and do nothing.

    typer reads the parameters of every command that an app has, which takes longer than most commands do.
    """
    app = typer.Typer(
        name="expmgr",
        help="An experiment manager for TensorFlow: each variant has a git branch and a model_dir of its own.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_start)
    modules = [module for module, names in COMMANDS.items() if command in names]
    for module in modules or COMMANDS:
        import_module(f"expmgr.cli.{module}").add_to(app)
    for one in (app, *(group.typer_instance for group in app.registered_groups if group.typer_instance)):
        for info in one.registered_commands:
            if info.callback is not None:
                info.callback = _described(info.callback) if names_only else _with_told_pipes(info.callback)
    return app


def _described(callback: object) -> Callable[[], None]:
    """A command that does nothing, with the help of `callback`."""

    def nothing() -> None: ...

    nothing.__doc__ = callback.__doc__
    return nothing


def _with_told_pipes(callback: Callable[..., Any]) -> Callable[..., Any]:
    """`callback` with an error instead of EPIPE, after which typer ends without a word. It is never stdout's or stderr's:
    those drop what nobody reads."""

    @functools.wraps(callback)
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            raise ExpmgrError(
                "a program that the command started, or a file that it wrote to, was closed too early",
                hint="repeat the command",
            ) from error

    return told


def _typed(arguments: Sequence[str]) -> str | None:
    """The command that was typed; None before which another option than `-C` is (`expmgr --help`), or without a command."""
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-"):
            return word
        if word == "-C":
            next(rest, None)
        elif not word.startswith("-C"):
            break
    return None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"expmgr {__version__}")
        raise typer.Exit


def _start(
    folder: Annotated[
        Path | None, typer.Option("-C", metavar="DIR", help="Work as if called in DIR.", show_default=False)
    ] = None,
    version: Annotated[  # noqa: ARG001  # its callback ends the command
        bool, typer.Option("--version", help="Show the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise ExpmgrError(f"cannot work in {folder}: {error.strerror}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors are told on stderr, and on stdout as JSON with `--json`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    before = _current_folder()
    try:
        code = _done(arguments)
        sys.stdout.flush()  # a full disk is noticed here at the latest
        return code
    except ExpmgrError as error:
        return _told(error, arguments)
    except KeyboardInterrupt:
        return _told(_Interrupted("interrupted"), arguments)
    except OSError as error:
        story = system_error(error)
        return _told(story, arguments) if story is not None else _bug(error, arguments)
    except UnicodeEncodeError as error:
        wrong = next((one for one in arguments if not is_text(one)), None)
        if wrong is None:
            return _bug(error, arguments)
        return _told(ExpmgrError(f"the argument {wrong!a} is not UTF-8"), arguments)
    except Exception as error:
        return _bug(error, arguments)
    finally:
        if before is not None:
            with contextlib.suppress(OSError):  # the command may have removed it
                os.chdir(before)


def _current_folder() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed: with `-C DIR` a command works all the same
        return None


def _done(arguments: Sequence[str]) -> int:
    """Run the command of `arguments`; the code that it exits with."""
    is_overview = arguments in ([], ["--help"]) and "_EXPMGR_COMPLETE" not in os.environ  # a shell asks for options
    try:
        make_app(_typed(arguments), names_only=is_overview)(args=arguments, prog_name="expmgr")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return ExitCode.DONE


class _Interrupted(ExpmgrError):
    exit_code = ExitCode.INTERRUPTED


def _wants_json(arguments: Sequence[str]) -> bool:
    return "--json" in arguments or "--format=json" in arguments or ("--format", "json") in pairwise(arguments)


def _told(error: ExpmgrError, arguments: Sequence[str]) -> int:
    if _wants_json(arguments):
        _print_json(error.as_dict())
    _end_output()
    output.tell(error.lines())
    return error.exit_code


def _print_json(story: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # stdout may be what is full
        output.show_json({"format": 1, **story}, indent=None)


def _end_output() -> None:
    """Print what was shown before the error; what cannot be printed must not change the exit code."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    give_up_output()


def _bug(error: Exception, arguments: Sequence[str]) -> int:
    """A fault of ours: a file to send, and no traceback on the terminal."""
    import tempfile
    import traceback

    text = f"expmgr {__version__}, Python {sys.version}\n{arguments}\n\n{''.join(traceback.format_exception(error))}"
    place = None
    with (
        contextlib.suppress(OSError),  # no room for it: the fault itself is told all the same
        tempfile.NamedTemporaryFile(
            "w", prefix="expmgr-report-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file,
    ):
        file.write(redacted(text))
        place = file.name
    if place is None:
        hint = "there was no room for a report: make room in the temporary folder, and repeat the command"
    else:
        hint = f"a report to send with a bug report lies in {place}"
    if _wants_json(arguments):
        message = redacted(f"expmgr met a fault of its own: {type(error).__name__}: {error}")
        told = {
            "error": "OurBug",
            "exit_code": int(ExitCode.BUG),
            "message": message,
            "details": [],
            "left_alone": None,
        }
        _print_json({**told, "hint": f"report: {place}" if place else hint})
    _end_output()
    output.tell(
        [
            f"Error: expmgr met a fault of its own: {type(error).__name__}: {error}",
            f"Hint: {hint}",
        ]
    )
    return ExitCode.BUG
