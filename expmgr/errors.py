"""Every error that a user can meet, named for the fact, with its exit code.

Every error tells the story: what happened, both sides, what was left alone, and the next command to type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from expmgr.redact import redacted, redacted_values


class ExitCode(IntEnum):
    """What a command says to the shell. `docs/reference/exit-codes.md` is the table for users."""

    DONE = 0
    MISTAKE = 1
    USAGE = 2
    REFUSED = 3
    BUSY = 4
    NOT_COMPARABLE = 5
    BUG = 70
    DISK = 74
    STOPPED = 75
    INTERRUPTED = 130


#: Of several outcomes in one call, the first in this order is the command's exit code.
WORST_FIRST = (
    ExitCode.INTERRUPTED,
    ExitCode.BUG,
    ExitCode.DISK,
    ExitCode.STOPPED,
    ExitCode.REFUSED,
    ExitCode.NOT_COMPARABLE,
    ExitCode.BUSY,
    ExitCode.MISTAKE,
    ExitCode.USAGE,
    ExitCode.DONE,
)


def worst(codes: Sequence[int]) -> int:
    """The exit code that stands for several outcomes. A code that is not in the table counts as `BUG`."""
    known = {code if code in WORST_FIRST else ExitCode.BUG for code in codes}
    return next((int(code) for code in WORST_FIRST if code in known), int(ExitCode.DONE))


def did_you_mean(
    name: str, among: Iterable[str], otherwise: str | None = None, *, typed: Callable[[str], str] = str
) -> str | None:
    """The hint about a `name` that is not `among` those that there are: the nearest of them, as it is `typed`; `otherwise`
    if none is near."""
    import difflib  # only an error needs it

    near = difflib.get_close_matches(name, sorted(among), n=1, cutoff=0.6)
    return f"did you mean {typed(near[0])}?" if near else otherwise


def apart_from(done: Sequence[str], sentence: str) -> str:
    """The `sentence` on what was left alone, except what the command did before (`done`)."""
    if not done or not sentence.startswith("Nothing"):
        return sentence
    return f"Apart from {' and '.join(done)}, n{sentence[1:]}"


class ExpmgrError(Exception):
    """A story for the user: `message`, indented `details`, a sentence on what was `left_alone`, and a `hint`."""

    exit_code: ExitCode = ExitCode.MISTAKE

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        left_alone: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.left_alone = left_alone
        self.hint = hint

    def after(self, done: Sequence[str]) -> None:
        """Except what the command did before, and what stays (`done`), from the sentence on what was left alone."""
        if self.left_alone:
            self.left_alone = apart_from(done, self.left_alone)

    def __str__(self) -> str:
        """The whole story: what a traceback shows."""
        return "\n".join((redacted(self.message), *self.lines()[1:]))

    def lines(self) -> list[str]:
        """The story as it is printed, line by line."""
        lines = [f"Error: {self.message}", *(f"  {detail}" for detail in self.details)]
        if self.left_alone:
            lines.append(self.left_alone)
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        return [redacted(line) for line in lines]

    def as_dict(self) -> dict[str, Any]:
        """The story as data, for `--json` and for crossing from a worker to the command that started it."""
        story = {
            "error": type(self).__name__,
            "exit_code": int(self.exit_code),
            "message": self.message,
            "details": list(self.details),
            "left_alone": self.left_alone,
            "hint": self.hint,
        }
        return {key: redacted_values(value) for key, value in story.items()}


class Reported(ExpmgrError):
    """An error of a kind that is not known here, of which another process told (`reported`)."""

    name = ""

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "error": self.name}


def reported(story: Mapping[str, Any]) -> ExpmgrError:
    """The error that another process told of (`as_dict`): the same kind, words and exit code."""
    kind = next((one for one in _kinds(ExpmgrError) if one.__name__ == story["error"]), Reported)
    error = kind.__new__(kind)
    ExpmgrError.__init__(
        error, story["message"], details=story["details"], left_alone=story["left_alone"], hint=story["hint"]
    )
    error.exit_code = ExitCode(story["exit_code"])
    if isinstance(error, Reported):
        error.name = story["error"]
    return error


def _kinds(kind: type[ExpmgrError]) -> Iterator[type[ExpmgrError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _kinds(one)


class BadArgument(ExpmgrError):
    """What was given to a command or a method makes no sense; a command shows how it is used."""

    exit_code = ExitCode.USAGE


class NotARepository(ExpmgrError):
    """There is no git repository where the command was called."""


class NoCommitYet(ExpmgrError):
    """The repository has no commit, so a branch can come from nowhere."""


class GitFailed(ExpmgrError):
    """git itself said no. `details` holds its words."""


class CheckoutNotPutBack(ExpmgrError):
    """A command of git failed in the middle, and what it had written could not be taken back."""

    exit_code = ExitCode.DISK


class UnknownVariant(ExpmgrError):
    """No branch of that name."""


class UnknownCheckpoint(ExpmgrError):
    """No checkpoint of that step."""


class ProbeMoved(ExpmgrError):
    """A restored model is not the one that was saved, though no rule says so."""

    exit_code = ExitCode.REFUSED


class OutputProblem(ExpmgrError):
    """A file that was to be written is there already, or cannot be."""


class WarmStartProblem(ExpmgrError):
    """A warm start that was asked for cannot be."""


class EventProblem(ExpmgrError):
    """What stands in a log is no event that this version can read, or one that cannot be written."""


class UnknownEvent(ExpmgrError):
    """No event, or more than one, has an id that begins so."""


class LogRewritten(ExpmgrError):
    """A log at a remote is not a continuation of what was fetched of it before."""


class StoreProblem(ExpmgrError):
    """The store of checkpoints cannot be used, or does not hold what it should."""


class PieceDamaged(StoreProblem):
    """A piece of a checkpoint in the store is missing, or is not what was stored."""


class UnknownReview(ExpmgrError):
    """No review, or more than one, is called so."""


class ReviewProblem(ExpmgrError):
    """A review does not stand where the command needs it to."""


class MergeRefused(ExpmgrError):
    """A review may not be merged: `details` holds what is missing."""


class RemoteProblem(ExpmgrError):
    """A git remote did not do what was asked of it. `details` holds git's words."""


