"""A real S3 server on loopback, and a wire to it that can be cut."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """The port of moto's server, which speaks S3."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5):
                break
            assert process.poll() is None, "the S3 server did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def make_bucket(port: int, name: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


class Wire:
    """Passes bytes on to `port`. `cut_after` bytes from client to server, or from server to client, the wire is dead; or
    each of the first `cuts` connections is, one after the other."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent = 0
        """Bytes towards the server."""
        self.received = 0
        self.cut_after: int | None = None
        """Bytes in both directions after which nothing passes any more."""
        self.cuts = 0
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.cut_after is not None and self.sent + self.received >= self.cut_after:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._to))
            most = 30_000 if self.cuts > 0 else None
            for one, other, is_up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(one, other, is_up, most), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, is_up: bool, most: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while block := one.recv(16_384):
                is_dead = self.cut_after is not None and self.sent + self.received >= self.cut_after
                if is_dead or (most is not None and passed > most and self.cuts > 0):
                    self.cuts -= 1
                    break
                other.sendall(block)
                passed += len(block)
                if is_up:
                    self.sent += len(block)
                else:
                    self.received += len(block)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
