"""Reviews beside what they are made of: `python benchmarks/reviews.py [1 10 50]`.

In a repository of 1,000 synthetic runs (ten seeds a variant) opens as many reviews, and times in a fresh process each, median
of five: `review show` and `review list`; held against `expmgr compare` of the same two variants and `git merge-tree` of the
same merge.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from index import REPEATS, repository, sealed


def timed(command: list[str], folder: Path, env: dict[str, str]) -> float:
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> None:
    counts = [int(one) for one in sys.argv[1:]] or [1, 10, 50]
    root = Path(tempfile.mkdtemp(prefix="expmgr-bench-"))
    env, folder = sealed(root), root / "repo"
    expmgr = [sys.executable, "-m", "expmgr"]
    repository(folder, 1_000, env)
    opened = 0
    for count in counts:
        for number in range(opened + 1, count + 1):
            question = ["review", "open", f"iris/v{number:04d}", "--against", "iris/v0000"]
            subprocess.run([*expmgr, *question], cwd=folder, env=env, capture_output=True, check=True)
        opened = max(opened, count)
        show = timed([*expmgr, "review", "show", "iris/v0001"], folder, env)
        listed = timed([*expmgr, "review", "list"], folder, env)
        compared = timed([*expmgr, "compare", "iris/v0000", "iris/v0001"], folder, env)
        merged = timed(["git", "merge-tree", "--write-tree", "main", "exp/iris/v0001"], folder, env)
        print(
            f"{opened} open reviews: show {show:.2f} s, list {listed:.2f} s; compare of the two variants {compared:.2f} s, "
            f"git merge-tree {merged:.3f} s; show is {show / compared:.2f} x compare"
        )
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
