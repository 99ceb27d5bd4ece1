"""`expmgr tensorboard`: starts TensorBoard on the model_dirs of variants."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from expmgr.cli import output
from expmgr.errors import ExitCode, ExpmgrError

if TYPE_CHECKING:
    from expmgr.project import Project


#: How long TensorBoard may tidy up.
_PATIENCE_SECS = 10


class NoTensorBoard(ExpmgrError):
    """TensorBoard is not installed."""


class NothingToShow(ExpmgrError):
    """None of the variants has been trained."""


def add_to(app: typer.Typer) -> None:
    app.command(name="tensorboard")(tensorboard)


def tensorboard(
    variants: Annotated[list[str] | None, typer.Argument(metavar="VARIANT", help="Default: all.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="TensorBoard's own default: 6006.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Where it listens; its default: this machine alone.")
    ] = None,
) -> None:
    """Open TensorBoard on the curves of variants: each run is named as its variant and seed.

    Example: expmgr tensorboard iris/baseline iris/wide
    """
    from expmgr.project import Project

    project = Project.open(output.folder(), output.note)
    folders = _folders(project, variants or [])
    if importlib.util.find_spec("tensorboard") is None:
        raise NoTensorBoard("TensorBoard is not installed", hint="pip install 'expmgr[tensorboard]'")
    with tempfile.TemporaryDirectory(prefix="expmgr-tensorboard-") as logdir:
        for name, folder in folders.items():
            link = Path(logdir, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder, target_is_directory=True)
        options = [] if port is None else ["--port", str(port)]
        options += [] if host is None else ["--host", host]
        output.tell([f"{len(folders)} {'folder' if len(folders) == 1 else 'folders'} of curves; ^C ends TensorBoard"])
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, *options]
        process = subprocess.Popen(command, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"})

        def end(_number: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        with contextlib.suppress(ValueError):  # not the main thread: the caller's signals stay the caller's
            signal.signal(signal.SIGTERM, end)
        try:
            raise typer.Exit(ExitCode.MISTAKE if process.wait() else ExitCode.DONE)
        except KeyboardInterrupt:  # ^C reached TensorBoard too
            raise typer.Exit(0) from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End TensorBoard: it keeps nothing, and one that ^C has caught in its own tidying may wait for ever."""
    process.terminate()
    try:
        process.wait(_PATIENCE_SECS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _folders(project: Project, names: list[str]) -> dict[str, Path]:
    """Name to model_dir of every seed that has curves."""
    from expmgr.variants.variants import all_variants, find_variant

    asked = [find_variant(project.repo, name) for name in names] if names else all_variants(project.repo)
    found = {}
    for variant in asked:
        folder = project.layout.variant_dir(variant.name)
        for seed in sorted(folder.glob("seed-*"), key=lambda path: path.name):
            if any(seed.rglob("events.out.tfevents.*")):
                found[f"{variant.name}/{seed.name}"] = seed.resolve()
    if not found:
        shown = ", ".join(str(one.name) for one in asked) or "no variant"
        command = f"expmgr run {asked[0].name}" if asked else "expmgr new EXPERIMENT/VARIANT"
        raise NothingToShow(f"there are no curves of {shown}", hint=f"train one: {command}")
    return found
