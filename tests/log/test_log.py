"""Logs: what is said stays, whoever says it, in one order for all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clones import logs_of, ok, ran, refuses, told
from expmgr.disk.index import Index
from expmgr.errors import Busy, EventProblem
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log import logs as logs_module
from expmgr.log.events import LATEST, Actor, Event, Noted, Retracted, RunTold, canonical, parse_event
from expmgr.log.logs import Draft, Logs, writer_of
from expmgr.log.refs import OWN, REMOTES
from expmgr.log.writers import new_writer, writer_id
from world import Repo

ANN, BOB = "ann-00000001", "bob-00000002"
ACTOR = Actor(name="Ann", email="ann@example.com")


def logs(repo: Repo) -> Logs:
    found = GitRepo.discover(repo.path)
    own = found.git_common_dir / "expmgr"
    return Logs(found, Index(own / "index.sqlite", own / "runs"), own)


def say(repo: Repo, text: str, writer: str = ANN, **values: Any) -> Event:
    draft = Draft(Noted, {"variant": "iris/wide", "text": text, **values})
    (event,) = logs(repo).append(writer, [draft], now=5.0, actor=ACTOR)
    return event


def heard(repo: Repo) -> list[str]:
    return [getattr(one.event, "text", one.kind) for one in logs(repo).events()]


def plant(repo: Repo, content: object, writer: str = ANN) -> None:
    """A commit in a log as somebody else's version, or somebody hostile, might write it."""
    git = GitRepo.discover(repo.path)
    ref = f"{OWN}{writer}"
    body = content if isinstance(content, bytes) else canonical(content)
    commits = [NewCommit({"event.json": body}, "planted\n")]
    if ref not in git.refs(ref):
        commits.insert(0, NewCommit({"log.json": canonical({"format": 1, "writer": writer})}, "a log\n"))
    assert extend_ref(git, ref, git.refs(ref).get(ref), commits, "test")


def event(**values: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "kind": "note",
        "writer": ANN,
        "time": 7,
        "at": 1,
        "variant": "iris/wide",
        "text": "x",
        **values,
    }


