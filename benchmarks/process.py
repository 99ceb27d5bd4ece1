"""The whole of a small training, from the start of the process to the last checkpoint, imports included: `expmgr run`
on iris with 2,000 steps, beside the same by TensorFlow 2.15's Estimator (`EXPMGR_ESTIMATOR_PYTHON` names an interpreter
that has it)."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPEAT = 7
STEPS = 2000


def until_saved(argv: Sequence[str], is_saved: Callable[[], bool], cwd: Path, environ: dict[str, str]) -> float:
    """Seconds from the start of `argv` to the moment when `is_saved`."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=cwd, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not is_saved():
        assert process.poll() in (None, 0), "it failed"
        time.sleep(0.005)
    took = time.perf_counter() - began
    process.wait()
    return took


def main() -> None:
    interpreter = os.environ.get("EXPMGR_ESTIMATOR_PYTHON")
    with tempfile.TemporaryDirectory() as name:
        repo, estimator = Path(name, "repo"), Path(name, "estimator")
        repo.mkdir()
        identity = {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environ = {**os.environ, **identity, "HOME": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        expmgr = (sys.executable, "-m", "expmgr")
        for argv in (
            ("git", "init", "--quiet", "."),
            (*expmgr, "init", "--example", "iris", "--commit"),
            (*expmgr, "new", "iris/baseline", "--set", f"train.max_steps={STEPS}"),
        ):
            subprocess.run(argv, cwd=repo, env=environ, check=True, capture_output=True)
        model_dir = repo / "models/iris/baseline/seed-0"

        def ours() -> float:
            shutil.rmtree(model_dir, ignore_errors=True)
            marker = f'"step": {STEPS},'
            manifest = model_dir / "manifest.json"
            run = (*expmgr, "run", "iris/baseline", "--fresh")
            return until_saved(run, lambda: manifest.exists() and marker in manifest.read_text(), repo, environ)

        def theirs() -> float:
            shutil.rmtree(estimator, ignore_errors=True)
            script = (str(ROOT / "benchmarks/estimator.py"), str(ROOT / "experiments/iris"), "--once", str(estimator))
            index = estimator / f"model.ckpt-{STEPS}.index"
            return until_saved((str(interpreter), *script), index.exists, repo, environ)

        ways = {"expmgr run": ours, **({"Estimator": theirs} if interpreter else {})}
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(REPEAT + 1):
            for way, measure in ways.items():
                found = measure()
                if number:
                    taken[way].append(found)
    found = {way: statistics.median(values) for way, values in taken.items()}
    print(
        f"iris [10, 10], {STEPS} steps, start to last checkpoint, median of {REPEAT} interleaved, {os.cpu_count()} cores"
    )
    for way, value in found.items():
        ratio = "" if way == "expmgr run" else f"   expmgr {value / found['expmgr run']:5.2f} x as fast"
        print(f"  {way:10} {value:6.2f} s{ratio}")


if __name__ == "__main__":
    main()
