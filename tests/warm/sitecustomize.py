"""A worker that a test starts becomes a fork of a process that has imported TensorFlow already (docs/testing.md).

Python imports a `sitecustomize` that it finds on PYTHONPATH as it starts. In a `python -m expmgr.train.worker` this one
hands the start to the session's warm process: arguments, environment, working folder and the three standard files. This
process then stands for the worker: it passes signals on and ends as the worker ends. Every other process goes on as ever,
and so does a worker that a warm one cannot stand for.
"""

from __future__ import annotations

import os
import sys

SOCKET = "WARM_WORKERS"
"""The variable that names the socket of the warm process."""
OTHER_SOCKET = "WARM_ESTIMATORS"
FOLDER = os.path.dirname(os.path.abspath(__file__))
_MODULE = ("-m", "expmgr.train.worker")
_FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")

#: Variables that neither Python, nor TensorFlow, nor Keras, nor NumPy reads as it is imported (of PYTHONPATH the path
#: that came of it is compared). Any other one has to be as it is in the warm process, or the worker starts cold.
_NOT_READ_AT_IMPORT = {
    *("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "TERM", "TZ"),
    *("PYTHONPATH", "EDITOR", "MY_SECRET", "MY_TOKEN"),
}
_PREFIXES_NOT_READ_AT_IMPORT = ("GIT_", "EXPMGR_", "PYTEST_", "AWS_", "GITHUB_", "GNUPG")


def own_environment() -> dict[str, str]:
    """The environment without what brought us here."""
    environ = dict(os.environ)
    for name in (SOCKET, OTHER_SOCKET):
        environ.pop(name, None)
    parts = [part for part in environ.pop("PYTHONPATH", "").split(os.pathsep) if part and not _is_ours(part)]
    if parts:
        environ["PYTHONPATH"] = os.pathsep.join(parts)
    return environ


def own_path() -> list[str]:
    """Where modules are looked for, without our folder."""
    return [part for part in sys.path if not _is_ours(part)]


def _is_ours(part: str) -> bool:
    return os.path.abspath(part) == FOLDER


def _package(part: str) -> str:
    """`part` of the path; where it is the worker's own folder, with a link to expmgr's package in it, that package."""
    if part != os.path.join(os.environ.get("EXPMGR_WORKER_FOLDER", ""), "package"):
        return part
    return " ".join(os.path.realpath(os.path.join(part, name)) for name in sorted(os.listdir(part)))


def imports() -> dict[str, object]:
    """All that the imports depend on, or that a fork could not take over: two processes with the same are exchangeable."""
    import resource

    environ = own_environment()
    home = environ.get("HOME", "")
    names = [
        name
        for name in environ
        if name not in _NOT_READ_AT_IMPORT and not name.startswith(_PREFIXES_NOT_READ_AT_IMPORT)
    ]
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {
        "python": [sys.executable, sys.version, sys.prefix],
        "flags": list(sys.flags),
        "path": [_package(part) for part in own_path()],
        "environ": {name: environ[name] for name in sorted(names)},
        "keras": _content(environ.get("KERAS_HOME") or os.path.join(home, ".keras"), "keras.json"),
        "limits": {name: list(resource.getrlimit(getattr(resource, name))) for name in limits},
        "user": [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *sorted(os.getgroups())],
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "user", "uts")},
        "processors": sorted(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "traced": [line for line in _content("/proc/self", "status").splitlines() if line.startswith("TracerPid")],
    }


def _content(folder: str, name: str) -> str:
    """Of Keras' settings those that Keras itself writes when there are none count as none."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            content = file.read()
    except OSError:
        return ""
    return "" if content == _KERAS_WRITES else content


_KERAS_WRITES = """{
    "floatx": "float32",
    "epsilon": 1e-07,
    "backend": "tensorflow",
    "image_data_format": "channels_last"
}"""


def _become_a_client(address: str) -> None:
    """Never returns where the warm process takes the start."""
    import json
    import signal
    import socket

    umask = os.umask(0)
    os.umask(umask)
    request = {
        "imports": imports(),
        "argv": sys.orig_argv,
        "environ": own_environment(),
        "path": own_path(),
        "folder": os.getcwd(),
        "umask": umask,
        "ignored": [int(one) for one in signal.valid_signals() if signal.getsignal(one) == signal.SIG_IGN],
        "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }
    content = json.dumps(request).encode()
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
        socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(content)
        answers = connection.makefile("rb")
        if not json.loads(answers.readline() or b"{}").get("warm"):
            connection.close()
            return
    except OSError:
        return
    for name in _FORWARDED:
        signal.signal(getattr(signal, name), lambda number, _frame: connection.send(bytes([number])))
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # they are the worker's alone: its end is to be seen on them
        os.dup2(nothing, descriptor)
    status = int(answers.readline() or -signal.SIGKILL)
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
    os._exit(status)


if sys.platform == "linux" and SOCKET in os.environ and tuple(sys.orig_argv[1:3]) == _MODULE:
    if "--one" not in sys.orig_argv:
        _become_a_client(os.environ[SOCKET])
