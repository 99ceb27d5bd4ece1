"""Git remotes: lists them, reads their refs, fetches and pushes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from expmgr.git.process import GitResult, call_git
from expmgr.git.repo import GitRepo
from expmgr.redact import redacted


def _asking() -> dict[str, str]:
    """A person at a terminal can be asked for a password."""
    return {"GIT_TERMINAL_PROMPT": "1"} if sys.stdin.isatty() and sys.stderr.isatty() else {}


def remote_names(repo: GitRepo) -> list[str]:
    """The names of all remotes."""
    return repo.run("remote").text.splitlines()


def upstream_remote(repo: GitRepo) -> str | None:
    """The remote that the branch which is checked out follows; None where it follows none."""
    branch = (repo.head_ref() or "").removeprefix("refs/heads/")
    return remote_followed(repo, branch) if branch else None


def remote_followed(repo: GitRepo, branch: str) -> str | None:
    """The remote that a branch of this clone follows; None where it follows none."""
    answer = repo.call("config", "--get", f"branch.{branch}.remote")
    name = answer.text.strip() if answer.status == 0 else ""
    return name if name and name != "." else None


def default_branch(repo: GitRepo, remote: str) -> str | None:
    """The branch that the remote's HEAD names, as far as this clone knows."""
    answer = repo.call("symbolic-ref", "--quiet", f"refs/remotes/{remote}/HEAD")
    return answer.text.strip().removeprefix(f"refs/remotes/{remote}/") if answer.status == 0 else None


def fetch_refs(repo: GitRepo, remote: str, refspecs: Sequence[str]) -> GitResult:
    """Fetch by `refspecs` alone: nothing that is configured is fetched too, and nothing is pruned."""
    options = ("--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-prune", "--refmap=")
    asked = "".join(f"{one}\n" for one in refspecs).encode("utf-8", "surrogateescape")  # thousands are no command line
    return repo.call("fetch", "--quiet", *options, "--stdin", "--end-of-options", remote, stdin=asked, env=_asking())


def refs_at(repo: GitRepo, remote: str, pattern: str) -> dict[str, str] | GitResult:
    """The refs of the remote that match `pattern`; what git said where it cannot be asked."""
    answer = call_git(
        repo.folder, ["ls-remote", "--quiet", "--refs", "--end-of-options", remote, pattern], env=_asking()
    )
    if answer.status:
        return answer
    lines = (line.split("\t", 1) for line in answer.text.splitlines())
    return {ref: oid for oid, ref in lines}


def push_refs(repo: GitRepo, remote: str, refspecs: Sequence[str]) -> tuple[dict[str, str], GitResult]:
    """Push by `refspecs`, as the user's own `git push` would, their hooks included: ref at the remote to flag (`=` as
    it was, `*` new, a space moved on, `!` refused), and what git said."""
    command = ("push", "--porcelain", "--no-follow-tags", "--end-of-options", remote, *refspecs)
    answer = repo.call(*command, env=_asking(), hooks=True)
    return {ref: flag for flag, ref, _ in _pushed(answer)}, answer


def reasons_in(answer: GitResult) -> dict[str, str]:
    """Ref at the remote that a push was refused, to git's reason: `hook declined`."""
    return {
        ref: redacted(summary.partition("(")[2].removesuffix(")") or summary)
        for flag, ref, summary in _pushed(answer)
        if flag == "!"
    }


def _pushed(answer: GitResult) -> Iterator[tuple[str, str, str]]:
    """Flag, ref at the remote and summary, as `push --porcelain` prints them."""
    for line in answer.text.splitlines():
        parts = line.split("\t", 2)
        if len(parts) == 3 and ":" in parts[1]:
            yield parts[0], parts[1].partition(":")[2], parts[2]
