"""The warm process of a test session: it imports TensorFlow once and forks a worker a request (see sitecustomize.py).

`python server.py DESCRIPTOR TRAINER`, with this folder on PYTHONPATH; the descriptor is a listening socket. It ends when
stdin does. Each request, and why a worker had to start cold, is a line on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
import types
from typing import Any, NoReturn

import sitecustomize

_GIVEN = set(globals())  # what Python gives to every __main__
_IMPORTS = json.loads(json.dumps(sitecustomize.imports()))


class Server:
    """Forks workers, and speaks for each with the client that stands in its place."""

    def __init__(self, listening: socket.socket, trainer: str) -> None:
        self._listening = listening
        self._trainer = trainer
        self._clients: dict[int, socket.socket] = {}
        """By the worker's process id."""
        self._is_imported = False
        self._set_by_import: dict[str, str] = {}
        """Variables of the environment that the imports left behind."""
        self._woken, self._waker = os.pipe()
        for descriptor in (self._woken, self._waker):
            os.set_blocking(descriptor, False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        while True:
            sources = [0, self._woken, self._listening, *self._clients.values()]
            readable, _, _ = select.select(sources, [], [])
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            self._reap()
            for pid, client in list(self._clients.items()):
                if client in readable:
                    self._pass_on(pid, client)
            if self._listening in readable:
                connection, _ = self._listening.accept()
                try:
                    self._answer(connection)
                except OSError:  # its client was killed
                    connection.close()
            if 0 in readable:  # the session is over
                for pid in self._clients:
                    _kill_all_of(pid)
                return

    def _reap(self) -> None:
        for pid in list(self._clients):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with self._clients.pop(pid) as client, contextlib.suppress(OSError):
                    client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _pass_on(self, pid: int, client: socket.socket) -> None:
        """Signals that the client was sent. A client that is gone was killed, with all that is in its group."""
        try:
            numbers = client.recv(64)
        except OSError:
            numbers = b""
        for number in numbers:
            os.kill(pid, number)
        if not numbers and pid in self._clients:
            _kill_all_of(pid)
            os.waitpid(pid, 0)
            self._clients.pop(pid).close()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        head, files, _, _ = socket.recv_fds(connection, 8, 3)
        try:
            content = b""
            while len(head) < 8 or len(content) < int.from_bytes(head, "big"):
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError("its client was killed")
                content += part
            self._start(connection, json.loads(content), files)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def _start(self, connection: socket.socket, request: dict[str, Any], files: list[int]) -> None:
        wrong = [f"{name}: {why}" for name, why in _differences(request["imports"], _IMPORTS)]
        if self._trainer != _trainer_of(request["argv"]):
            wrong.append("trainer")
        if not wrong and not self._is_imported:
            wrong += self._import()
        print(json.dumps({"argv": request["argv"], "cold": wrong}), flush=True)
        if wrong:
            connection.sendall(b'{"warm": false}\n')
            connection.close()
            return
        connection.settimeout(None)
        if select.select([connection], [], [], 0)[0]:  # it is gone already: killed while we imported
            connection.close()
            return
        connection.sendall(b'{"warm": true}\n')
        pid = os.fork()
        if pid == 0:
            self._become(request, files, connection)
        self._clients[pid] = connection

    def _import(self) -> list[str]:
        """Import what a worker imports; the reason where that fails."""
        before = dict(os.environ)
        try:
            # Under another name, so that the worker's `-m` finds its own module not imported, as in a new process.
            runpy.run_module("expmgr.train.worker", run_name="warm")["import_tensorflow"](self._trainer)
        except Exception as error:
            return [repr(error)]
        self._is_imported = True
        self._set_by_import = {name: value for name, value in os.environ.items() if before.get(name) != value}
        return []

    def _become(self, request: dict[str, Any], files: list[int], connection: socket.socket) -> NoReturn:
        """After the fork: a new process that has just imported TensorFlow."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            _set_signals(request["ignored"], request["blocked"])
            for number, descriptor in enumerate(files):
                os.dup2(descriptor, number)
            for descriptor in (*files, self._woken, self._waker):
                os.close(descriptor)
            for one in (self._listening, connection, *self._clients.values()):
                one.close()
            os.umask(request["umask"])
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environ"])
            os.environ.update(self._set_by_import)
            time.tzset()
            sys.orig_argv[:] = request["argv"]
            sys.argv[:] = ["-m", *request["argv"][3:]]
            sys.path[:] = [request["folder"], *request["path"]]
            tempfile.tempdir = None
            del sys.modules["sitecustomize"]
            if numpy := sys.modules.get("numpy"):
                numpy.random.seed()  # type: ignore[attr-defined]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            if "__annotations__" in _GIVEN:
                main.__annotations__ = {}
            runpy._run_module_as_main("expmgr.train.worker")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def _differences(asked: dict[str, Any], ours: dict[str, Any]) -> list[tuple[str, str]]:
    differing = [name for name in ours if asked[name] != ours[name]]
    return [one for name in differing for one in _named(name, asked[name], ours[name])]


def _named(name: str, asked: Any, ours: Any) -> list[tuple[str, str]]:
    if isinstance(ours, dict):
        keys = sorted(asked.keys() | ours.keys())
        return [(key, f"{asked.get(key)} != {ours.get(key)}") for key in keys if asked.get(key) != ours.get(key)]
    return [(name, f"{asked} != {ours}")]


def _set_signals(ignored: list[int], blocked: list[int]) -> None:
    """As Python finds and sets them when it starts with these."""
    for number in signal.valid_signals():
        is_ignored = signal.getsignal(number) == signal.SIG_IGN
        if number in ignored and not is_ignored:
            signal.signal(number, signal.SIG_IGN)
        elif is_ignored and number not in ignored:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _trainer_of(argv: list[str]) -> str:
    return argv[argv.index("--trainer") + 1] if "--trainer" in argv else "keras"


def _kill_all_of(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    Server(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]).serve()
    os._exit(0)  # TensorFlow takes a while to tidy up
