"""Verifies signatures of events against the allowed signers on the target branch.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from expmgr.git.repo import GitRepo
from expmgr.log.logs import Told
from expmgr.log.refs import OWN
from expmgr.project import Project
from expmgr.settings import Settings, Signing
from expmgr.team.target_branch import newest, settings_at, target_of

#: A commit of a log holds its event, and what is beside it: whoever signs other files signs no event.
_OF_A_LOG = re.compile(r"[a-z][a-z_-]*\.json\Z")
#: Commits that are asked for a signature by one process.
_AT_ONCE = 32
_STRICTER: tuple[Signing, ...] = ("off", "warn", "require")
_TYPE = re.compile(r"(ssh|ecdsa|sk)-")
_FINGERPRINT = re.compile(r"[0-9A-F]{16,}\Z")
#: The signers of ten thousand people; what is behind is not read.
_MOST_BYTES = 1_000_000


class Signers:
    """Who may sign for whom. Without a file of them nobody does."""

    def __init__(self, repo: GitRepo, content: bytes | None) -> None:
        self._repo = repo
        lines = (content or b"")[:_MOST_BYTES].decode("utf-8", "replace").splitlines()
        found = [(line, _openpgp(line)) for line in lines if not line.lstrip().startswith("#")]
        self._ssh = "".join(f"{line}\n" for line, match in found if match is None)
        self._ssh_keys: dict[str, list[str]] = {}
        by_key: dict[str, list[str]] = {}
        for line, match in found:
            if match is None and (fingerprint := _fingerprint(line)):
                by_key.setdefault(fingerprint, []).append(line.split()[0])
                if _TYPE.match(line.split()[1]):  # with options before it, ssh-keygen's answer is what counts
                    self._ssh_keys.setdefault(fingerprint, []).append(line.split()[0])
        self._openpgp: dict[str, list[str]] = {}
        for _, match in found:
            if match is not None:
                address, fingerprint = match
                self._openpgp.setdefault(fingerprint, []).append(address)
        self.is_there = content is not None
        self.persons = _persons([*by_key.values(), *self._openpgp.values()])
        """Address to the one that stands for the person, where lines or keys name several."""
        self._seen: dict[str, str] = {}
        self._flags: dict[str, bool] = {}
        self.id = hashlib.sha256(content or b"").hexdigest()

    def are_signed(self, commits: Sequence[str]) -> list[bool]:
        """Whether each commit carries a signature, good or bad."""
        asked = [one for one in dict.fromkeys(commits) if one not in self._flags]
        self._flags |= dict(zip(asked, self._repo.are_signed(asked), strict=True))
        return [self._flags[one] for one in commits]

    def whose(self, commit: str, cache: Callable[[str, str, Callable[[], str | None]], str | None]) -> str:
        """Who may sign with the key that `commit` was signed with, as the file has it: a line of addresses and patterns
        with commas for each line of the key; empty where nobody may, or it was not signed.

        `cache` keeps good signatures by SSH keys: they follow from commit and file. What hangs on this machine (a keyring,
        a program that fails) is found out by each process.
        """
        if commit not in self._seen:
            self._seen[commit] = cache(commit, self.id, lambda: self._verified(commit) or None) or self._of_openpgp(
                commit
            )
        return self._seen[commit]

    def _verified(self, commit: str) -> str:
        with tempfile.NamedTemporaryFile("w", prefix="expmgr-signers-", encoding="utf-8") as file:
            file.write(self._ssh)
            file.flush()
            state, signer, key, _ = self._repo.signature(commit, Path(file.name))
        if key.startswith("SHA256:"):
            # git names one principal; a line may name several, and a key may stand in several lines.
            return "\n".join(self._ssh_keys.get(key, [signer])) if state == "G" else ""
        return ""

    def _of_openpgp(self, commit: str) -> str:
        state, _, key, primary = self._repo.signature(commit, Path("/dev/null")) if self._openpgp else ("N", "", "", "")
        if state in ("G", "U"):  # the fingerprint is what the team trusts, not the keyring of whoever looks
            return "\n".join(self._openpgp.get(key.upper()) or self._openpgp.get(primary.upper()) or [])
        return ""


def _openpgp(line: str) -> tuple[str, str] | None:
    """Address and fingerprint of a line `ADDRESS openpgp FINGERPRINT`, which may have spaces in it; None for another line."""
    words = line.split()
    fingerprint = "".join(words[2:]).upper()
    is_key = len(words) > 2 and words[1] == "openpgp" and _FINGERPRINT.match(fingerprint)
    return (words[0], fingerprint) if is_key else None


def _persons(keys: Iterable[Sequence[str]]) -> dict[str, str]:
    """Addresses that one key, or one line of it, names are one person: each to the first of them. Patterns name nobody."""
    above: dict[str, str] = {}

    def first(mail: str) -> str:
        while above[mail] != mail:
            above[mail] = mail = above[above[mail]]
        return mail

    for lines in keys:
        mails = [one.strip().casefold() for line in lines for one in line.split(",")]
        plain = [one for one in mails if one and not set("*?[!") & set(one)]
        for mail in plain:
            above.setdefault(mail, mail)
        names = {first(mail) for mail in plain}
        above |= dict.fromkeys(names, min(names, default=""))
    return {mail: first(mail) for mail in list(above)}


def is_among(mail: str, whose: str) -> bool:
    """Whether `mail` is one of those who may sign with a key: `whose` has a line of addresses and patterns with commas for
    each line of the key; one with `!` before it takes away from its line."""
    for line in whose.split("\n"):
        patterns = [one.strip().casefold() for one in line.split(",") if one.strip()]
        taken = any(fnmatchcase(mail.casefold(), one[1:]) for one in patterns if one.startswith("!"))
        if not taken and any(fnmatchcase(mail.casefold(), one) for one in patterns if not one.startswith("!")):
            return True
    return False


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
    allowed_signers: str
    """The file that the signers stand in, on that branch."""

    def counts(self, told: Told, signed: Mapping[str, str]) -> bool:
        """Whether what somebody says counts: all of it, unless signatures are required."""
        return self.signing != "require" or told.id in signed


def policy_at(project: Project, commit: str | None) -> Policy:
    """The policy where `commit` is the newest of the target branch."""
    shared = settings_at(project, commit, "the target branch") if commit else Settings()
    signing = max(project.settings.signing, shared.signing, key=_STRICTER.index)
    content = project.repo.read(commit, shared.allowed_signers) if commit else None
    return Policy(signing, Signers(project.repo, content), shared.allowed_signers)


def policy_of(project: Project) -> Policy:
    """The policy of the branch that variants are merged into, as it is known to be at the team's remote."""
    return policy_at(project, newest(project, target_of(project)))


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
    found: dict[str, str] = {}
    for mail in {one.mail for one in events}:
        asked = [one for one in events if one.mail == mail]
        first = min(one.place for one in asked)
        for one in _carrying(signers, whole, mail, first):
            whose = _whose(project, signers, one.commit)
            if is_among(mail or "", whose):
                found |= {other.id: whose for other in asked if other.place <= one.place}
                break
    return found


