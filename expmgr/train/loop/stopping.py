"""The flag that asks a run to stop, set by signals or when the worker dies."""

from __future__ import annotations

import os
import select
import signal
import threading
import time

from expmgr.errors import ExitCode

#: Seconds that a run has to save itself once it was asked to stop, where its spec does not say otherwise.
GRACE_SECS = 30.0


class StopFlag:
    """Set once, by SIGTERM. Who is still there `grace_secs` later ends without a word."""

    def __init__(self) -> None:
        self._is_set = threading.Event()
        self.grace_secs = GRACE_SECS

    def set(self) -> None:
        if not self._is_set.is_set():
            self._is_set.set()
            threading.Thread(target=self._limit, name="grace", daemon=True).start()

    def is_set(self) -> bool:
        return self._is_set.is_set()

    def _limit(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < self.grace_secs:  # the spec may be read after the signal
            time.sleep(0.1)
        os._exit(int(ExitCode.STOPPED))

    def listen(self) -> None:
        """Let SIGTERM set the flag, also while TensorFlow works and Python sees no signal. SIGINT goes to the command,
        which then asks by itself."""
        woken, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def follow() -> None:
            while True:
                if signal.SIGTERM in os.read(woken, 64):
                    self.set()

        threading.Thread(target=follow, name="signals", daemon=True).start()


def follow_lifeline(descriptor: int, flag: StopFlag) -> None:
    """Stop when the other end of the pipe `descriptor` is closed: the process that started us is gone."""

    def follow() -> None:
        select.select([descriptor], [], [])  # nothing is ever written: readable is the end
        flag.set()

    threading.Thread(target=follow, name="lifeline", daemon=True).start()