def test_a_log_is_a_chain_of_commits_with_an_event_each(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD").strip()
    say(repo, "one")
    values = {"variant": "iris/wide", "run_id": "20260101-000000000-00000a", "seed": 0, "commit": head, "attempt": 1}
    values |= {"status": "finished", "step": 9, "record": "0" * 64}
    logs(repo).append(ANN, [Draft(RunTold, values, {"record.json": b"{}"})], now=6.0, actor=None)
    ref = f"{OWN}{ANN}"
    lines = repo.git("log", "--first-parent", "--format=%s|%an", ref).splitlines()
    assert lines == ["run iris/wide seed 0: finished at step 9|Ann", "note on iris/wide: one|Ann", f"log of {ANN}|Ann"]
    assert repo.git("rev-parse", f"{ref}^2").strip() == head  # what it speaks of cannot be lost
    assert repo.git("ls-tree", "--name-only", ref).split() == ["event.json", "record.json"]
    content = repo.git("show", f"{ref}^:event.json")
    assert content == (
        '{"actor":{"email":"ann@example.com","name":"Ann"},"at":5.0,"format":1,"kind":"note","text":"one","time":1,'
        f'"variant":"iris/wide","writer":"{ANN}"}}'
    )
    assert repo.git("fsck", "--strict") == ""
    assert heard(repo) == ["one", "run"]


def test_the_order_is_lamports_and_no_clocks(repo: Repo) -> None:
    say(repo, "first", ANN)
    say(repo, "second", BOB)
    say(repo, "third", ANN)
    assert heard(repo) == ["first", "second", "third"]
    assert [one.time for one in logs(repo).events()] == [1, 2, 3]


def test_an_id_is_the_digest_of_what_was_written(repo: Repo) -> None:
    later = event(mood="a field of a later version", at=5)  # an int where this version has a float
    plant(repo, later)
    (found,) = logs(repo).events()
    assert found.id == parse_event(json.dumps(later, indent=2).encode(), ANN).id
    assert '"mood"' in found.content
    assert found.event.id == found.id


def test_unknown_kinds_are_kept_and_passed_over(repo: Repo) -> None:
    plant(repo, event(kind="dance", steps=[1, 2]))
    say(repo, "after")
    assert [one.kind for one in logs(repo).events()] == ["dance", "note"]
    shown = repo.expmgr("log")
    assert (shown.code, shown.stderr) == (0, "")
    assert "dance" in shown.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "it is not JSON"),
        (b"[1]", "it is not an object"),
        (b'{"format": NaN}', "it is not JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "it is not JSON"),
        (b'{"text": "\\ud800"}', "it is not JSON"),
        (b" " * 1_000_001, "it has 1,000,001 bytes; an event has 1,000,000 at most"),
        (event(format=2), "it has format 2, this expmgr reads format 1"),
        (event(writer=BOB), f"it says that {BOB} wrote it, and stands in the log of {ANN}"),
        (event(time=LATEST + 1), f"time: Input should be less than or equal to {LATEST}"),
        (event(variant="../../x"), "variant: Value error, '..' cannot be the name of an experiment"),
        (event(text=""), "text: String should have at least 1 character"),
        (event(kind=3), "kind: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_no_event_is_named_and_passed_over(repo: Repo, content: object, reason: str) -> None:
    say(repo, "before")
    plant(repo, content)
    say(repo, "after")
    for _ in range(2):  # from git, and from the cache
        found = logs(repo)
        assert [getattr(one.event, "text", "") for one in found.events()] == ["before", "after"]
        assert list(found.unreadable.values()) == [reason]
    assert f"was skipped: {reason}\n" in repo.expmgr("log").stderr


def test_one_hostile_time_keeps_nobody_from_writing(repo: Repo) -> None:
    plant(repo, event(time=LATEST, text="hostile"))
    say(repo, "one", BOB)
    say(repo, "two", BOB)
    assert sorted(heard(repo)) == ["hostile", "one", "two"]


def test_the_cache_is_only_a_cache(repo: Repo) -> None:
    for number in range(5):
        say(repo, f"{number}")
    first = heard(repo)
    cache = repo.path / ".git/expmgr/index.sqlite"
    for content in (None, b"", b"no database"):
        cache.unlink(missing_ok=True)
        if content is not None:
            cache.write_bytes(content)
        assert heard(repo) == first
    say(repo, "5")
    assert heard(repo) == [*first, "5"]
    ref = f"{OWN}{ANN}"
    repo.git("update-ref", ref, f"{ref}~3")  # rewritten behind its back
    say(repo, "other")
    assert heard(repo) == ["0", "1", "2", "other"]


def test_nothing_is_written_of_what_is_no_event(repo: Repo) -> None:
    say(repo, "before")
    before = repo.git("for-each-ref")
    with pytest.raises(EventProblem, match="text: String should have at most"):
        say(repo, "y" * 1_000_000)
    with pytest.raises(EventProblem, match="variant: "):
        say(repo, "x", variant="no variant")
    assert repo.git("for-each-ref") == before


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from log.test_log import say
from world import Repo
for number in range(8):
    say(Repo(Path(sys.argv[2])), f"{sys.argv[3]}-{number}")
"""


def test_processes_that_write_at_once_lose_nothing(repo: Repo) -> None:
    command = [sys.executable, "-c", WRITE, str(Path(__file__).parents[1]), str(repo.path)]
    writing = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    assert [one.wait() for one in writing] == [0] * 4
    assert sorted(heard(repo)) == sorted(f"{one}-{number}" for one in range(4) for number in range(8))
    assert [one.time for one in logs(repo).events()] == list(range(1, 33))


def test_a_copied_clone_is_another_writer(tmp_path: Path) -> None:
    one, two = tmp_path / "one/expmgr", tmp_path / "two/expmgr"
    one.mkdir(parents=True)
    first = writer_id(one)
    assert writer_id(one) == first
    two.mkdir(parents=True)
    (two / "writer.json").write_bytes((one / "writer.json").read_bytes())
    second = writer_id(two)
    assert second != first == writer_id(one)
    third = new_writer(two)
    assert writer_id(two) == third != second
    (two / "writer.json").write_text("garbage")
    assert writer_id(two) not in (first, second, third)


def test_what_happens_is_said(iris: Repo) -> None:
    ok(iris, "new", "iris/baseline", "-m", "as in the guide")
    ok(iris, "new", "iris/wide", "--from", "baseline")
    records = ran(iris, "iris/wide", 0.9, 0.8)
    titles = [one["kind"] for one in told(iris, "log")["events"]]
    assert titles == ["variant", "variant", "run", "run"]
    made, _, first, _ = told(iris, "log")["events"]
    assert (made["variant"], made["base"], made["why"]) == ("iris/baseline", "main", "as in the guide")
    assert (first["run_id"], first["value"], first["attempt"]) == (records[0].run_id, 0.9, 1)
    (ref,) = logs_of(iris)
    assert iris.git("for-each-ref", "refs/expmgr/keep/") == ""  # the log holds the commits now
    assert f"{records[1].commit}\n" in iris.git("rev-list", ref)
    beside = iris.git("show", f"{ref}:record.json")
    assert json.loads(beside)["run_id"] == records[1].run_id
    assert [one["kind"] for one in told(iris, "log", "iris/baseline")["events"]] == ["variant"]
    assert [one["run_id"] for one in told(iris, "log", records[0].run_id[:19])["events"]] == [records[0].run_id]
    assert "2 older ones: --limit 4\n" in iris.expmgr("log", "--limit", "2").stderr
    unknown = iris.expmgr("log", "iris/deep")
    assert (unknown.code, unknown.stderr.splitlines()[0]) == (1, "Error: there is no variant iris/deep")


def test_what_a_crash_left_is_told_by_the_next(iris: Repo) -> None:
    ok(iris, "new", "iris/wide")
    (record,) = ran(iris, "iris/wide", 0.9, tell=False)
    assert [one["kind"] for one in told(iris, "log")["events"]] == ["variant"]
    ran(iris, "iris/wide", 0.8, first=1)
    assert [one["kind"] for one in told(iris, "log")["events"]] == ["variant", "run", "run"]
    # A pin that stayed, as of an attempt that was taken back, tells nothing twice.
    iris.git("update-ref", f"refs/expmgr/keep/{record.run_id}", record.commit)
    ran(iris, "iris/wide", 0.7, first=2)
    assert [one.get("seed") for one in told(iris, "log")["events"]] == [None, 0, 1, 2]
    assert iris.git("for-each-ref", "refs/expmgr/keep/") == ""


def test_notes_are_said_and_taken_back(iris: Repo) -> None:
    ok(iris, "new", "iris/wide")
    (record,) = ran(iris, "iris/wide", 0.9)
    said = iris.expmgr("note", "wide", "-m", "odd\x1b[31m seeds\nand more")
    assert (said.code, said.stderr) == (0, "")
    assert said.stdout.endswith(": note on iris/wide: odd\ufffd[31m seeds and more\n")
    on_run = told(iris, "note", "iris/wide:0", "-m", "the loss jumps")["id"]
    assert "odd\ufffd[31m seeds and more" in ok(iris, "show", "wide")
    assert "the loss jumps" not in ok(iris, "show", "wide")
    assert f"Ann: the loss jumps ({on_run[:12]})" in ok(iris, "show", record.run_id)
    ok(iris, "retract", on_run[:8], "-m", "it was another run")
    assert "the loss jumps" not in ok(iris, "show", record.run_id)
    events = {one["id"]: one for one in told(iris, "log")["events"]}
    assert events[on_run]["retracted"]
    before = iris.snapshot()
    (run,) = (one["id"] for one in events.values() if one["kind"] == "run")
    refused = iris.expmgr("retract", run, "-m", "I do not like it")
    assert refused.stderr.splitlines() == [
        "Error: what happened (run) is not taken back",
        "Nothing was changed.",
        f'Hint: say what is wrong with it: expmgr note {record.run_id} -m "..."',
    ]
    assert iris.expmgr("retract", "ffff", "-m", "x").stderr.splitlines()[0] == "Error: there is no event ffff"
    refuses(iris, "note", "wide", "-m", "  ", code=2, words="-m has no words")
    refuses(iris, "note", "nobody", "-m", "x", code=1, words="Error: there is no variant nobody")
    assert iris.snapshot() == before


def test_users_can_be_left_out(iris: Repo) -> None:
    iris.write(".git/expmgr/config.toml", "record_user = false\n")
    ok(iris, "new", "iris/wide")
    (one,) = told(iris, "log")["events"]
    assert "actor" not in one


# Who writes.


def draft(text: str, **values: Any) -> Draft:
    return Draft(Noted, {"variant": "iris/wide", "text": text, **values})


def test_a_log_that_is_always_moved_by_something_else_is_busy(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that somebody was quicker it is tried again, and in the end it is said: nothing was written."""
    say(repo, "before")
    before, tries = repo.git("for-each-ref"), [0]

    def lost(*_args: object, **_named: object) -> None:
        tries[0] += 1

    monkeypatch.setattr(logs_module, "extend_ref", lost)
    with pytest.raises(Busy) as caught:
        say(repo, "never")
    assert caught.value.lines() == [
        f"Error: {OWN}{ANN} is being moved by something else, again and again",
        "Nothing was written.",
    ]
    assert (caught.value.exit_code, tries[0]) == (4, 20)
    assert repo.git("for-each-ref") == before


def test_who_was_slower_says_it_behind_what_the_quicker_one_said(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asks again what is still to be said."""
    say(repo, "before")
    asked: list[int] = []

    def slow(*args: Any, **named: Any) -> object:
        monkeypatch.setattr(logs_module, "extend_ref", extend_ref)
        plant(repo, event(time=5, text="quicker"))
        return extend_ref(*args, **named)

    def choose(drafts: list[Draft]) -> list[Draft]:
        asked.append(len(drafts))
        return drafts

    monkeypatch.setattr(logs_module, "extend_ref", slow)
    (made,) = logs(repo).append(ANN, [draft("slower")], now=5.0, actor=ACTOR, choose=choose)
    assert (heard(repo), made.time, asked) == (["before", "quicker", "slower"], 6, [1, 1])


def test_what_is_said_is_all_of_it_or_none(repo: Repo) -> None:
    found = logs(repo)
    assert found.append(ANN, [], now=5.0, actor=ACTOR) == []
    assert repo.git("for-each-ref", "refs/expmgr/") == ""
    made = found.append(ANN, [draft("one"), draft("two")], now=5.0, actor=ACTOR)
    assert [(one.time, one.at) for one in made] == [(1, 5.0), (2, 5.0)]
    with pytest.raises(EventProblem):
        logs(repo).append(ANN, [draft("three"), draft("")], now=5.0, actor=ACTOR)
    assert heard(repo) == ["one", "two"]
    assert logs(repo).append(ANN, [draft("none")], now=5.0, actor=ACTOR, choose=lambda _: []) == []
    assert heard(repo) == ["one", "two"]


def test_a_ref_that_is_dropped_goes_with_the_event(repo: Repo) -> None:
    keep = "refs/expmgr/keep/x"
    repo.git("update-ref", keep, "HEAD")
    logs(repo).append(ANN, [draft("one")], now=5.0, actor=ACTOR, drop=[keep])
    assert repo.git("for-each-ref", keep) == ""
    repo.git("update-ref", keep, "HEAD")
    logs(repo).append(ANN, [], now=5.0, actor=ACTOR, drop=[keep])
    assert (repo.git("for-each-ref", keep), heard(repo)) == ("", ["one"])


# Whose log it is.


@pytest.mark.parametrize(
    ("ref", "writer"),
    [
        (f"{OWN}{ANN}", ANN),
        (f"{REMOTES}origin/log/{ANN}", ANN),
        (f"{REMOTES}a/b/log/{ANN}", ANN),
        (f"{REMOTES}origin/{ANN}", None),
        (f"{REMOTES}origin/keep/{ANN}", None),
        (f"{OWN}nobody", None),
        (f"refs/heads/log/{ANN}", None),
    ],
)
def test_which_refs_are_logs(ref: str, writer: str | None) -> None:
    assert writer_of(ref) == writer


def test_a_log_that_begins_as_another_s_is_none(repo: Repo) -> None:
    git = GitRepo.discover(repo.path)
    for content in (canonical({"format": 1, "writer": BOB}), b"[]", b"no JSON", canonical({"format": 1})):
        repo.git("update-ref", "-d", f"{OWN}{ANN}")
        begin = NewCommit({"log.json": content}, "a log\n")
        assert extend_ref(
            git, f"{OWN}{ANN}", None, [begin, NewCommit({"event.json": canonical(event())}, "x\n")], "test"
        )
        found = logs(repo)
        assert found.events() == []
        assert set(found.unreadable.values()) == {f"its log does not begin as that of {ANN}"}


def test_what_was_fetched_of_one_s_own_log_is_heard_once(repo: Repo) -> None:
    say(repo, "one")
    repo.git("update-ref", f"{REMOTES}origin/log/{ANN}", f"{OWN}{ANN}")
    say(repo, "two")
    say(repo, "three", BOB)
    assert heard(repo) == ["one", "two", "three"]
    assert {one.ref for one in logs(repo).events()} == {f"{OWN}{ANN}", f"{OWN}{BOB}"}
    assert [one.place for one in logs(repo).whole(f"{OWN}{ANN}")] == [1, 2]  # behind what begins it
    assert logs(repo).whole(f"{OWN}nobody-00000009") == []


def test_what_is_taken_back_is_that_of_the_same_person_in_the_same_log(repo: Repo) -> None:
    cleo = Actor(name="Cleo", email="cleo@example.com")

    def retract(meant: Event, writer: str, actor: Actor) -> None:
        logs(repo).append(writer, [Draft(Retracted, {"event": meant.id, "reason": "x"})], now=6.0, actor=actor)

    mine, theirs = say(repo, "one"), say(repo, "two", BOB)
    retract(mine, BOB, ACTOR)  # the same address, from another log
    retract(mine, ANN, cleo)  # somebody else in this log
    found = logs(repo)
    assert found.retracted(found.events()) == {}
    retract(mine, ANN, ACTOR)
    found = logs(repo)
    assert set(found.retracted(found.events())) == {mine.id}
    assert found.retracted(found.events("retract")) == {}
    assert theirs.id not in found.retracted(found.events())


def test_what_lies_beside_an_event_and_is_too_large_is_not_read(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "MOST_BESIDE_BYTES", 10)
    for size in (9, 10, 11):
        logs(repo).append(
            ANN, [Draft(Noted, {"variant": "iris/wide", "text": "x"}, {"a": b"x" * size})], now=5.0, actor=ACTOR
        )
    found = logs(repo)
    assert found.beside(found.events(), "a") == [b"x" * 9, b"x" * 10, None]
    assert found.beside(found.events(), "b") == [None] * 3


def test_a_time_that_is_no_later_than_the_one_before_is_passed_over(repo: Repo) -> None:
    for time, text in ((7, "one"), (7, "the same time"), (6, "earlier"), (8, "two")):
        plant(repo, event(time=time, text=text))
    found = logs(repo)
    assert [getattr(one.event, "text", "") for one in found.events()] == ["one", "two"]
    assert sorted(found.unreadable.values()) == [
        f"its time, {time}, is not later than that of the event before it" for time in (6, 7)
    ]
    assert say(repo, "after", BOB).time == 9
