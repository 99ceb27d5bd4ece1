"""The program `expmgr`, also `python -m expmgr`: starts importing TensorFlow early if a command needs it."""

from __future__ import annotations

import gc
import sys

from expmgr.cli.streams import prepare_streams

#: Commands that ask or train a model, whatever their arguments say.
_WITH_A_MODEL = frozenset({"run", "evaluate", "predict", "export"})
#: Words with which they do not, or not in this process.
_WITHOUT = frozenset({"--help", "--detach"})


def entry() -> None:
    """Do what was typed. Importing TensorFlow takes longest of all, so that begins before anything else is imported."""
    gc.set_threshold(100_000, 50, 50)  # a command is short: what it makes is rarely garbage before it ends
    prepare_streams()
    command, *rest = sys.argv[1:] or [""]
    is_early = command in _WITH_A_MODEL and bool(rest) and not _WITHOUT.intersection(rest)
    try:
        code = _done(is_early)
    except KeyboardInterrupt:  # while modules were imported: behind that, it is told by whom it concerns
        print("Error: interrupted", file=sys.stderr)
        code = 130
    gc.freeze()  # or the interpreter, as it ends, looks for garbage among all that was imported: a tenth of a short command
    sys.exit(code)


def _done(is_early: bool) -> int:
    if not is_early:
        from expmgr.cli.main import main

        return main()
    from expmgr.launch import worker

    worker.start_early()
    try:
        from expmgr.cli.main import main

        return main()
    finally:
        worker.close_early()


if __name__ == "__main__":
    entry()
