"""One import of TensorFlow for many tests: the warm process of a test session (warm/, docs/testing.md)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from world import ROOT

FOLDER = ROOT / "tests" / "warm"
SOCKET = "WARM_WORKERS"
"""The variable that names the socket of the process for the interpreter that runs the tests."""
OTHER_SOCKET = "WARM_ESTIMATORS"
"""The variable that names the one for the interpreter with TensorFlow 2.15."""


@contextmanager
def warm_workers(
    log: Path, environ: Mapping[str, str], *, python: str = sys.executable, trainer: str = "keras"
) -> Iterator[str]:
    """The socket of a process that imports TensorFlow when it is first asked for a worker, with the environment `environ`."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    path = str(folder / "socket")
    environ = {**environ, "PYTHONPATH": str(ROOT)}
    if python != sys.executable:  # it finds expmgr as its workers do
        (folder / "package").mkdir()
        (folder / "package" / "expmgr").symlink_to(ROOT / "expmgr")
        environ.update(PYTHONPATH=str(folder / "package"), EXPMGR_WORKER_FOLDER=str(folder))
    with socket.socket(socket.AF_UNIX) as listening, open(log, "ab") as told:
        listening.bind(path)
        listening.listen(64)
        process = subprocess.Popen(
            [python, str(FOLDER / "server.py"), str(listening.fileno()), trainer],
            stdin=subprocess.PIPE, stdout=told, stderr=told, pass_fds=[listening.fileno()], cwd="/",
            env=with_warmth(environ, path),
        )  # fmt: skip
    assert process.stdin is not None
    try:
        yield path
    finally:
        process.stdin.close()
        code = process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
    assert code == 0, log.read_text(encoding="utf-8", errors="replace")[-3000:]


def warm_interpreter(path: Path, python: str) -> None:
    """Write a program to `path` that is the interpreter `python`; a worker in it is a fork of the warm process whose socket
    `OTHER_SOCKET` names, except for a `cold` test."""
    path.write_text(
        f"""#!/bin/sh
if [ -n "${SOCKET}" ]; then
  export {SOCKET}="${OTHER_SOCKET}" PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{FOLDER}"
fi
exec {python} "$@"
""",
        encoding="utf-8",
    )
    path.chmod(0o755)


def with_warmth(environ: Mapping[str, str], path: str) -> dict[str, str]:
    """`environ` with the variables by which a worker finds the warm process at the socket `path`."""
    parts = [environ.get("PYTHONPATH", ""), str(FOLDER)]
    return {**environ, SOCKET: path, "PYTHONPATH": os.pathsep.join(part for part in parts if part)}


def without_warmth(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was before `with_warmth`."""
    kept = {name: value for name, value in environ.items() if name not in (SOCKET, OTHER_SOCKET, "PYTHONPATH")}
    parts = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part not in ("", str(FOLDER))]
    return {**kept, "PYTHONPATH": os.pathsep.join(parts)} if parts else kept
