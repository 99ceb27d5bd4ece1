"""Code of the experiment: found at the run's own commit, called, and its errors told in the user's own lines."""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expmgr.errors import ExpmgrError, UserCodeFailed

_MOST_LINES = 12


class UserCode:
    """The modules that a spec names, of the run's own checkout: the experiment's folder first, then the repository."""

    def __init__(self, experiment_dir: Path, root: Path) -> None:
        self._root = root
        self._folders = [experiment_dir, root, root / "src"]

    def find(self, reference: str, key: str) -> Any:
        """What `module:name` means. `key` is the place in the spec that says it, for errors."""
        for folder in reversed([str(one) for one in self._folders if one.is_dir()]):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        module_name, _, name = reference.partition(":")
        with self.errors(f"{key}: {reference} cannot be imported"):
            module = importlib.import_module(module_name)
        found = getattr(module, name, None)
        if found is None:
            there = ", ".join(one for one in vars(module) if not one.startswith("_"))
            raise UserCodeFailed(
                f"{key}: module {module_name} has no {name}",
                left_alone="Nothing was changed.",
                hint=f"it has {there}" if there else None,
            )
        return found

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Whatever the code raises as `UserCodeFailed`: `what`, and the traceback as far as it is the user's."""
        try:
            yield
        except ExpmgrError:
            raise
        except Exception as error:
            traceback.print_exc()  # the whole of it goes to the log
            raise UserCodeFailed(what, details=self._lines(error)) from error

    def _lines(self, error: BaseException) -> list[str]:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(self._root)]
        lines = []
        for frame in own[-_MOST_LINES // 2 :]:
            lines.append(f"{Path(frame.filename).relative_to(self._root)}:{frame.lineno}, in {frame.name}")
            if frame.line:
                lines.append(f"    {frame.line}")
        first = next(iter(str(error).splitlines()), "")
        return [*lines, f"{type(error).__name__}: {first}" if first else type(error).__name__]
