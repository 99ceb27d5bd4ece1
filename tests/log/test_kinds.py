"""The kinds of events: what each says in a line, which commits it keeps, and where its limits are."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from expmgr.errors import EventProblem
from expmgr.git.commits import extend_ref
from expmgr.git.objects import NewCommit
from expmgr.git.repo import GitRepo
from expmgr.log.events import (
    KINDS,
    LATEST,
    MOST_BYTES,
    MOST_WORDS,
    Actor,
    Noted,
    Retracted,
    ReviewOpened,
    canonical,
    is_writer,
    parse_event,
)
from expmgr.log.logs import Draft, writer_of
from expmgr.log.writers import all_writers, writer_id
from log.test_log import ANN, event, logs, plant, say
from world import Repo

RUN = "20260101-000000000-00000a"
ONE, TWO, DIGEST = "1" * 40, "2" * 40, "abcdef0123456789" * 4
REVIEW = {"review": DIGEST, "digests": "3" * 64, "result_set": "4" * 64}
OPENED = {
    "candidate": "iris/wide", "baseline": "iris/baseline", "commit": ONE, "base_commit": TWO, "target": "main",
    "metric": "accuracy", "split": "eval", "digests": "3" * 64, "result_set": "4" * 64,
}  # fmt: skip
RAN = {
    "run_id": RUN, "variant": "iris/wide", "seed": 3, "commit": ONE, "attempt": 1, "status": "finished", "step": 400,
    "record": DIGEST,
}  # fmt: skip

SAID = [
    ("variant", {"variant": "iris/wide", "commit": ONE, "base": "main"}, "variant iris/wide from main", [ONE]),
    (
        "variant",
        {"variant": "iris/wide", "commit": ONE, "base": "main", "why": "wider"},
        "variant iris/wide from main: wider",
        [ONE],
    ),
    ("run", RAN, "run iris/wide seed 3: finished at step 400", [ONE]),
    (
        "run",
        {**RAN, "metric": "accuracy", "split": "eval", "value": 0.98765},
        "run iris/wide seed 3: finished at step 400, accuracy 0.9877 (eval)",
        [ONE],
    ),
    (
        "evaluation",
        {
            "variant": "iris/wide", "seed": 3, "step": 200, "split": "test", "metrics": {"accuracy": 0.5, "loss": 1.25},
            "commit": ONE,
        },
        "evaluation of iris/wide seed 3 @200 (test): accuracy 0.5000, loss 1.2500",
        [ONE],
    ),
    (
        "vouch",
        {"run_id": RUN, "variant": "iris/wide", "seed": 3, "step": 200, "by": "Ann", "source": "/old"},
        "vouch for iris/wide seed 3 @200, adopted from /old, by Ann",
        [],
    ),
    (
        "stored",
        {"run_id": RUN, "variant": "iris/wide", "seed": 3, "step": 200, "contents": DIGEST, "size_bytes": 12345},
        "stored iris/wide seed 3 @200 (12,345 bytes)",
        [],
    ),
    ("note", {"variant": "iris/wide", "text": "odd"}, "note on iris/wide: odd", []),
    ("note", {"variant": "iris/wide", "run_id": RUN, "text": "odd"}, f"note on {RUN}: odd", []),
    ("retract", {"event": DIGEST, "reason": "wrong"}, "retract abcdef012345: wrong", []),
    ("review.open", OPENED, "review of iris/wide against iris/baseline", [ONE, TWO]),
    ("review.open", {**OPENED, "text": "please"}, "review of iris/wide against iris/baseline: please", [ONE, TWO]),
    ("comment", {"review": DIGEST, "text": "why?"}, "comment in review abcdef012345: why?", []),
    (
        "comment",
        {"review": DIGEST, "text": "why?", "on": "model.py:3", "commit": ONE},
        "comment in review abcdef012345 on model.py:3: why?",
        [ONE],
    ),
    ("resolve", {"review": DIGEST, "event": "f" * 64}, "resolve ffffffffffff in review abcdef012345", []),
    (
        "check",
        {**REVIEW, "commit": ONE, "answers": {"length": "block"}, "sentence": "not comparable"},
        "check in review abcdef012345: not comparable",
        [ONE],
    ),
    (
        "waive",
        {**REVIEW, "check": "length", "told": "400 and 500", "reason": "on purpose"},
        "waive length in review abcdef012345: on purpose",
        [],
    ),
    ("verdict", {**REVIEW, "verdict": "veto", "commit": ONE}, "veto review abcdef012345", [ONE]),
    (
        "verdict",
        {**REVIEW, "verdict": "close", "commit": ONE, "reason": "stale", "text": "sorry"},
        "close review abcdef012345 (stale): sorry",
        [ONE],
    ),
    (
        "merge",
        {**REVIEW, "commit": ONE, "target": "main", "approved_by": ["Bob"]},
        "merge review abcdef012345 into main",
        [ONE],
    ),
]  # fmt: skip


def content(kind: str = "note", **values: Any) -> bytes:
    given = values or {"variant": "iris/wide", "text": "x"}
    return canonical({"format": 1, "kind": kind, "writer": ANN, "time": 7, "at": 1, **given})


def problem(made: bytes) -> str:
    with pytest.raises(EventProblem) as refused:
        parse_event(made, ANN)
    return refused.value.message


@pytest.mark.parametrize(("kind", "values", "title", "commits"), SAID)
def test_an_event_says_what_happened_and_keeps_its_commits(
    kind: str, values: dict[str, Any], title: str, commits: list[str]
) -> None:
    found = parse_event(content(kind, **values), ANN)
    assert type(found) is KINDS[kind]
    assert (found.title, list(found.commits)) == (title, commits)


def test_a_review_is_not_confirmed_unless_it_says_so() -> None:
    found = parse_event(content("review.open", **OPENED), ANN)
    assert isinstance(found, ReviewOpened)
    assert (found.is_confirmed, found.seeds) == (False, None)


def test_every_kind_is_tried() -> None:
    assert {kind for kind, *_ in SAID} == set(KINDS)
    unknown = parse_event(content("dance", steps=3), ANN)
    assert (unknown.title, unknown.commits) == ("dance", ())


def test_a_field_of_a_later_version_stays_in_an_event() -> None:
    made = content(
        "note", variant="iris/wide", text="x", mood="good", actor={"name": "Ann", "email": "a@b", "team": "c"}
    )
    found = parse_event(made, ANN)
    assert found.content == made
    assert found.model_dump(mode="json", exclude_none=True)["mood"] == "good"
    assert str(found.actor) == "Ann <a@b>"


def test_the_limits_of_an_event() -> None:
    wide = {"variant": "iris/wide", "text": "x"}
    assert parse_event(content(**wide, at=250_000_000_000), ANN).at == 250_000_000_000
    assert problem(content(**wide, at=250_000_000_001)).startswith("at: ")
    assert parse_event(content(**wide, at=0), ANN).at == 0
    assert problem(content(**wide, at=-1)).startswith("at: ")
    assert parse_event(content(**wide, time=LATEST), ANN).time == LATEST == 2**48
    assert parse_event(content(**wide, time=1), ANN).time == 1
    assert problem(content(**wide, time=0)).startswith("time: ")
    assert parse_event(content(variant="iris/wide", text="y" * MOST_WORDS), ANN)
    assert problem(content(variant="iris/wide", text="y" * (MOST_WORDS + 1))).startswith("text: ")
    assert MOST_WORDS == 65_536
    assert problem(content("run", **{**RAN, "attempt": 0})).startswith("attempt: ")
    filled = content("dance", steps="")
    whole = content("dance", steps="z" * (MOST_BYTES - len(filled)))
    assert len(whole) == MOST_BYTES == 1_000_000
    assert parse_event(whole, ANN).content == whole
    assert problem(whole + b" ") == "it has 1,000,001 bytes; an event has 1,000,000 at most"


def test_the_limits_of_names() -> None:
    opened = {**OPENED, "target": "b" * 250}
    assert parse_event(content("review.open", **opened), ANN)
    assert problem(content("review.open", **{**OPENED, "target": "b" * 251})).startswith("target: ")
    assert parse_event(content("review.open", **{**OPENED, "metric": "m" * 1000}), ANN)
    for metric in ("", "m" * 1001):
        assert problem(content("review.open", **{**OPENED, "metric": metric})).startswith("metric: ")
    wide = {"variant": "iris/wide", "text": "x"}
    for key in ("name", "email"):
        actor = {"name": "Ann", "email": "a@b", key: "n" * 1000}
        assert parse_event(content(**wide, actor=actor), ANN)
        assert problem(content(**wide, actor={**actor, key: "n" * 1001})).startswith(f"actor.{key}: ")
        for text in ("\n", "\x00", "\x1f", "\x7f", "\x9f", "\u2028", "\u2029"):
            told = problem(content(**wide, actor={**actor, key: f"a{text}"}))
            assert told == f"actor.{key}: Value error, holds a control character"
    same = problem(content("review.open", **{**OPENED, "baseline": "iris/wide"}))
    assert same == ": Value error, holds a variant against itself"


def test_a_log_that_has_grown_is_read_from_where_it_was(repo: Repo) -> None:
    for number in range(4):
        say(repo, f"{number}")
        found = logs(repo)
        assert [(one.place, one.time) for one in found.events()] == [(at, at) for at in range(1, number + 2)]
        assert found.unreadable == {}
        assert [one.id for one in logs(repo).whole(f"refs/expmgr/log/{ANN}")] == [one.id for one in found.events()]
    assert logs(repo).whole("refs/expmgr/log/bob-00000002") == []


def test_a_commit_of_a_log_is_called_by_the_first_200_characters(repo: Repo) -> None:
    say(repo, "y" * 500)
    title = repo.git("log", "-1", "--format=%s", f"refs/expmgr/log/{ANN}").strip()
    assert title == ("note on iris/wide: " + "y" * 500)[:200]
    found = logs(repo)
    before = repo.git("for-each-ref")
    assert found.append(ANN, [], now=5.0, actor=None) == []
    assert repo.git("for-each-ref") == before


def test_a_time_is_gone_on_from_unless_it_is_absurdly_far_ahead(repo: Repo) -> None:
    for writer, time, expected in (
        ("bob-00000002", 2**32, 2**32 + 1),
        ("cem-00000003", 2**33 + 1, 2**33 + 2),
        ("dee-00000004", 2**34 + 2, 2**33 + 3),
    ):
        plant(repo, event(time=time, writer=writer), writer)
        assert say(repo, "x").time == expected


def begun(repo: Repo, beginning: dict[str, bytes], contents: list[dict[str, bytes]], writer: str = ANN) -> None:
    """A log that begins so, and goes on with commits of these files."""
    commits = [NewCommit(files, "planted\n") for files in (beginning, *contents)]
    assert extend_ref(GitRepo.discover(repo.path), f"refs/expmgr/log/{writer}", None, commits, "test")


def unreadable(repo: Repo) -> list[str]:
    """The reasons, of each commit once; from git, and from what is cached of it."""
    first, second = logs(repo), logs(repo)
    assert first.events() == second.events() == []
    assert first.unreadable == second.unreadable
    return list(first.unreadable.values())


@pytest.mark.parametrize(
    "beginning",
    [
        {"log.json": canonical({"format": 1, "writer": "bob-00000002"})}, {"log.json": b"{"}, {"log.json": b"[]"},
        {"log.json": b'{"a":' * 5000}, {"other": b"x"}, {"event.json": canonical(event())},
    ],
)  # fmt: skip
def test_nothing_of_a_log_that_does_not_begin_as_one_is_an_event(repo: Repo, beginning: dict[str, bytes]) -> None:
    begun(repo, beginning, [{"event.json": canonical(event())}])
    assert unreadable(repo) == [f"its log does not begin as that of {ANN}"] * 2
    (repo.path / ".git/shallow").write_text("")
    shallow = f"its log does not begin as that of {ANN} (this clone is shallow: git fetch --unshallow)"
    assert unreadable(repo) == [shallow] * 2


def test_anothers_log_under_a_name_of_ones_own_is_named(repo: Repo) -> None:
    said = say(repo, "one")
    repo.git("update-ref", "refs/expmgr/log/bob-00000002", f"refs/expmgr/log/{ANN}")
    repo.git("update-ref", f"refs/expmgr/remotes/origin/log/{ANN}", f"refs/expmgr/log/{ANN}")  # the same log, fetched
    found = logs(repo)
    assert [one.id for one in found.events()] == [said.id]
    assert list(found.unreadable.values()) == ["its log does not begin as that of bob-00000002"] * 2


def test_a_commit_without_an_event_is_named(repo: Repo) -> None:
    beginning = {"log.json": canonical({"format": 1, "writer": ANN})}
    begun(repo, beginning, [{"other": b"x"}, {"event.json": b" " * (MOST_BYTES + 1)}])
    assert unreadable(repo) == ["it holds no event.json", "it has 1,000,001 bytes; an event has 1,000,000 at most"]


def test_what_is_no_commit_is_no_log(repo: Repo) -> None:
    blob = repo.git("hash-object", "-w", ".git/HEAD").strip()
    repo.git("update-ref", f"refs/expmgr/log/{ANN}", blob)
    assert unreadable(repo) == ["it is no commit"]
    repo.git("tag", "-a", "-m", "x", "tagged")
    repo.git("update-ref", f"refs/expmgr/log/{ANN}", repo.git("rev-parse", "tagged").strip())
    assert unreadable(repo) == ["it is no commit"]


@pytest.mark.parametrize(("time", "is_told"), [(6, False), (7, False), (8, True)])
def test_a_time_is_later_than_that_of_the_event_before(repo: Repo, time: int, is_told: bool) -> None:
    plant(repo, event(time=7))
    plant(repo, event(time=time, text="second"))
    found = logs(repo)
    assert [one.time for one in found.events()] == ([7, 8] if is_told else [7])
    reason = f"its time, {time}, is not later than that of the event before it"
    assert list(found.unreadable.values()) == ([] if is_told else [reason])


def test_events_that_stood_in_another_log_name_each_other_anew(repo: Repo) -> None:
    old, kept = "5" * 64, "6" * 64
    drafts = [
        Draft(Noted, {"variant": "iris/wide", "text": "one"}, was=old),
        Draft(
            Retracted, {"event": old, "reason": "wrong"}, {"review.json": f"{old} {kept}".encode(), "x": old.encode()}
        ),
        Draft(Retracted, {"event": kept, "reason": "wrong"}),
    ]
    first, second, third = logs(repo).append(ANN, drafts, now=5.0, actor=None)
    assert isinstance(second, Retracted)
    assert isinstance(third, Retracted)
    assert (second.event, third.event) == (first.id, kept)
    ref = f"refs/expmgr/log/{ANN}"
    assert repo.git("show", f"{ref}~1:review.json") == f"{first.id} {kept}"
    assert repo.git("show", f"{ref}~1:x") == old  # no name of an event
    assert [one.time for one in (first, second, third)] == [1, 2, 3]


def test_words_are_taken_back_by_whoever_said_them_and_later(repo: Repo) -> None:
    said = say(repo, "one")
    other = say(repo, "other", "bob-00000002")
    for writer, mail, event_id in ((ANN, "bob@x", said.id), ("bob-00000002", "ann@example.com", said.id)):
        draft = Draft(Retracted, {"event": event_id, "reason": "no"})
        logs(repo).append(writer, [draft], now=6.0, actor=Actor(name="X", email=mail))
    assert logs(repo).retracted(logs(repo).events()) == {}
    mine = Draft(Retracted, {"event": said.id, "reason": "wrong"})
    logs(repo).append(ANN, [mine], now=7.0, actor=Actor(name="Ann", email="ann@example.com"))
    found = logs(repo).retracted(logs(repo).events())
    assert {key: one.event.title for key, one in found.items()} == {said.id: f"retract {said.id[:12]}: wrong"}
    assert other.id not in found
    early = event(time=1, kind="retract", event=other.id, reason="x", writer="bob-00000002")
    assert parse_event(canonical(early), "bob-00000002").time == 1


@pytest.mark.parametrize(
    ("ref", "writer"),
    [
        (f"refs/expmgr/log/{ANN}", ANN),
        (f"refs/expmgr/remotes/origin/log/{ANN}", ANN),
        (f"refs/expmgr/remotes/a/b/log/{ANN}", ANN),
        (f"refs/expmgr/remotes/origin/keep/{ANN}", None),
        (f"refs/expmgr/remotes/origin/logs/{ANN}", None),
        (f"refs/expmgr/remotes/log/kept/{ANN}", None),
        (f"refs/expmgr/keep/log/{ANN}", None),
        (f"refs/heads/log/{ANN}", None),
        ("refs/expmgr/log/nobody", None),
        (f"refs/expmgr/log/{ANN}x", None),
    ],
)
def test_a_ref_is_a_log_by_its_place_and_its_name(ref: str, writer: str | None) -> None:
    assert writer_of(ref) == writer


def test_a_writers_id_is_made_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (user, slug) in enumerate(
        [("Ann Lee", "ann-lee"), ("--Ünal--", "nal"), ("???", "user"), ("x" * 50, "x" * 32)]
    ):
        monkeypatch.setattr(getpass, "getuser", lambda user=user: user)
        own = tmp_path / str(number) / "expmgr"
        own.mkdir(parents=True)
        made = writer_id(own)
        assert made.rpartition("-")[0] == slug
        assert is_writer(made)

    def unknown() -> str:
        raise KeyError("no such uid")

    monkeypatch.setattr(getpass, "getuser", unknown)
    own = tmp_path / "unknown" / "expmgr"
    own.mkdir(parents=True)
    assert writer_id(own).startswith("user-")


def test_a_broken_list_of_writers_is_begun_again(tmp_path: Path) -> None:
    own = tmp_path / "expmgr"
    assert all_writers(tmp_path) == set()
    first = writer_id(own)
    written = json.loads((own / "writer.json").read_bytes())
    (kept,) = written["writers"]
    assert written == {"format": 1, "writers": [{"id": first, "place": kept["place"]}]}
    assert kept["place"][1] == tmp_path.stat().st_ino
    for wrong in ({**kept, "id": 3}, {**kept, "place": None}):
        (own / "writer.json").write_text(json.dumps({"format": 1, "writers": [wrong, kept]}))
        assert all_writers(own) == {first}
        assert writer_id(own) == first
    for text in ("[]", "{}", '{"writers": [{"id": "x"}]}', "3", "not JSON"):
        (own / "writer.json").write_text(text)
        assert all_writers(own) == set()
        assert writer_id(own) != first
