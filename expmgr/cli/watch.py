"""The progress of runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from expmgr.cli import output
from expmgr.escape import clean
from expmgr.guard.rules import told
from expmgr.launch.local import Watcher
from expmgr.launch.plan import Outcome, Task
from expmgr.launch.prepare import Prepared
from expmgr.runs.events import Ready, RunEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S = 5.0


@contextlib.contextmanager
def watcher(tasks: Sequence[Task], *, quiet: bool) -> Iterator[Watcher]:
    """The watcher that suits stderr."""
    if quiet:
        yield Watcher()
    elif sys.stderr.isatty():
        from rich.console import Console

        with _bars(Console(stderr=True)) as progress:
            yield Bars(tasks, progress)
    else:
        yield Lines(tasks)


def _bars(console: Any) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:>6,.0f} of {task.total:,.0f}"),
        TextColumn("{task.fields[told]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


_MOST_NAMES = 12


def _warm_start(told: dict[str, Any] | None) -> Iterator[str]:
    """What was taken, left and newly initialised, with the numbers of parameters."""
    if not told:
        return
    counts = told["parameters"]
    taken = [one["to"] + (f" (grown from {tuple(one['shape'])})" if one["grown"] else "") for one in told["taken"]]
    yield f"weights of {told['variant']} seed {told['seed']} at step {told['step']}:"
    for word, names in (("taken", taken), ("left", told["left"]), ("fresh", told["fresh"])):
        shown = ", ".join(names[:_MOST_NAMES]) + (
            f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        )
        yield f"  {word}: {counts[word]:,} parameters in {len(names)} variables{f': {shown}' if shown else ''}"
    if told["optimizer"]:
        yield f"  and {len(told['optimizer'])} variables of the optimizer"


class _Teller(Watcher):
    """The lines that both forms have in common."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._numbers = {str(task): number for number, task in enumerate(tasks, 1)}

    def say(self, line: str) -> None:
        output.tell([line])

    def event(self, prepared: Prepared, event: RunEvent) -> None:
        task = prepared.task
        if isinstance(event, Ready):
            total = len(self._numbers)
            count = f"[{self._numbers[str(task)]}/{total}] " if total > 1 else ""
            step = event.from_step
            start = "starts" if step == 0 else f"resumes at step {step}"
            if event.adopted:
                start = f"takes the checkpoint of step {step}, which is evaluated"
            else:
                if step < task.max_steps:
                    start += f", to step {task.max_steps}"
                elif task.spec.eval.at_end:
                    start += ", where it is evaluated"
            self.say(f"{count}{task}: {start} (run {prepared.record.run_id})")
            before = prepared.before
            if before is not None and before.attempts[-1].max_steps > task.max_steps and not before.is_complete:
                self.say(
                    f"  it was asked for step {before.attempts[-1].max_steps} before: {before.command} goes on there"
                )
            for line in _warm_start(event.warm_start):
                self.say(f"  {line}")
            for change in event.changes:
                parts = (change[key] for key in ("rule", "what", "saved", "wanted"))
                self.say(f"  {told(*parts, allowed=change['allowed'])}")
            for key in event.unread:
                self.say(f"  Note: no code asked for {key}: is it misspelt?")
            for reason in event.not_exact:
                self.say(f"  not exact: {reason}")

    def ended(self, outcome: Outcome) -> None:
        record = outcome.record
        if outcome.complete:
            step = record.step if record else outcome.task.max_steps
            self.say(f"{outcome.task}: complete at step {step}, nothing to do")
            if record is not None and (early := record.attempts[-1].ended_early):
                self.say(f"  {early}; --from-step {record.step} trains on")
        elif record is not None:
            value = output.result(record, outcome.task.spec.compared)
            result = f", {value}" if value else ""
            self.say(f"{outcome.task}: {record.status} at step {record.step}{result}, {output.seconds(record.train_s)}")
            if early := record.attempts[-1].ended_early:
                self.say(f"  {early}")
        elif outcome.error is not None:
            self.say(f"{outcome.task}: not run")

    def stopping(self) -> None:
        self.say("stopping: each run finishes its step and saves (once more to kill)")


class Lines(_Teller):
    """A line now and then, for logs and pipes."""

    def __init__(self, tasks: Sequence[Task], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(tasks)
        self._clock = clock
        self._last: dict[str, float] = {}

    def progress(self, prepared: Prepared, progress: dict[str, Any]) -> None:
        run_id = prepared.record.run_id
        now = self._clock()
        if now - self._last.setdefault(run_id, now) >= _LINE_EVERY_S:
            self._last[run_id] = now
            left = time_left(progress)
            told = f"{told_of(progress)}{f', {left} left' if left else ''}"
            self.say(f"{prepared.task}: step {progress['step']:,} of {progress['max_steps']:,}{told}")


class Bars(_Teller):
    """A bar for each run that goes on."""

    def __init__(self, tasks: Sequence[Task], progress: Progress) -> None:
        super().__init__(tasks)
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def say(self, line: str) -> None:
        self._progress.console.print(clean(line), markup=False, highlight=False, soft_wrap=True)

    def started(self, prepared: Prepared) -> None:
        bar = self._progress.add_task(str(prepared.task), total=prepared.task.max_steps, told="starting TensorFlow")
        self._bars[str(prepared.task)] = bar

    def progress(self, prepared: Prepared, progress: dict[str, Any]) -> None:
        told = told_of(progress).removeprefix(", ") or str(progress.get("phase", ""))
        self._progress.update(self._bars[str(prepared.task)], completed=progress["step"], told=told)

    def ended(self, outcome: Outcome) -> None:
        bar = self._bars.pop(str(outcome.task), None)
        if bar is not None:
            self._progress.remove_task(bar)
        super().ended(outcome)


def told_of(progress: dict[str, Any]) -> str:
    """Loss, metric, speed and the next checkpoint as far as they are known, each after a comma."""
    told = ""
    if progress.get("loss") is not None:
        told += f", loss {progress['loss']:.4g}"
    for name, value in (progress.get("metric") or {}).items():
        told += f", {name} {value:.4g}"
    rate = progress.get("steps_per_s")
    if rate is not None:
        told += f", {rate:,.0f} steps/s" if rate >= 10 else f", {rate:.2g} steps/s"
    saved = _until_checkpoint(progress)
    return f"{told}, checkpoint in {saved}" if saved else told


def _until_checkpoint(progress: dict[str, Any]) -> str:
    """The time to the next checkpoint, by the clock or by the steps, whichever comes first."""
    told, rate = progress.get("checkpoint_in"), progress.get("steps_per_s")
    if not told or progress.get("phase") != "training":
        return ""
    times = [told["secs"], told["steps"] / rate if rate else None]
    known = [one for one in times if one is not None]
    return output.seconds(min(known)) if known else ""


def time_left(progress: dict[str, Any]) -> str:
    """The time to the last step at this speed; empty where that is not known."""
    rate = progress.get("steps_per_s")
    return output.seconds((progress["max_steps"] - progress["step"]) / rate) if rate else ""
