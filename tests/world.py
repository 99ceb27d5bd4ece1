"""The sealed world of the tests: real git in a folder of its own, and nothing of the person who runs them."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATE = "2026-01-02T03:04:05+00:00"


def sealed(home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without the person's git, colours and places; dates and names fixed, so that commit ids are stable."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("GIT_", "EXPMGR_"))}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_AUTHOR_DATE": DATE,
        "GIT_COMMITTER_DATE": DATE,
        "GIT_EDITOR": "false",
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


@dataclass(frozen=True)
class Result:
    """What a command said."""

    code: int
    stdout: str
    stderr: str


class Repo:
    """A git repository, and what a user types in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *args: str, folder: Path | None = None) -> str:
        """stdout of `git <args>`; fails the test where git does."""
        done = subprocess.run(["git", *args], cwd=folder or self.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    def write(self, path: str, text: str | bytes) -> Path:
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode() if isinstance(text, str) else text)
        return target

    def read(self, path: str) -> str:
        return (self.path / path).read_text(encoding="utf-8")

    def commit(self, message: str = "a commit") -> str:
        """Commit everything that lies in the folder; the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def expmgr(self, *argv: str, folder: Path | None = None) -> Result:
        """The command, in this process."""
        import contextlib
        import io

        from expmgr.cli.main import main

        before = Path.cwd()
        out, err = io.StringIO(), io.StringIO()
        os.chdir(folder or self.path)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(list(argv))
        finally:
            os.chdir(before)
        return Result(code, out.getvalue(), err.getvalue())

    def expmgr_process(self, *argv: str, folder: Path | None = None, env: Mapping[str, str] | None = None) -> Result:
        """The command, in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "expmgr", *argv],
            cwd=folder or self.path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(env or {})},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def digest(self, *roots: Path | str, stamps: bool = False, skip_git: bool = False) -> dict[str, tuple[object, ...]]:
        """Every file below `roots`: type, mode and content; with `stamps` also inode and time of the last change."""
        found: dict[str, tuple[object, ...]] = {}
        for root in roots or (self.path,):
            for folder, names, files in os.walk(self.path / root):
                if skip_git and ".git" in names:
                    names.remove(".git")
                for name in [*names, *(one for one in files if not one.startswith("index.sqlite"))]:  # a cache
                    path = Path(folder, name)
                    found[str(path)] = _fingerprint(path, stamps)
        return found

    def snapshot(self) -> dict[str, object]:
        """All that a refusal has to leave alone: files, index, refs, stash, configuration, models, records."""
        return {
            "files": self.digest(skip_git=True),
            "index": (self.path / ".git" / "index").read_bytes() if (self.path / ".git" / "index").exists() else None,
            "head": (self.path / ".git" / "HEAD").read_text(),
            "refs": self.git("for-each-ref"),
            "stash": self.git("stash", "list"),
            "config": (self.path / ".git" / "config").read_bytes(),
            "exclude": self.digest(".git/info"),
            "expmgr": self.digest(".git/expmgr"),
        }


def _fingerprint(path: Path, stamps: bool) -> tuple[object, ...]:
    status = path.lstat()
    what: tuple[object, ...]
    if path.is_symlink():
        what = ("link", os.readlink(path))
    elif path.is_dir():
        return ("folder", stat.S_IMODE(status.st_mode))
    else:
        what = ("file", stat.S_IMODE(status.st_mode), hashlib.sha256(path.read_bytes()).hexdigest())
    return (*what, status.st_ino, status.st_mtime_ns) if stamps else what


def new_repo(path: Path) -> Repo:
    """A repository without a commit."""
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "--quiet", "--initial-branch=main")
    return repo
