"""`make mutants`: plants mutants in copies of the project, runs the tests that reach them, and says which survive.

Needs cosmic-ray (the operators) and coverage (which test reaches which line); the rest of the environment is the tests'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from coverage import CoverageData
from known import known
from lines import statement_lines
from places import Mutant, named, sample
from verdict import NOT_TRIED, verdict

ROOT = Path(__file__).parents[2]
FOLDERS = ["guard", "checkpoints", "disk", "log", "comparison", "git", "store", "team", "reviews"]
GOAL = 0.9
EVERYDAY = "not slow and not wide and not estimators and not nightly"
CI = "(slow or wide) and not alone and not estimators and not nightly"
FIRST_S = 15
"""Seconds of tests that a mutant meets first, the nearest and fastest; the rest of them only if it survives these."""


@dataclass(frozen=True)
class Reached:
    """Which tests reach a line, and how long each takes."""

    seconds: dict[str, float]
    tests: dict[str, dict[int, list[str]]]
    """By file and line."""
    unseen: set[str]
    """Tests of which coverage saw no line; they are run with every mutant of their folder."""

    def of(self, one: Mutant, source: str) -> list[str]:
        """The tests that reach the statement of `one`: those of its own folder first, and the fast before the slow."""
        by_line = self.tests.get(one.file, {})
        found = {test for line in statement_lines(source, one.line) for test in by_line.get(line, ())}
        folder = f"tests/{one.file.split('/')[1]}/"
        found |= {test for test in self.unseen if test.startswith(folder)}
        return sorted(
            found & self.seconds.keys(), key=lambda test: (not test.startswith(folder), self.seconds[test], test)
        )


class Copy:
    """A copy of the project in which tests run."""

    def __init__(self, path: Path) -> None:
        self.path = path / "project"
        self._scratch = path / "scratch"
        self._stamp = time.time() - 1_000_000
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for name in listed.decode().split("\0")[:-1]:
            if (ROOT / name).is_file():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.path / name)

    @contextmanager
    def with_mutant(self, one: Mutant) -> Iterator[None]:
        path = self.path / one.file
        before = path.read_text(encoding="utf-8")
        self._write(path, one.code)
        try:
            yield
        finally:
            self._write(path, before)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._stamp += 10  # Python takes a compiled file for current that has the source's second and size
        os.utime(path, (self._stamp, self._stamp))

    def pytest(
        self, *args: str, limit_s: float, environ: dict[str, str] | None = None
    ) -> tuple[int | None, list[str], str]:
        """Exit code (None: out of time), what each phase of a test said (`mapping.py`), and the output."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        outcomes = self._scratch / "outcomes"
        outcomes.touch()
        mark = f"{os.getpid()}-{self.path}."
        command = [sys.executable, "-m", "pytest", "-q", "-p", "mapping", "-p", "no:cacheprovider", *args]
        with open(self._scratch / "output", "w+b") as output:
            process = subprocess.Popen(
                [*command, "--basetemp", str(self._scratch / "pytest")], cwd=self.path, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
                env={
                    **os.environ, **(environ or {}), "PYTHONPATH": str(self.path), "MUTANTS_OUTCOMES": str(outcomes),
                    "MUTANTS_MARK": mark,
                },
            )  # fmt: skip
            code: int | None
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _end_all(mark)
            output.seek(0)
            said = output.read().decode("utf-8", "replace")
        return code, outcomes.read_text(encoding="utf-8").splitlines(), said


