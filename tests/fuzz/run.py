"""Fuzzes every target with atheris, each for an equal share of the time: `make fuzz`.

    python tests/fuzz/run.py [--seconds 600] [--seed N] [TARGET...]
    python tests/fuzz/run.py --repeat TARGET FILE

Inputs that broke a target are in `.fuzz/crashes/`, which git ignores, with the command that repeats each.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from fuzz.seeds import Real
    from fuzz.targets import Target

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS)]

from world import sealed  # noqa: E402

FOUND = ROOT / ".fuzz"
#: libFuzzer's own bounds; `Target.run` has tighter ones.
TIMEOUT_S, MOST_MB, MOST_BYTES = 60, 4000, 100_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big") & 0x7FFFFFFF)
    parser.add_argument("--repeat", nargs=2, metavar=("TARGET", "FILE"))
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="expmgr-fuzz-") as home:
        folder = _prepared(Path(home))
        if given.repeat:
            return _repeat(given.repeat[0], Path(given.repeat[1]), folder)
        return _fuzz_all(folder, given.targets, given.seed, given.seconds)


def _prepared(home: Path) -> Path:
    """The folder of the real files, made in a sealed world."""
    environ = sealed(home, os.environ)
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Ann\n\temail = ann@example.com\n[init]\n\tdefaultBranch = main\n"
    )
    os.environ.clear()
    os.environ.update(environ, PYTHONPATH=os.pathsep.join((str(ROOT), str(TESTS))), PYTHONHASHSEED="0")
    folder = home / "real"
    folder.mkdir()
    # In a process of its own: what is imported here before atheris instruments it stays as it is.
    make = f"from pathlib import Path; from fuzz.seeds import make; make(Path({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", make], check=True)
    return folder


def _fuzz_all(folder: Path, names: list[str], seed: int, seconds: float) -> int:
    import atheris

    with atheris.instrument_imports(include=["expmgr", "ruamel.yaml"]):
        from fuzz import seeds
        from fuzz.targets import TARGETS
    real = seeds.real(folder)
    names = names or list(TARGETS)
    share = seconds / len(names)
    crashes = FOUND / "crashes"
    crashes.mkdir(parents=True, exist_ok=True)
    print(f"{len(names)} targets, {share:.0f} s each, seed {seed}: make fuzz FUZZ_SEED={seed}", flush=True)
    broken = []
    for name in names:
        corpus = FOUND / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(real.files[name]):
            (corpus / f"seed-{number}").write_bytes(content)
        before, log = set(crashes.iterdir()), FOUND / f"{name}.log"
        child = os.fork()  # libFuzzer ends its process; the instrumented modules are imported once
        if child == 0:
            _fuzz(TARGETS[name], real, log, seed, share)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = log.read_text("utf-8", "replace")
        counts = re.findall(r"^#(\d+)|number_of_executed_units: (\d+)", text, re.MULTILINE)
        most = max((int(one or other) for one, other in counts), default=0)
        print(f"{name:12} {most:>9,} executions, {'clean' if status == 0 else 'BROKEN'}", flush=True)
        if status:
            broken.append(name)
            print("\n".join(text.splitlines()[-40:]))
            repeat = f"{os.path.relpath(sys.executable)} {os.path.relpath(__file__)} --repeat {name}"
            for path in sorted(set(crashes.iterdir()) - before):
                print(f"repeat: {repeat} {os.path.relpath(path)}", flush=True)
    return 1 if broken else 0


def _fuzz(target: Target, real: Real, log: Path, seed: int, seconds: float) -> NoReturn:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    from fuzz.hostile import mutated

    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def one(content: bytes) -> None:
        target.run(content, real)

    def another(content: bytes, most: int, number: int) -> bytes:
        rnd = random.Random(number)
        if rnd.random() < 0.3:
            return atheris.Mutate(content, most)
        return mutated(rnd, target.form, [content] if rnd.random() < 0.8 else real.files[target.name])[:most]

    options = (f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", f"-timeout={TIMEOUT_S}",
               f"-rss_limit_mb={MOST_MB}", f"-max_len={MOST_BYTES}", f"-artifact_prefix={FOUND}/crashes/{target.name}-",
               "-print_final_stats=1")  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(FOUND / "corpus" / target.name)], one, custom_mutator=another)
    atheris.Fuzz()
    os._exit(1)


def _repeat(name: str, path: Path, folder: Path) -> int:
    from fuzz import seeds
    from fuzz.targets import TARGETS

    accepted = TARGETS[name].run(path.read_bytes(), seeds.real(folder))
    print(f"{path} is {'accepted' if accepted else 'refused'} as documented")
    return 0


if __name__ == "__main__":
    sys.exit(main())
