"""GitPython's process runner, without the rest of GitPython."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from git.cmd import Git
    from git.exc import GitCommandNotFound


def git_runner() -> tuple[type[Git], type[GitCommandNotFound]]:
    """What starts a git process, and what it raises where there is no git.

    `import git` imports an object database, an index and remotes as well, and starts `git version` twice. That takes longer
    than all that `expmgr list` asks git, so only the module that is needed is imported.
    """
    if "git" not in sys.modules:
        with contextlib.suppress(ImportError), _empty_package("git"):  # another GitPython may need its package
            from git.cmd import Git
            from git.exc import GitCommandNotFound

            return Git, GitCommandNotFound
    from git.cmd import Git
    from git.exc import GitCommandNotFound

    return Git, GitCommandNotFound


@contextlib.contextmanager
def _empty_package(name: str) -> Iterator[None]:
    """Modules of the package can be imported without its `__init__`. Afterwards they are forgotten: whoever imports the package
    later in this process, as a user's script may, gets the whole of it."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(name)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for one in list(sys.modules):  # a list at once: another thread may be importing
            if one.partition(".")[0] == name:
                sys.modules.pop(one, None)