def _carrying(signers: Signers, whole: Sequence[Told], mail: str | None, first: int) -> Iterator[Told]:
    """The events of a log, the newest first and none before the place `first`, that name the person and carry a signature.
    The newest mostly does, so few are looked at."""
    named = (one for one in reversed(whole) if one.place >= first and one.mail == mail)
    while some := list(islice(named, _AT_ONCE)):
        flags = signers.are_signed([one.commit for one in some])
        yield from (one for one, is_signed in zip(some, flags, strict=True) if is_signed)


def _whose(project: Project, signers: Signers, commit: str) -> str:
    """`Signers.whose`, of a commit that is one of a log."""
    whose = signers.whose(commit, project.records.index.signature)
    return whose if whose and all(_OF_A_LOG.match(one.path) for one in project.repo.tree(commit)) else ""


def trusted(project: Project, told: Sequence[Told], policy: Policy | None = None) -> list[Told]:
    """Those of `told` that count, by what signatures are worth; those of this clone's own log do."""
    if not told:
        return []
    policy = policy or policy_of(project)
    known = signed(project, told, policy) if policy.signing == "require" else {}
    return [one for one in told if one.ref.startswith(OWN) or policy.counts(one, known)]


def unheard(project: Project) -> str | None:
    """Why what this clone said last counts for nobody else, where signatures are asked for; None where it does."""
    policy = policy_of(project)
    own = [one for ref in project.logs.refs() if ref.startswith(OWN) for one in project.logs.whole(ref)]
    last = max(own, key=lambda one: (one.time, one.place), default=None)
    if policy.signing == "off" or last is None or last.id in signed(project, [last], policy):
        return None
    who = last.mail or "nobody"
    return f"no key that may sign for {who} has signed it: the allowed signers on {target_of(project)} say whose key is whose"


def taken_back(project: Project, told: Sequence[Told]) -> set[str]:
    """The ids of those of `told` that whoever said them took back, by what signatures are worth."""
    gone = project.logs.retracted(told)
    counted = {one.id for one in trusted(project, list(gone.values()))}
    return {key for key, one in gone.items() if one.id in counted}
