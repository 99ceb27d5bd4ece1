"""Who says it: git's own signatures, held against the signers that the target branch allows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from clones import Team, logs_of, ok, ran, told
from expmgr.log.events import Noted
from expmgr.log.logs import Draft
from expmgr.project import Project
from world import Repo

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def key(team: Team, name: str) -> Path:
    """An SSH key of somebody, made once."""
    path = team.root / f"{name}.key"
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
    return path


def signs(team: Team, repo: Repo, name: str) -> None:
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingKey", str(key(team, name)))


def allow(team: Team, repo: Repo, **who: str) -> None:
    """Say on main who may sign for whom, and how much it binds."""
    lines = [f"{mail} {(key(team, name).with_suffix('.key.pub')).read_text().strip()}\n" for name, mail in who.items()]
    repo.write(".expmgr/allowed_signers", "# the team\n" + "".join(lines))
    repo.write("expmgr.toml", 'signing = "warn"\n')
    repo.commit("signers")
    repo.git("push", "--quiet", "origin", "main")


@pytest.fixture
def ann(team: Team) -> Repo:
    repo = team.join("ann")
    signs(team, repo, "ann")
    allow(team, repo, ann="ann@example.com", bob="bob@example.com")
    return repo


@pytest.fixture
def bob(team: Team, ann: Repo) -> Repo:
    repo = team.join("bob")
    signs(team, repo, "bob")
    return repo


def claims(repo: Repo) -> list[str]:
    """What is said without a signature by whom it names."""
    return [one["text"] for one in told(repo, "log")["events"] if one["kind"] == "note" and one["unsigned_claim"]]


def test_a_signature_is_the_persons_that_the_event_names(ann: Repo, bob: Repo) -> None:
    ok(ann, "new", "iris/wide")
    ok(ann, "note", "iris/wide", "-m", "by Ann")
    ok(ann, "push")
    ok(bob, "pull")
    assert claims(bob) == claims(ann) == []
    (log,) = logs_of(ann)
    assert "gpgsig -----BEGIN SSH SIGNATURE-----" in ann.git("cat-file", "commit", log)
    # Bob signs, and says that Ann said it.
    bob.git("config", "user.name", "Ann")
    bob.git("config", "user.email", "ann@example.com")
    ok(bob, "note", "iris/wide", "-m", "forged")
    bob.git("config", "user.email", "bob@example.com")
    ok(bob, "note", "iris/wide", "-m", "by Bob")
    ok(bob, "push")
    ok(ann, "pull")
    assert claims(ann) == claims(bob) == ["forged"]
    assert "(unsigned claim) note on iris/wide: forged\n" in ok(ann, "log")


def test_a_signature_covers_what_was_said_before_it_in_the_same_log(ann: Repo, bob: Repo) -> None:
    ok(bob, "new", "iris/wide")
    bob.git("config", "--unset", "user.signingKey")
    ok(bob, "note", "iris/wide", "-m", "not signed")
    ok(bob, "push")
    ok(ann, "pull")
    assert claims(ann) == ["not signed"]
    bob.git("config", "user.signingKey", str(bob.path.parent / "bob.key"))
    ok(bob, "note", "iris/wide", "-m", "signed")
    bob.git("config", "--unset", "user.signingKey")
    ok(bob, "note", "iris/wide", "-m", "after it")
    ok(bob, "push")
    ok(ann, "pull")
    assert claims(ann) == ["after it"]


def test_keys_that_nobody_allowed_and_branches_that_nobody_asked(ann: Repo, bob: Repo, team: Team) -> None:
    eve = team.join("eve")
    eve.git("config", "user.email", "ann@example.com")
    signs(team, eve, "eve")
    ok(eve, "new", "iris/wide")
    ok(eve, "note", "iris/wide", "-m", "I am Ann")
    # A branch of hers that lets her in: the target branch is what counts.
    eve.git("switch", "--quiet", "-c", "mine")
    eve.write(".expmgr/allowed_signers", f"ann@example.com {(team.root / 'eve.key.pub').read_text()}")
    eve.commit("let me in")
    assert claims(eve) == ["I am Ann"]
    ok(eve, "push")
    ok(bob, "pull")
    assert claims(bob) == ["I am Ann"]


def test_one_who_pushes_into_anothers_log_signs_nothing(ann: Repo, bob: Repo) -> None:
    ok(ann, "new", "iris/wide")
    ok(ann, "push")
    ok(bob, "pull")
    (log,) = logs_of(ann)
    writer = log.rpartition("/")[2]
    bob.git("update-ref", log, f"refs/expmgr/remotes/origin/log/{writer}")
    project = Project.open(bob.path)
    draft = Draft(Noted, {"variant": "iris/wide", "text": "in Ann's name"})
    project.logs.append(writer, [draft], now=1.0, actor=project.logs.events()[0].event.actor, sign=True)
    bob.git("push", "--quiet", "origin", log)
    bob.git("update-ref", "-d", log)
    carol = Team(bob.path.parent).join("carol")
    ok(carol, "pull")
    assert claims(carol) == ["in Ann's name"]
    ok(ann, "note", "iris/wide", "-m", "mine")
    assert ann.expmgr("push").stderr.startswith("Note: origin has events of this clone that it does not know")


def test_require_does_without_what_is_not_signed(ann: Repo, bob: Repo) -> None:
    ann.write("expmgr.toml", 'signing = "require"\n')
    ann.commit("signatures bind")
    ann.git("push", "--quiet", "origin", "main")
    ok(ann, "new", "iris/wide")
    ran(ann, "iris/wide", 0.9)
    ok(ann, "push")
    bob.git("pull", "--quiet")
    assert ok(bob, "pull").startswith("pulled from origin: 2 events, 1 run\n")
    ok(bob, "note", "iris/wide", "-m", "signed")
    bob.git("config", "--unset", "user.signingKey")
    bob.write("expmgr.toml", 'signing = "off"\n')  # what his checkout says does not let him say it unsigned
    before = bob.snapshot()
    refused = bob.expmgr("note", "iris/wide", "-m", "x")
    assert (refused.code, refused.stderr.splitlines()[0]) == (1, "Error: git could not sign with your key")
    assert bob.snapshot() == before
    bob.git("reset", "--quiet", "--hard", "HEAD~1")  # a main that knows nothing of it does
    bob.git("update-ref", "refs/remotes/origin/main", "HEAD")
    ran(bob, "iris/wide", 0.1, first=5)
    ok(bob, "push")
    pulled = ann.expmgr("pull")
    writer = logs_of(bob)[0].rpartition("/")[2]
    assert pulled.stderr.endswith(
        f"was skipped: Bob ({writer}) tells of it without a signature that the target's allowed signers know\n"
    )
    # Who has no key says nothing, and is told so.
    ann.git("config", "user.signingKey", str(ann.path / "nowhere"))
    before = ann.snapshot()
    refused = ann.expmgr("note", "iris/wide", "-m", "x")
    assert refused.code == 1
    assert refused.stderr.splitlines()[0] == "Error: git could not sign with your key"
    assert ann.snapshot() == before


def test_addresses_by_pattern_and_no_file_at_all(ann: Repo, bob: Repo, team: Team) -> None:
    allow(team, ann, ann="*@example.com,ann@else.where")
    ok(ann, "new", "iris/wide")
    ok(ann, "note", "iris/wide", "-m", "one")
    ann.git("config", "user.email", "ann@else.where")
    ok(ann, "note", "iris/wide", "-m", "two")
    ann.git("config", "user.email", "ann@third.place")
    ok(ann, "note", "iris/wide", "-m", "three")
    assert claims(ann) == ["three"]
    ann.git("rm", "-q", ".expmgr/allowed_signers")
    ann.commit("nobody")
    assert claims(ann) == ["one", "two", "three"]


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
def test_openpgp_keys_count_by_their_fingerprint(
    team: Team, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = Path("/tmp") / f"gpg-{os.getpid()}"  # a socket's path is short
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    try:
        quick = [
            "gpg",
            "--batch",
            "--passphrase",
            "",
            "--quick-gen-key",
            "Ann <ann@example.com>",
            "ed25519",
            "sign",
            "0",
        ]
        subprocess.run(quick, check=True, capture_output=True)
        listed = subprocess.run(
            ["gpg", "--list-keys", "--with-colons"], check=True, capture_output=True, text=True
        ).stdout
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        ann = team.join("ann")
        ann.git("config", "user.signingKey", fingerprint)
        allow(team, ann)
        ok(ann, "new", "iris/wide")
        ok(ann, "note", "iris/wide", "-m", "by Ann")
        assert claims(ann) == ["by Ann"]
        ann.write(".expmgr/allowed_signers", f"ann@example.com openpgp {fingerprint}\n")
        ann.commit("Ann's key")
        assert claims(ann) == []
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
