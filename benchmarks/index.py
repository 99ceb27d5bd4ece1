"""`expmgr list` and `expmgr compare` over many runs: `python benchmarks/index.py [100 1000 10000]`.

Makes repositories of synthetic records, ten seeds a variant, and times each command in a fresh process (median of five):
from nothing, from a warm index, and after one new run. What it is held against, in the same run, is a plain walk that
reads every `run.json` with the json module; and, where the environment names an interpreter that has them, the table that
others make of as many runs: EXPMGR_MLFLOW_PYTHON (`mlflow.search_runs`, SQLite), EXPMGR_GUILD_PYTHON (`guild compare`) and
EXPMGR_DVC_PYTHON (`dvc exp show`, up to 1,000 runs: beyond, its first table takes many minutes). What they keep of a run is a
number and a parameter or two.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SEEDS = 10
REPEATS = 5
WALK = """
import json, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    with open(os.path.join(sys.argv[1], name, "run.json"), "rb") as file:
        json.load(file)
"""
MLFLOW_FILL = """
import sys, time
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///" + sys.argv[1])
experiment = client.create_experiment("iris")
now = int(time.time() * 1000)
for number in range(int(sys.argv[2])):
    run = client.create_run(experiment).info.run_id
    params = [Param("units", str(number // 10)), Param("seed", str(number % 10))]
    client.log_batch(run, [Metric("accuracy", 0.9, now, 1000)], params)
"""
MLFLOW_SHOW = """
import sys, mlflow
mlflow.set_tracking_uri("sqlite:///" + sys.argv[1])
print(len(mlflow.search_runs(experiment_names=["iris"], max_results=100_000)))
"""
GUILD_FILL = """
import os, sys, time, uuid
from guild import opref, run
for number in range(int(sys.argv[2])):
    name = uuid.uuid4().hex
    one = run.Run(name, os.path.join(sys.argv[1], "runs", name))
    one.init_skel()
    one.write_opref(opref.OpRef("script", "", "", "", "train.py"))
    now = int(time.time() * 1e6)
    for key, value in (("flags", {"units": number}), ("started", now), ("stopped", now), ("exit_status", 0)):
        one.write_attr(key, value)
"""
MOST_OF_DVC = 1_000


def sealed(home: Path) -> dict[str, str]:
    """The environment of every process: no settings of the user's, this checkout's package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    names = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"}
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, **names, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": root}


def git(folder: Path, *args: str, env: dict[str, str], stdin: bytes | None = None) -> str:
    done = subprocess.run(["git", *args], cwd=folder, env=env, input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


def repository(folder: Path, runs: int, env: dict[str, str]) -> None:
    """A repository with a variant for every ten runs, made by one fast-import, and their records."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main", env=env)
    subprocess.run(
        [sys.executable, "-m", "expmgr", "init", "--example", "iris", "--commit"],
        cwd=folder,
        env=env,
        capture_output=True,
        check=True,
    )
    base = (folder / "experiments/iris/spec.yaml").read_text()
    head = git(folder, "rev-parse", "main", env=env)
    lines: list[bytes] = []
    variants = max(runs // SEEDS, 1)
    for number in range(variants):
        units = f"hidden_units: [{number % 40 + 4}, {number // 40 + 4}]"
        spec = base.replace("hidden_units: [10, 10]", units).encode()
        branch = f"iris/v{number:04d}"
        message = f"Units {number}\n\nExpmgr-Variant: {branch}\nExpmgr-From: main\n".encode()
        who = f"committer A <a@b> {1_700_000_000 + number} +0000"
        lines += [
            f"commit refs/heads/exp/{branch}\nmark :{number + 1}\n{who}\ndata {len(message)}\n".encode(),
            message,
            f"from {head}\nM 100644 inline experiments/iris/spec.yaml\ndata {len(spec)}\n".encode(),
            spec,
            b"\n",
        ]
    git(folder, "fast-import", "--quiet", env=env, stdin=b"".join(lines))
    tips = git(folder, "for-each-ref", "--format=%(refname:lstrip=3) %(objectname)", "refs/heads/exp", env=env)
    write_records(folder, dict(line.split() for line in tips.splitlines()), env)


def write_records(folder: Path, tips: dict[str, str], env: dict[str, str]) -> None:
    """The records, as a run of the first variant would leave them."""
    program = (
        "import sys; from expmgr.project import Project; from expmgr.variants.variants import all_variants, spec_of;"
        "from expmgr.variants.code_digest import code_digest; from pathlib import Path; import json;"
        "p = Project.open(Path('.')); found = all_variants(p.repo);"
        "print(json.dumps({str(v.name): [spec_of(p.repo, v).resolved(), code_digest(p.repo, found[0].commit, found[0].name)]"
        " for v in found}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, check=True)
    draw = random.Random(0)
    for place, (name, (spec, digest)) in enumerate(json.loads(done.stdout).items()):
        for seed in range(SEEDS):
            write_record(folder, name, seed, spec, digest, tips[name], 1_700_000_000.0 + 60 * place + seed, draw)


def write_record(
    folder: Path, name: str, seed: int, spec: dict[str, Any], digest: str, commit: str, at: float, draw: random.Random
) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
    run_id = f"{stamp}{seed:03d}-{draw.getrandbits(24):06x}"
    accuracy = 0.9 + 0.01 * draw.random()
    curve = [[step, math.exp(-step / 400) + 0.01 * draw.random()] for step in range(10, 1001, 10)]
    split = {"path": "iris.csv", "rows": 30, "sha256": "ba17684acc2c" * 5, "also_in_train": 0}
    attempt = {
        "number": 1, "status": "finished", "started_at": at, "ended_at": at + 2, "from_step": 0, "to_step": 1000, "train_s": 1.5,
        "max_steps": 1000, "launcher": {"pid": 1, "host": "h"}, "worker": {"pid": 2, "host": "h"},
    }  # fmt: skip
    record = {
        "format": 1, "run_id": run_id, "variant": name, "seed": seed, "commit": commit, "tree": commit, "code_digest": digest,
        "parent_run": None, "spec": spec, "status": "finished", "created_at": at, "host": "h", "user": "u",
        "model_dir": f"models/{name}",
        "attempts": [attempt], "data": {"train": split, "eval": split}, "parameters": 193,
        "environment": {"tensorflow": "2.21.0"},
        "step": 1000, "examples_seen": 100_000, "train_s": 1.5, "selected_step": 1000,
        "checkpoints": [{"step": 1000, "saved_at": at, "files": {"model.ckpt-1000.index": "a" * 64}}],
        "metrics": {"selected": {"eval": {"accuracy": accuracy, "loss": 1 - accuracy}}, "last": {"eval": {"accuracy": accuracy}}},
        "curves": {"train": {"loss": curve}},
    }  # fmt: skip
    path = folder / ".git/expmgr/runs" / run_id / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record, indent=1))


def timed(argv: list[str], folder: Path, env: dict[str, str], repeats: int = REPEATS) -> float:
    """Median seconds of a command in a fresh process."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, check=False)
        found.append(time.perf_counter() - began)
        if done.returncode:
            raise SystemExit(f"{argv} failed: {done.stderr.decode()[-2000:]}")
    return statistics.median(found)


def measure(count: int, home: Path) -> dict[str, float]:
    env = sealed(home)
    folder = home / f"runs-{count}"
    repository(folder, count, env)
    command = [sys.executable, "-m", "expmgr"]
    runs, index = folder / ".git/expmgr/runs", folder / ".git/expmgr/index.sqlite"
    variants = [f"iris/v{number:04d}" for number in range(min(10, count // SEEDS))]
    index.unlink(missing_ok=True)
    found = {"cold": timed([*command, "list"], folder, env, 1), "list": timed([*command, "list"], folder, env)}
    new = []
    spec = json.loads((next(runs.iterdir()) / "run.json").read_text())
    for number in range(REPEATS):
        name = spec["variant"]
        write_record(
            folder,
            name,
            100 + number,
            spec["spec"],
            spec["code_digest"],
            spec["commit"],
            1_800_000_000.0 + number,
            random.Random(),
        )
        new.append(timed([*command, "list"], folder, env, 1))
    found["one new"] = statistics.median(new)
    found["filtered"] = timed(
        [*command, "list", "--where", "accuracy>0.9", "--sort", "-accuracy", "--limit", "20"], folder, env
    )
    found["compare"] = timed([*command, "compare", *variants, "--baseline", variants[0]], folder, env)
    found["walk"] = timed([sys.executable, "-c", WALK, str(runs)], folder, env)
    found["help"] = timed([*command, "--help"], folder, env)
    return {**found, **others(count, home, env)}


def others(count: int, home: Path, env: dict[str, str]) -> dict[str, float]:
    """The tables of others over as many runs, each once from nothing and then warm."""
    found: dict[str, float] = {}
    plain = {name: value for name, value in env.items() if name != "PYTHONPATH"}
    if python := os.environ.get("EXPMGR_MLFLOW_PYTHON"):
        database = home / f"mlflow-{count}.db"
        subprocess.run(
            [python, "-c", MLFLOW_FILL, str(database), str(count)], env=plain, capture_output=True, check=True
        )
        found["mlflow"] = timed([python, "-c", MLFLOW_SHOW, str(database)], home, plain)
    if python := os.environ.get("EXPMGR_GUILD_PYTHON"):
        store = home / f"guild-{count}"
        subprocess.run([python, "-c", GUILD_FILL, str(store), str(count)], env=plain, capture_output=True, check=True)
        table = [str(Path(python).parent / "guild"), "compare", "--csv", "-"]
        settings = {**plain, "GUILD_HOME": str(store)}
        found["guild cold"] = timed(table, home, settings, 1)
        found["guild"] = timed(table, home, settings, 3)
    if (python := os.environ.get("EXPMGR_DVC_PYTHON")) and count <= MOST_OF_DVC:
        settings = {**plain, "PATH": f"{Path(python).parent}{os.pathsep}{plain['PATH']}"}
        folder = of_dvc(home / f"dvc-{count}", count, settings)
        found["dvc cold"] = timed(["dvc", "exp", "show", "--csv"], folder, settings, 1)
        found["dvc"] = timed(["dvc", "exp", "show", "--csv"], folder, settings, 3)
    return found


def of_dvc(folder: Path, count: int, env: dict[str, str]) -> Path:
    """A repository of DVC's with `count` experiments of one baseline, as `dvc exp save` leaves them."""
    folder.mkdir()
    git(folder, "init", "--quiet", env=env)
    subprocess.run(["dvc", "init", "--quiet"], cwd=folder, env=env, check=True, capture_output=True)
    (folder / "dvc.yaml").write_text("params:\n- params.yaml\nmetrics:\n- metrics.json\n")
    (folder / "params.yaml").write_text("units: 0\n")
    (folder / "metrics.json").write_text('{"accuracy": 0.5}\n')
    git(folder, "add", "--all", env=env)
    git(folder, "commit", "--quiet", "-m", "base", env=env)
    head = git(folder, "rev-parse", "HEAD", env=env)
    parts = []
    for number in range(count):
        files = {
            "params.yaml": f"units: {number}\n",
            "metrics.json": json.dumps({"accuracy": 0.5 + number / 1e6}) + "\n",
        }
        parts.append(
            f"commit refs/exps/{head[:2]}/{head[2:]}/exp-{number:05d}\ncommitter A <a@b> {1_700_000_000 + number} +0000\n"
        )
        parts.append(f"data 3\nexp\nfrom {head}\n")
        parts += [f"M 100644 inline {name}\ndata {len(text)}\n{text}\n" for name, text in files.items()]
    git(folder, "fast-import", "--quiet", env=env, stdin="".join(parts).encode())
    return folder


def main() -> None:
    counts = [int(one) for one in sys.argv[1:]] or [100, 1_000, 10_000]
    home = Path(tempfile.mkdtemp(prefix="expmgr-index-"))
    try:
        print("seconds, a fresh process each; walk: json.load of every run.json")
        for count in counts:
            found = measure(count, home)
            print(f"{count:6,} runs  " + "  ".join(f"{name} {value:.2f}" for name, value in found.items()), flush=True)
            ratios = {"one new / warm": found["one new"] / found["list"], "walk / warm": found["walk"] / found["list"]}
            ratios |= {
                f"{name} / warm": found[name] / found["list"] for name in ("mlflow", "guild", "dvc") if name in found
            }
            print("              " + "  ".join(f"{name} {value:.2f}" for name, value in ratios.items()), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
