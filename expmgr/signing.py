"""Whether what a log says was said by whom it names: git's own signatures, held against the team's allowed signers.

The file of allowed signers is read from the target branch, so that a variant's branch cannot let anybody in. Each event is
a commit on the one before, so a signature covers the event that carries it and all before it in its log; an event counts
as signed where such a signature is by the very person that it names. SSH keys are lines as `ssh-keygen` reads them
(`ann@example.com ssh-ed25519 AAAA...`); an OpenPGP key is its fingerprint: `ann@example.com openpgp 0123...`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from expmgr.gitrepo import GitRepo
from expmgr.log import Told
from expmgr.project import Project

#: Signatures that are looked at for one person in one log before its events are called claims.
_TRIES = 8
_OPENPGP = re.compile(r"\s*(\S+)\s+openpgp\s+([0-9A-Fa-f ]{16,})\s*\Z")


class Signers:
    """Who may sign for whom. Without a file of them nobody does."""

    def __init__(self, repo: GitRepo, content: bytes | None) -> None:
        self._repo = repo
        lines = (content or b"").decode("utf-8", "replace").splitlines()
        found = [(line, _OPENPGP.match(line)) for line in lines]
        self._ssh = "".join(f"{line}\n" for line, match in found if match is None)
        self._ssh_keys: dict[str, list[str]] = {}
        for line, match in found:
            if match is None and (fingerprint := _fingerprint(line)):
                self._ssh_keys.setdefault(fingerprint, []).append(line.split()[0])
        self._openpgp = {
            match[2].replace(" ", "").upper(): mail for _, match in found if match for mail in match[1].split(",")
        }
        self._known: dict[str, str | None] = {}
        """Commit to whom its signer is, as the file has it: addresses, patterns, several with commas."""
        self.is_there = content is not None

    def has_signed(self, mail: str, commit: str) -> bool:
        """Whether `commit` was signed with a key of the person whose address is `mail`."""
        if commit not in self._known:
            self._known[commit] = self._verified(commit)
        patterns = (self._known[commit] or "").split(",")
        return any(fnmatchcase(mail, one.strip()) for one in patterns if one.strip())

    def _verified(self, commit: str) -> str | None:
        with tempfile.NamedTemporaryFile("w", prefix="expmgr-signers-", encoding="utf-8") as file:
            file.write(self._ssh)
            file.flush()
            state, signer, key, primary = self._repo.signature(commit, Path(file.name))
        if key.startswith("SHA256:"):
            # git names one principal; a line may name several, and a key may stand in several lines.
            return ",".join(self._ssh_keys.get(key, [signer])) if state == "G" else None
        if state in ("G", "U"):  # the fingerprint is what the team trusts, not the keyring of whoever looks
            return self._openpgp.get(key.upper()) or self._openpgp.get(primary.upper())
        return None


def _fingerprint(line: str) -> str | None:
    """The fingerprint of the SSH key in a line of allowed signers, as git names it; None where there is none."""
    for part in line.split()[1:]:
        with contextlib.suppress(binascii.Error, ValueError):
            if part.startswith("AAAA"):
                digest = hashlib.sha256(base64.b64decode(part, validate=True)).digest()
                return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    return None


def target_of(project: Project) -> str:
    """The branch that variants are merged into, as git names it: the setting, the default branch of the remote, main or
    master; HEAD where there is none of them."""
    repo = project.repo
    remotes = repo.remotes()
    defaults = [found for one in remotes if (found := repo.default_branch(one))]
    for name in (project.settings.target, *defaults, "main", "master"):
        for ref in (f"refs/heads/{name}", *(f"refs/remotes/{one}/{name}" for one in remotes)) if name else ():
            if repo.commit_of(ref) is not None:
                return ref
    return "HEAD"


def signers_of(project: Project) -> Signers:
    """The allowed signers, as the target branch has them."""
    commit = project.repo.commit_of(target_of(project))
    content = project.repo.read(commit, project.settings.allowed_signers) if commit else None
    return Signers(project.repo, content)


def signed(project: Project, told: Iterable[Told], signers: Signers | None = None) -> set[str]:
    """The ids of those events that the person whom they name has signed, or signed over later in the same log."""
    signers = signers or signers_of(project)
    by_log: dict[str, list[Told]] = {}
    for one in told:
        by_log.setdefault(one.ref, []).append(one)
    refs = project.logs.refs()
    found: set[str] = set()
    for ref, events in by_log.items():
        if signers.is_there and ref in refs:
            found |= _signed_in(project.repo, signers, refs[ref], events)
    return found


def _signed_in(repo: GitRepo, signers: Signers, tip: str, events: Sequence[Told]) -> set[str]:
    chain = repo.chain(tip)
    place = {commit: number for number, commit in enumerate(chain)}
    carried = [commit for commit, has in zip(chain, repo.are_signed(chain), strict=True) if has]
    found: set[str] = set()
    for mail in {one.event.actor.email for one in events if one.event.actor is not None}:
        first = min(place.get(one.commit, len(chain)) for one in events if _mail(one) == mail)
        tried = [commit for commit in reversed(carried) if place[commit] >= first][:_TRIES]
        last = next((place[commit] for commit in tried if signers.has_signed(mail, commit)), -1)
        found |= {one.id for one in events if _mail(one) == mail and place.get(one.commit, len(chain)) <= last}
    return found


def _mail(told: Told) -> str | None:
    return told.event.actor.email if told.event.actor is not None else None