class UnknownRun(ExpmgrError):
    """No run, or more than one, answers to that name."""


class RecordDamaged(ExpmgrError):
    """The record of a run cannot be read, or differs from the one that the event log names (`reason`)."""

    def __init__(self, run_id: str, reason: str, hint: str | None, *, is_in_log: bool = False) -> None:
        super().__init__(f"the record of run {run_id} {reason}", left_alone="Nothing was changed.", hint=hint)
        self.reason = reason
        self.is_in_log = is_in_log


class NewerFormat(ExpmgrError):
    """A file that a newer expmgr wrote, in a format that this one does not read."""


class OnlyElsewhere(ExpmgrError):
    """What another clone's run left, and did not share."""


class UnknownMetric(ExpmgrError):
    """A metric that the model does not have."""


class BadName(ExpmgrError):
    """A name that the rule for experiments and variants does not allow."""


class BranchExists(ExpmgrError):
    """The branch of a new variant is there already, or git cannot hold it beside another."""


class SpecProblem(ExpmgrError):
    """A spec that cannot be read: bad YAML, an unknown key, a wrong type, values that contradict each other."""


class FileTooLarge(SpecProblem):
    """A file of a commit that is larger than any that expmgr reads: somebody pushed it by mistake, or on purpose."""


class DataProblem(ExpmgrError):
    """Data that does not fit its spec: a column, a value, a label, or no rows at all."""


class UncommittedChanges(ExpmgrError):
    """A run would not see what lies in the checkout, because it was not committed."""


class CheckoutFailed(ExpmgrError):
    """The run's own checkout could not be made whole."""


class EnvironmentProblem(ExpmgrError):
    """A Python environment that a run cannot happen in: not named, not there, or without what a worker needs."""


class NoTensorFlow(EnvironmentProblem, ImportError):
    """TensorFlow with Keras 3 is missing, or cannot be imported. An `ImportError`, as for any missing package."""


class RunFolderProblem(ExpmgrError):
    """The folder of a run, below `.git/expmgr`, cannot be made or written."""


class ModelDirProblem(ExpmgrError):
    """A model_dir that cannot be used: it belongs to another variant, or it cannot be written."""


class OwnerDamaged(ModelDirProblem):
    """`variant.json`, which says whose model_dir a folder is, cannot be read."""


class CheckpointRefused(ExpmgrError):
    """The guard: the checkpoint does not fit the model."""

    exit_code = ExitCode.REFUSED


class ManifestDamaged(CheckpointRefused):
    """The manifest of a model_dir cannot be read, or is missing while checkpoints are there."""


class CheckpointDamaged(CheckpointRefused):
    """Files of a checkpoint are missing, cut or changed."""


class Busy(ExpmgrError):
    """Another process holds it."""

    exit_code = ExitCode.BUSY


class TrainingFailed(ExpmgrError):
    """A run that began and could not go on."""


class UserCodeFailed(ExpmgrError):
    """Code of the experiment could not be imported, or raised. `details` hold its own lines of the traceback."""


class DiskFull(ExpmgrError):
    """No space left, or an input/output error."""

    exit_code = ExitCode.DISK


class FileProblem(ExpmgrError):
    """A file or folder that the system does not let us use: a right, or something else in its place."""


class Stopped(ExpmgrError):
    """A signal or a preemption ended the run; its checkpoint was saved."""

    exit_code = ExitCode.STOPPED


class OurBug(ExpmgrError):
    """Something that should not have happened, and not the user's doing."""

    exit_code = ExitCode.BUG
