"""What git writes for `expmgr new` in a repository of 20,000 files, beside the two calls that it cannot do without."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from expmgr.git.commits import write_commit
from expmgr.git.repo import CommitId, GitRepo
from expmgr.paths import VariantName

FILES, FOLDERS, REPEAT = 20_000, 200, 31


def repository(folder: Path) -> GitRepo:
    """20,000 small files in 200 folders, and an experiment, in one commit."""
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    for number in range(FILES):
        path = folder / f"part{number % FOLDERS}" / f"file{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number}\n", encoding="ascii")
    spec = folder / "experiments" / "iris" / "spec.yaml"
    spec.parent.mkdir(parents=True)
    spec.write_text("experiment: iris\n", encoding="ascii")
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", "first"], cwd=folder, check=True)
    return GitRepo.discover(folder)


def main() -> None:
    for role in ("AUTHOR", "COMMITTER"):
        os.environ.setdefault(f"GIT_{role}_NAME", "a")
        os.environ.setdefault(f"GIT_{role}_EMAIL", "a@example.com")
    with tempfile.TemporaryDirectory() as name:
        repo = repository(Path(name))
        head, tree = repo.head(), repo.tree_id("HEAD")
        _spec, folders = repo.read_with_folders(head, VariantName("iris", "v").spec_path)
        ours: list[float] = []
        plumbing: list[float] = []
        for number in range(REPEAT):
            start = time.perf_counter()
            variant = VariantName("iris", f"v{number}")
            commit = write_commit(repo, head, {variant.spec_path: f"{number}\n".encode()}, "a variant", folders)
            repo.create_branch(variant.ref, commit, "expmgr: new")
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            plain = CommitId(repo.run("commit-tree", tree, "-p", head, "-m", f"{number}").text.strip())
            repo.run("update-ref", f"refs/heads/plain{number}", plain, "0" * len(plain))
            plumbing.append(time.perf_counter() - start)
        one, two = statistics.median(ours), statistics.median(plumbing)
        print(f"{FILES:,} files, median of {REPEAT}, Python {sys.version.split()[0]}")
        print(f"a variant's commit and branch   {one * 1000:6.1f} ms")
        print(f"git commit-tree, git update-ref {two * 1000:6.1f} ms")
        print(f"ratio                           {one / two:6.2f}")


if __name__ == "__main__":
    main()
