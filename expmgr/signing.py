"""Whether what a log says was said by whom it names: git's own signatures, held against the team's allowed signers.

What signatures are worth, and the file of allowed signers, are read from the target branch, so that a variant's branch
cannot let anybody in. Each event is a commit on the one before, so a signature covers the event that carries it and all
before it in its log; an event counts as signed where such a signature, on an event that names the same person, is by that
very person. SSH keys are lines as `ssh-keygen` reads them (`ann@example.com ssh-ed25519 AAAA...`); an OpenPGP key is its
fingerprint: `ann@example.com openpgp 0123...`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from expmgr.gitrepo import GitRepo
from expmgr.log import OWN, Told
from expmgr.project import Project
from expmgr.settings import Settings, Signing, read_settings, shared_settings

#: A commit of a log holds its event, and what is beside it: whoever signs other files signs no event.
_OF_A_LOG = re.compile(r"[a-z][a-z_-]*\.json\Z")
_STRICTER: tuple[Signing, ...] = ("off", "warn", "require")
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
        self._openpgp: dict[str, list[str]] = {}
        for _, match in found:
            if match is not None:
                self._openpgp.setdefault(match[2].replace(" ", "").upper(), []).append(match[1])
        self.is_there = content is not None
        self.id = hashlib.sha256(content or b"").hexdigest()

    def verified(self, commit: str) -> str:
        """Who may sign with the key that `commit` was signed with, as the file has it: addresses, patterns, several with
        commas; empty where nobody may, or it was not signed."""
        with tempfile.NamedTemporaryFile("w", prefix="expmgr-signers-", encoding="utf-8") as file:
            file.write(self._ssh)
            file.flush()
            state, signer, key, primary = self._repo.signature(commit, Path(file.name))
        if key.startswith("SHA256:"):
            # git names one principal; a line may name several, and a key may stand in several lines.
            return ",".join(self._ssh_keys.get(key, [signer])) if state == "G" else ""
        if state in ("G", "U"):  # the fingerprint is what the team trusts, not the keyring of whoever looks
            return ",".join(self._openpgp.get(key.upper()) or self._openpgp.get(primary.upper()) or [])
        return ""


def is_among(mail: str, whose: str) -> bool:
    """Whether `mail` is one of those who may sign with a key: `whose` are addresses and patterns, with commas."""
    return any(fnmatchcase(mail.casefold(), one.strip().casefold()) for one in whose.split(",") if one.strip())


def _fingerprint(line: str) -> str | None:
    """The fingerprint of the SSH key in a line of allowed signers, as git names it; None where there is none."""
    for part in line.split()[1:]:
        with contextlib.suppress(binascii.Error, ValueError):
            if part.startswith("AAAA"):
                digest = hashlib.sha256(base64.b64decode(part, validate=True)).digest()
                return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    return None


@dataclass(frozen=True)
class Policy:
    """What signatures are worth: as the target branch says, and never less than the settings here ask for."""

    signing: Signing
    signers: Signers

    def counts(self, told: Told, signed: Mapping[str, str]) -> bool:
        """Whether what somebody says counts: all of it, unless signatures are required."""
        return self.signing != "require" or told.id in signed


def policy_at(project: Project, commit: str | None) -> Policy:
    """The policy where `commit` is the newest of the target branch."""
    shared = (
        shared_settings(lambda path: project.repo.read(commit, path), "the target branch") if commit else Settings()
    )
    signing = max(project.settings.signing, shared.signing, key=_STRICTER.index)
    content = project.repo.read(commit, shared.allowed_signers) if commit else None
    return Policy(signing, Signers(project.repo, content))


def policy_of(project: Project) -> Policy:
    """The policy of the branch that variants are merged into."""
    return policy_at(project, project.repo.commit_of(target_of(project)))


def target_of(project: Project) -> str:
    """The branch that variants are merged into, as git names it: what this machine's settings say, or those on the default
    branch; or that branch itself: the default one of the remote, main or master. HEAD where there is none of them.

    What the checkout says counts where there is no default branch alone: it may be anybody's variant.
    """
    machine = _branch(project, read_settings(None, project.layout.own).target)
    if machine is not None:
        return machine
    defaults = [found for one in project.repo.remotes() if (found := project.repo.default_branch(one))]
    for name in (*defaults, "main", "master"):
        ref = _branch(project, name)
        if ref is not None:
            shared = shared_settings(lambda path, at=ref: project.repo.read(at, path), ref)  # type: ignore[misc]
            return _branch(project, shared.target) or ref
    return _branch(project, project.settings.target) or "HEAD"


def _branch(project: Project, name: str | None) -> str | None:
    """The branch called so: of this clone, or of a remote."""
    refs = (f"refs/heads/{name}", *(f"refs/remotes/{one}/{name}" for one in project.repo.remotes())) if name else ()
    return next((ref for ref in refs if project.repo.commit_of(ref) is not None), None)


def signed(project: Project, told: Iterable[Told], policy: Policy) -> dict[str, str]:
    """Those events that the person whom they name has signed, or signed over later in the same log, by id: each with
    those who may sign with that key."""
    by_log: dict[str, list[Told]] = {}
    for one in told:
        if one.mail is not None:
            by_log.setdefault(one.ref, []).append(one)
    found: dict[str, str] = {}
    if policy.signers.is_there:
        for ref, events in by_log.items():
            found |= _signed_in(project, policy.signers, project.logs.whole(ref), events)
    return found


def _signed_in(project: Project, signers: Signers, whole: Sequence[Told], events: Sequence[Told]) -> dict[str, str]:
    mails = {one.mail for one in events}
    named = [one for one in reversed(whole) if one.mail in mails]
    flags = dict(zip((one.id for one in named), project.repo.are_signed([one.commit for one in named]), strict=True))
    found: dict[str, str] = {}
    for mail in mails:
        assert mail is not None
        first = min(one.place for one in events if one.mail == mail)
        for one in named:
            if one.mail != mail or one.place < first or not flags[one.id]:
                continue
            whose = _whose(project, signers, one.commit)
            if is_among(mail, whose):
                found |= {other.id: whose for other in events if other.mail == mail and other.place <= one.place}
                break
    return found


def _whose(project: Project, signers: Signers, commit: str) -> str:
    """`Signers.verified`, of a commit that is one of a log; found out once."""

    def made() -> str:
        is_of_a_log = all(_OF_A_LOG.match(one.path) for one in project.repo.tree(commit))
        return signers.verified(commit) if is_of_a_log else ""

    return project.records.index.signature(commit, signers.id, made)


def trusted(project: Project, told: Sequence[Told], policy: Policy | None = None) -> list[Told]:
    """Those of `told` that count, by what signatures are worth; those of this clone's own log do."""
    if not told:
        return []
    policy = policy or policy_of(project)
    known = signed(project, told, policy) if policy.signing == "require" else {}
    return [one for one in told if one.ref.startswith(OWN) or policy.counts(one, known)]


def taken_back(project: Project, told: Sequence[Told]) -> set[str]:
    """The ids of those of `told` that whoever said them took back, by what signatures are worth."""
    gone = project.logs.retracted(told)
    counted = {one.id for one in trusted(project, list(gone.values()))}
    return {key for key, one in gone.items() if one.id in counted}
