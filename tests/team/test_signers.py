"""Who may sign, as a file of allowed signers says: its lines, keys, patterns and persons."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from expmgr.git.repo import GitRepo
from expmgr.team.publish import _plain
from expmgr.team.verify_signatures import Signers, _fingerprint, _persons, is_among
from world import Repo

KEY = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519" + b"k" * 40).decode()
OTHER = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519" + b"o" * 40).decode()


@pytest.mark.parametrize(
    ("mail", "whose", "answer"),
    [
        ("ann@x.org", "ann@x.org", True), ("Ann@X.org", "ann@x.ORG", True), ("ann@x.org", "bob@x.org", False),
        ("ann@x.org", "bob@x.org, ann@x.org", True), ("ann@x.org", "*@x.org", True), ("ann@x.org", "?nn@x.org", True),
        ("ann@x.org", "*@x.org,!ann@x.org", False), ("bob@x.org", "*@x.org,!ann@x.org", True),
        ("ann@x.org", "!ann@x.org,*@x.org\nann@x.org", True), ("ann@x.org", "!bob@x.org", False),
        ("ann@x.org", "!*@x.org,ann@x.org", False), ("ann@x.org", "", False), ("", "", False), ("", ",", False),
        ("ann@x.org", "bob@x.org\nann@x.org", True), ("!ann@x.org", "!ann@x.org", False),
    ],
)  # fmt: skip
def test_an_address_is_among_those_of_a_key(mail: str, whose: str, answer: bool) -> None:
    assert is_among(mail, whose) is answer


def test_addresses_of_one_key_are_one_person() -> None:
    assert _persons([["a@x,b@x"], ["c@x"]]) == {"a@x": "a@x", "b@x": "a@x", "c@x": "c@x"}
    assert _persons([["b@x", "a@x"]]) == {"a@x": "a@x", "b@x": "a@x"}
    assert _persons([["B@X , a@x"]]) == {"a@x": "a@x", "b@x": "a@x"}
    # Two that were known apart become one as soon as a key names both.
    assert _persons([["c@x"], ["b@x"], ["d@x,c@x,b@x"]]) == dict.fromkeys(["b@x", "c@x", "d@x"], "b@x")
    assert _persons([["d@x,c@x"], ["b@x,a@x"], ["c@x,b@x"]]) == dict.fromkeys(["a@x", "b@x", "c@x", "d@x"], "a@x")
    assert _persons([["*@x,a?@x,!b@x,[c]@x"], [""], []]) == {}
    assert _persons([["*@x,a@x"]]) == {"a@x": "a@x"}


def test_the_fingerprint_of_a_key_is_gits() -> None:
    digest = hashlib.sha256(base64.b64decode(KEY)).digest()
    wanted = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    assert _fingerprint(f"ann@x ssh-ed25519 {KEY}") == wanted
    assert _fingerprint(f'ann@x namespaces="git" ssh-ed25519 {KEY} a comment') == wanted
    assert _fingerprint(f"{KEY} ssh-ed25519") is None  # the first is whose it is
    assert _fingerprint("ann@x ssh-ed25519 AAAA!") is None
    assert _fingerprint("ann@x ssh-ed25519 BBBB") is None
    assert _fingerprint(f"ann@x AAAA!! {KEY}") == wanted
    assert _fingerprint("") is None


def test_a_name_of_an_event_is_one_line_of_text() -> None:
    assert _plain("Ann\nLee") == "Ann Lee"
    assert _plain("A\x1b[31m") != "A\x1b[31m"
    assert (len(_plain("x" * 1000)), len(_plain("x" * 1001))) == (1000, 1000)
    assert _plain("\udcff") == "\ufffd"


def signers(repo: Repo, content: Any) -> Signers:
    return Signers(GitRepo.discover(repo.path), content)


def test_a_file_of_signers(repo: Repo) -> None:
    assert not signers(repo, None).is_there
    empty = hashlib.sha256(b"").hexdigest()
    assert signers(repo, None).id == empty
    lines = f"# of the team\n\nann@x,a@x ssh-ed25519 {KEY}\nbob@x ssh-ed25519 {OTHER}\nmallory@x ssh-ed25519 {OTHER}\n"
    found = signers(repo, lines.encode())
    assert found.is_there
    assert found.id == hashlib.sha256(lines.encode()).hexdigest()
    assert found.persons == {"ann@x": "a@x", "a@x": "a@x", "bob@x": "bob@x", "mallory@x": "bob@x"}
    pgp = signers(
        repo, b"  # x openpgp 0123456789ABCDEF\nb@x openpgp 0123 4567 89ab cdef\na@x openpgp 0123456789ABCDEF\n"
    )
    assert pgp.persons == {"a@x": "a@x", "b@x": "a@x"}
    head = repo.git("rev-parse", "HEAD").strip()
    assert found.are_signed([head, head]) == [False, False]
    assert found.are_signed([]) == []
    asked: list[str] = []

    def cache(commit: str, key: str, made: Any) -> str | None:
        asked.append(f"{commit} {key}")
        answer = made()
        assert answer is None
        return None

    assert found.whose(head, cache) == found.whose(head, cache) == ""
    assert asked == [f"{head} {found.id}"]
