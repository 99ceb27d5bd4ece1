"""Saves a large model in a thread, from a copy, while training continues.

A checkpoint counts as ever: all its files on the disk, then its line in the manifest. One is written at a time, and
whoever needs it to count (the next save, the end, a stop) waits for it. Small models are written at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from expmgr.checkpoints.model_dir import Aside, ModelDir
from expmgr.train.model import checkpoints

#: From this size on, writing takes so much longer than a copy that another thread is worth it.
BESIDE_BYTES = 8_000_000


class Saver:
    """Writes checkpoints of `model` into `folder`, one at a time. `pipeline` says where the training data stands."""

    def __init__(self, model: Any, folder: ModelDir, pipeline: Callable[[], bytes | None]) -> None:
        self._model = model
        self._pipeline = pipeline
        self._folder = folder
        self._is_large = checkpoints.size_bytes(model) >= BESIDE_BYTES
        self._thread: threading.Thread | None = None
        self._aside: Aside | None = None
        self._error: Exception | None = None
        self._take_in: Callable[[Aside], None] | None = None

    def begin(self, step: int, take_in: Callable[[Aside], None]) -> None:
        """Save the state as it is now, of `step`. `take_in` is called with its files: now, or by `look` or `settle`."""
        self.settle()
        place = self._pipeline()
        if not self._is_large:
            take_in(self._folder.write_aside(step, lambda prefix: checkpoints.write(self._model, step, prefix, place)))
            return
        state = checkpoints.copies(self._model)
        self._take_in = take_in

        def write() -> None:
            try:
                self._aside = self._folder.write_aside(
                    step, lambda prefix: checkpoints.write_values(state, step, prefix, place)
                )
            except Exception as error:  # told by whoever settles
                self._error = error

        self._thread = threading.Thread(target=write, name="saving")
        self._thread.start()

    def look(self) -> None:
        """Let what was written in the meantime count."""
        if self._thread is not None and not self._thread.is_alive():
            self.settle()

    def settle(self) -> None:
        """Wait for what is being written, and let it count; raises what went wrong with it."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        aside, error, take_in = self._aside, self._error, self._take_in
        self._aside = self._error = self._take_in = None
        if error is not None:
            raise error
        assert aside is not None
        assert take_in is not None
        take_in(aside)