def _end_all(mark: str) -> None:
    """End what our tests run, also what has a session of its own: it has a mark in its environment that begins so."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"\0MUTANTS_MARK={mark}".encode() in b"\0" + path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def reached(copy: Copy, marks: str, jobs: int, cache: Path, files: list[str]) -> Reached:
    """Run the tests once with coverage; a test file that has not changed is not run again."""
    root = copy.path
    known_files = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    tests = sorted(str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py"))
    tests = [name for name in tests if not files or name.startswith(tuple(files))]
    others = [
        root / "tests" / "mutants" / name for name in ("known.py", "lines.py", "places.py", "run.py", "verdict.py")
    ]
    helpers = [path for path in (root / "tests").rglob("*.py") if not path.name.startswith("test_")]
    world = _digest(root, (path for path in helpers if path not in others))
    ours = world + _digest(root, (root / "expmgr").rglob("*.py")) + marks
    keys = {name: ours + _digest(root, [root / name]) for name in tests}
    new = [name for name in tests if known_files.get(name, {}).get("key") != keys[name]]
    if new:
        print(f"which tests reach which lines: {len(new)} test files", flush=True)
        found = _measured(copy, marks, jobs, new)
        known_files |= {name: {"key": keys[name], **found[name]} for name in new}
        cache.parent.mkdir(exist_ok=True)
        cache.write_text(json.dumps(known_files), encoding="utf-8")
    seconds: dict[str, float] = {}
    lines: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in tests:
        seconds |= known_files[name]["seconds"]
        for test, by_file in known_files[name]["lines"].items():
            for file, numbers in by_file.items():
                for number in numbers:
                    lines[file][number].append(test)
    seen = {test for name in tests for test in known_files[name]["lines"]}
    return Reached(seconds, lines, seconds.keys() - seen)


def _digest(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def _measured(copy: Copy, marks: str, jobs: int, tests: list[str]) -> dict[str, dict[str, dict[str, object]]]:
    """By test file: seconds of each test that passes, and the lines that it reaches."""
    with tempfile.TemporaryDirectory() as folder:
        settings, data = Path(folder, "coveragerc"), Path(folder, "data")
        included = ", ".join(f"{copy.path}/expmgr/{name}/*" for name in FOLDERS)
        settings.write_text(
            f"[run]\nplugins = mapping\npatch = _exit, fork\nparallel = true\ndata_file = {data}\ninclude = {included}\n"
        )
        code, outcomes, said = copy.pytest(
            "-n", str(jobs), "--dist", "worksteal", "-m", marks, *tests,
            limit_s=6000, environ={"COVERAGE_PROCESS_START": str(settings)},
        )  # fmt: skip
        if code not in (0, 1, 5):
            raise SystemExit(f"{said}\nthe tests did not run")
        combined = CoverageData(f"{data}-combined")
        for path in Path(folder).glob("data.*"):
            part = CoverageData(str(path))
            with suppress(Exception):  # of a process that was killed while it wrote
                part.read()
                combined.update(part)
        found: dict[str, dict[str, dict[str, object]]] = {name: {"seconds": {}, "lines": {}} for name in tests}
        times: dict[str, float] = defaultdict(float)
        failed = set()
        for line in outcomes:
            duration, outcome, test = line.split(" ", 2)
            times[test] += float(duration)
            failed |= {test} if outcome == "failed" else set()
        for test, seconds in times.items():
            if test not in failed:
                found[test.partition("::")[0]]["seconds"][test] = round(seconds, 3)
        print("".join(f"not used, since it fails while it is measured: {test}\n" for test in sorted(failed)), end="")
        for file in combined.measured_files():
            name = str(Path(file).relative_to(copy.path))
            for number, those in combined.contexts_by_lineno(file).items():
                for test in those:
                    if (part_of := found.get(test.partition("::")[0])) is not None:
                        part_of["lines"].setdefault(test, {}).setdefault(name, []).append(number)  # type: ignore[attr-defined]
    return found


def killer(copy: Copy, one: Mutant, tests: list[str], seconds: dict[str, float], show: bool = False) -> str | None:
    """The test that fails with the mutant, or in what other way it is noticed; None if it survives."""
    sums = accumulate(seconds[test] for test in tests)
    first = 1 + sum(spent <= FIRST_S for spent in sums)
    with copy.with_mutant(one):
        for part in (tests[:first], tests[first:]):
            if not part:
                continue
            chosen = copy.path.parent / "chosen"
            chosen.write_text("\n".join(part), encoding="utf-8")
            limit_s = 120 + 8 * sum(seconds[test] for test in part)
            code, outcomes, said = copy.pytest("-x", f"@{chosen}", limit_s=limit_s)
            if show:
                print(said)
            if code != 0:
                break
        else:
            return None
    return verdict(code, outcomes, lambda: copy.pytest("--collect-only", f"@{chosen}", limit_s=600)[0] == 0)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return _main()
    finally:
        _end_all(f"{os.getpid()}-")


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default=str(int.from_bytes(os.urandom(3), "big")))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=80, help="after these no further mutant is begun")
    parser.add_argument("--folders", nargs="*", default=FOLDERS)
    parser.add_argument("--mutant", nargs="*", help="FILE:OPERATOR:NUMBER, as a survivor is named: these only")
    parser.add_argument("--tests", nargs="*", default=[], help="only test files whose path starts so")
    parser.add_argument("--no-ci", action="store_true", help="survivors do not meet the tests that run only in CI")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(asked.jobs):
            copies.put(Copy(Path(folder, str(number))))
        first = copies.queue[0]
        everyday = reached(first, EVERYDAY, asked.jobs, ROOT / ".mutants" / "everyday.json", asked.tests)
        print(f"{time.monotonic() - began:.0f} s", flush=True)

        def tried(one: Mutant, by: Reached, without: frozenset[str] = frozenset(), show: bool = False) -> str | None:
            copy = copies.get()
            try:
                tests = [
                    test
                    for test in by.of(one, (copy.path / one.file).read_text(encoding="utf-8"))
                    if test not in without
                ]
                found = killer(copy, one, tests, by.seconds, show)
            finally:
                copies.put(copy)
            print(f"{found or f'survived {len(tests)} tests'}: {_told(one)}", flush=True)
            return found

        if asked.mutant:
            these = [named(first.path, name) for name in asked.mutant]
            answers = [tried(one, everyday, show=len(these) == 1) for one in these]
            return int(None in answers or NOT_TRIED in answers)

        print(f"make mutants MUTANT_SEED={asked.seed} MUTANTS={asked.count}", flush=True)
        picked = sample(first.path, asked.folders, asked.count, asked.seed)
        equivalent = set(known())
        chosen = [one for one in picked if one.known not in equivalent]
        deadline = began + 60 * asked.minutes

        def in_time(one: Mutant) -> str | None:
            return tried(one, everyday) if time.monotonic() < deadline else NOT_TRIED

        with ThreadPoolExecutor(asked.jobs) as pool, _dropping(pool):
            found = zip(chosen, pool.map(in_time, chosen), strict=True)
            answers = {one: test for one, test in found if test != NOT_TRIED}
            wrong = _failing_anyway(first, {test for test in answers.values() if test and "::" in test})
            again = [one for one, test in answers.items() if test in wrong]
            answers |= dict(zip(again, pool.map(lambda one: tried(one, everyday, wrong), again), strict=True))
            answers = {one: test for one, test in answers.items() if test != NOT_TRIED}
            left = [one for one, test in answers.items() if test is None]
            in_ci: dict[Mutant, str | None] = {}
            if left and not asked.no_ci and time.monotonic() < deadline:
                ci = reached(first, CI, asked.jobs, ROOT / ".mutants" / "ci.json", asked.tests)
                found = zip(left, pool.map(lambda one: tried(one, ci), left), strict=True)
                in_ci = {one: test for one, test in found if test != NOT_TRIED}
    same = [one for one in picked if one.known in equivalent]
    return _report(answers, in_ci, same, len(chosen) - len(answers), time.monotonic() - began)


@contextmanager
def _dropping(pool: ThreadPoolExecutor) -> Iterator[None]:
    """After an error or a signal, nothing more is begun, and what runs is ended."""
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _end_all(f"{os.getpid()}-")
        raise


def _failing_anyway(copy: Copy, tests: set[str]) -> frozenset[str]:
    """Of the tests that failed with a mutant, those that fail without one as well."""
    if not tests:
        return frozenset()
    chosen = copy.path.parent / "chosen"
    chosen.write_text("\n".join(sorted(tests)), encoding="utf-8")
    _, outcomes, _ = copy.pytest(f"@{chosen}", limit_s=6000)
    failing = frozenset(line.split(" ", 2)[2] for line in outcomes if line.split(" ", 2)[1] == "failed")
    print("".join(f"not used, since it fails without a mutant: {test}\n" for test in sorted(failing)), end="")
    return failing


def _told(one: Mutant) -> str:
    return f"{one.name} line {one.line}: {one.known.line} => {one.known.becomes}"


def _report(
    answers: dict[Mutant, str | None], in_ci: dict[Mutant, str | None], same: list[Mutant], untried: int, wall_s: float
) -> int:
    """Print the table and the survivors; 1 if fewer than `GOAL` of the mutants that change something are killed."""
    print(f"\n{'folder':<12}{'mutants':>9}{'everyday':>10}{'and CI':>8}{'survived':>10}{'equivalent':>12}")
    share = 0.0
    for name in [*sorted({one.file.split("/")[1] for one in answers}), "all"]:
        these = [one for one in answers if name in ("all", one.file.split("/")[1])]
        killed = sum(answers[one] is not None for one in these)
        also = killed + sum(in_ci.get(one) is not None for one in these)
        equal = sum(name in ("all", one.file.split("/")[1]) for one in same)
        share = also / max(1, len(these))
        print(
            f"{name:<12}{len(these):>9}{killed / max(1, len(these)):>10.1%}{share:>8.1%}{len(these) - also:>10}{equal:>12}"
        )
    if untried:
        print(f"{untried} of the sample were not tried: the time was over, or pytest did not run")
    for one in [one for one, test in answers.items() if test is None and in_ci.get(one) is None]:
        print(f"\n{one.file}:{one.line} {one.known.function}   make mutants MUTANT={one.name}")
        print("".join(f"- {line}\n" for line in one.known.line.splitlines()), end="")
        print("".join(f"+ {line}\n" for line in one.known.becomes.splitlines()), end="")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{wall_s:.0f} s, of processors {used.ru_utime + used.ru_stime:.0f} s")
    return int(share < GOAL)


if __name__ == "__main__":
    sys.exit(main())
