"""What a clone says of its own, what it takes over from others, and which branch and remote are the team's."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clones import commit_on, put, ran, record_of, told
from expmgr.disk.locks import Process
from expmgr.log.events import Noted, RunTold
from expmgr.log.logs import OWN, REMOTES, Told
from expmgr.log.refs import KEEP, keep_ref
from expmgr.log.writers import writer_id
from expmgr.project import Project
from expmgr.runs.origin import ORIGIN, is_foreign, origin_of, teller_of
from expmgr.runs.record import Attempt, RunRecord
from expmgr.team.notes import notes_on
from expmgr.team.publish import catch_up, retold, tell, tell_runs
from expmgr.team.receive import by_teller, take_over
from expmgr.team.target_branch import newest, target_of, team_remote
from expmgr.team.validate_record import wrong_in
from team.events import event_of
from world import Repo, new_repo

BOB = "bob-00000002"


def mark_foreign(project: Project, record: RunRecord, writer: str = BOB) -> None:
    about = {"format": 1, "writer": writer, "event": "0" * 64, "attempt": 1, "by": "Bob"}
    (project.records.run_dir(record.run_id).path / ORIGIN).write_text(json.dumps(about))


def kinds(repo: Repo) -> list[str]:
    return [one["kind"] for one in told(repo, "log")["events"]]


# What is told.


def test_a_foreign_run_is_not_told_as_one_s_own(wide: Repo) -> None:
    """Though its commit is pinned, as it is while it is gone on with here."""
    (mine, theirs) = ran(wide, "iris/wide", 0.9, 0.8, tell=False)
    project = Project.open(wide.path)
    mark_foreign(project, theirs)
    assert [is_foreign(project.records.run_dir(one.run_id)) for one in (mine, theirs)] == [False, True]
    assert tell_runs(project) == 1
    events = [one for one in told(wide, "log")["events"] if one["kind"] == "run"]
    assert [one["run_id"] for one in events] == [mine.run_id]
    assert set(project.repo.refs(KEEP)) == {keep_ref(theirs.run_id)}
    assert tell_runs(project) == 0
    catch_up(project)
    assert kinds(wide) == ["variant", "run"]


def test_a_run_that_goes_on_is_not_told(wide: Repo) -> None:
    project = Project.open(wide.path)
    alive = [Attempt(number=1, started_at=1.0, max_steps=9, launcher=Process.current().as_dict())]
    record = record_of(project, "iris/wide", 0, 0.9, status="running", attempts=alive)
    put(project, record)
    assert tell_runs(project) == 0
    assert (kinds(wide), set(project.repo.refs(KEEP))) == (["variant"], {keep_ref(record.run_id)})


def test_an_attempt_is_told_once_and_the_next_one_too(wide: Repo) -> None:
    (record,) = ran(wide, "iris/wide", 0.9)
    project = Project.open(wide.path)
    path = project.records.run_dir(record.run_id).record
    for attempts, count in ((1, 1), (2, 2)):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "attempts": values["attempts"][:1] * attempts}))
        project.repo.set_ref(keep_ref(record.run_id), record.commit, "a run")
        assert tell_runs(project) == 1  # the pin goes in either case
        assert project.repo.refs(KEEP) == {}
        events = [one for one in told(wide, "log")["events"] if one["kind"] == "run"]
        assert [one["attempt"] for one in events] == [1, 2][:count]


def test_what_another_says_of_one_s_own_run_is_still_to_be_told(wide: Repo) -> None:
    (record,) = ran(wide, "iris/wide", 0.9)
    as_of(wide, BOB)
    project = Project.open(wide.path)
    project.repo.set_ref(keep_ref(record.run_id), record.commit, "a run")
    assert tell_runs(project) == 1
    writers = [one.event.writer for one in project.logs.events("run")]
    assert sorted(writers) == sorted([BOB, writer_id(project.layout.own)])


def test_what_is_scratch_tells_nothing(wide: Repo) -> None:
    ran(wide, "iris/wide", 0.9, tell=False)
    project = Project.open(wide.path)
    assert tell_runs(replace(project, is_scratch=True)) == 0
    assert kinds(wide) == ["variant"]
    assert tell_runs(project) == 1


def test_variants_of_others_are_not_told_as_one_s_own(iris: Repo, tmp_path: Path) -> None:
    """Made with git alone: ours where no remote has them, or where we wrote their newest commit."""
    hub = new_repo(tmp_path / "hub")
    hub.git("config", "receive.denyCurrentBranch", "ignore")
    iris.git("remote", "add", "origin", str(hub.path))
    iris.git("remote", "add", "fork", str(tmp_path / "nowhere"))  # which has none of them
    for name, who in (("local", "bob"), ("pushed", "ann"), ("theirs", "bob")):
        iris.git("branch", f"exp/iris/{name}", "main")
        folder = tmp_path / name
        iris.git("worktree", "add", "--quiet", str(folder), f"exp/iris/{name}")
        iris.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={who} <{who}@example.com>", folder=folder)
        if name != "local":
            iris.git("push", "--quiet", "origin", f"exp/iris/{name}")
    iris.git("fetch", "--quiet", "origin")
    catch_up(Project.open(iris.path))
    made = [one["variant"] for one in told(iris, "log")["events"] if one["kind"] == "variant"]
    assert sorted(made) == ["iris/local", "iris/pushed"]
    catch_up(Project.open(iris.path))
    assert kinds(iris) == ["variant", "variant"]


def test_what_stood_in_another_log_is_told_as_it_was(wide: Repo) -> None:
    """Who said it, when, and what lies beside it; not whose log it was in, nor its place there."""
    (record,) = ran(wide, "iris/wide", 0.9)
    project = Project.open(wide.path)
    drafts = retold(project, project.logs.events("run"))
    assert [(one.kind, sorted(one.files), one.was) for one in drafts] == [
        (RunTold, ["record.json"], project.logs.events("run")[0].id)
    ]
    assert drafts[0].values["run_id"] == record.run_id
    assert {"writer", "time"} & drafts[0].values.keys() == set()
    assert drafts[0].values["at"] == project.logs.events("run")[0].event.at
    assert json.loads(drafts[0].files["record.json"])["run_id"] == record.run_id


def test_notes_are_on_a_variant_or_on_one_of_its_runs(wide: Repo) -> None:
    (record,) = ran(wide, "iris/wide", 0.9)
    project = Project.open(wide.path)
    for about in ({}, {"run_id": record.run_id}):
        tell(project, [_draft(text=f"on {about}", **about)])
    assert [one.text for one in notes_on(project, "iris/wide", None)] == ["on {}"]
    assert [one.text for one in notes_on(project, "iris/wide", record.run_id)] == [
        f"on {{'run_id': '{record.run_id}'}}"
    ]
    assert notes_on(project, "iris/other", None) == []


def _draft(**values: Any) -> Any:
    from expmgr.log.logs import Draft

    return Draft(Noted, {"variant": "iris/wide", **values})


# Whose run it is.


def told_by(writer: str, mail: str | None, number: int) -> Told:
    """That `writer`, a person with that address, tells of something."""
    actor = {"name": writer, "email": mail} if mail else None
    event = event_of(Noted, writer=writer, time=number, variant="iris/wide", text="x", actor=actor)
    ref = f"{REMOTES}origin/log/{event.writer}"
    return Told(event.id, number, "note", f"{number:040x}", ref, number, event.content.decode())


def test_who_tells_is_a_person_with_all_clones_and_a_clone_with_all_addresses() -> None:
    def groups(*told: tuple[str, str | None]) -> list[list[int]]:
        found = by_teller([told_by(writer, mail, number) for number, (writer, mail) in enumerate(told, 1)])
        return sorted([one.time for one in some] for some in found)

    assert groups() == []
    assert groups(("a-1", "ann@x"), ("b-2", "bob@x")) == [[1], [2]]
    assert groups(("a-1", "ann@x"), ("a-2", "ann@x")) == [[1, 2]]  # two clones
    assert groups(("a-1", "ann@x"), ("a-1", "ann@y")) == [[1, 2]]  # two addresses
    assert groups(("a-1", None), ("b-2", None)) == [[1], [2]]  # nobody is not one person
    assert groups(("a-1", "ann@x"), ("a-2", "ann@y"), ("a-1", "ann@y")) == [[1, 2, 3]]  # the third joins them
    assert groups(("a-1", "ann@x"), ("b-2", "bob@x"), ("c-3", "cleo@x"), ("b-2", "ann@x")) == [[1, 2, 4], [3]]


def as_of(repo: Repo, writer: str) -> None:
    """This clone's log becomes one that was fetched from `writer`; its runs are no longer here."""
    project = Project.open(repo.path)
    own = writer_id(project.layout.own)
    events = retold(project, project.logs.events("run", "variant"))
    repo.git("update-ref", "-d", f"{OWN}{own}")
    project = Project.open(repo.path)
    project.logs.append(writer, events, now=1.0, actor=None)
    repo.git("update-ref", f"{REMOTES}origin/log/{writer}", f"{OWN}{writer}")
    repo.git("update-ref", "-d", f"{OWN}{writer}")


def test_a_run_of_another_is_taken_over_whole_and_as_theirs(wide: Repo) -> None:
    one, two = ran(wide, "iris/wide", 0.9, 0.8)
    as_of(wide, BOB)
    project = Project.open(wide.path)
    for record in (one, two):
        shutil.rmtree(project.records.run_dir(record.run_id).path)
    found = take_over(project)
    assert ([run.run_id for run in found.runs], found.passed_over) == ([one.run_id, two.run_id], {})
    folder = project.records.run_dir(one.run_id)
    assert (is_foreign(folder), origin_of(folder)) == (True, BOB)
    assert teller_of(folder, one) == "Ann"
    assert RunRecord.model_validate_json(folder.record.read_bytes()) == one
    assert take_over(project).runs == ()  # once
    origin = json.loads((folder.path / ORIGIN).read_text())
    # A run of this clone is never replaced, and one that another has told of first stays theirs.
    (folder.path / ORIGIN).write_text(json.dumps({**origin, "writer": "cleo-00000003", "event": "f" * 64}))
    (project.records.run_dir(two.run_id).path / ORIGIN).unlink()
    assert take_over(project).passed_over == {
        one.run_id: f"{BOB} tells of it, and so does cleo-00000003, whose it is here",
        two.run_id: f"{BOB} tells of it, and it is a run of this clone",
    }
    assert [path.name for path in project.layout.own.iterdir() if path.name.startswith(".")] == []


# What is believed of a record.


def changed(record: RunRecord, **values: Any) -> RunRecord:
    return record.model_copy(update=values)


def test_a_record_is_held_to_what_commands_take_for_granted(wide: Repo) -> None:
    project = Project.open(wide.path)
    good = record_of(project, "iris/wide", 0, 0.9)
    assert wrong_in(good) is None
    (attempt,), (checkpoint,) = good.attempts, good.checkpoints
    for values, where in (
        ({"seed": -1}, "seed: "),
        ({"seed": 2**31}, "seed: "),
        ({"created_at": float("nan")}, "created_at: "),
        ({"step": -1}, "step: "),
        ({"step": 2**53}, "step: "),
        ({"selected_step": -1}, "selected_step: "),
        ({"train_s": float("inf")}, "train_s: "),
        ({"train_s": -1.0}, "train_s: "),
        ({"examples_seen": -1}, "examples_seen: "),
        ({"parameters": -1}, "parameters: "),
        ({"attempts": []}, "attempts: "),
        ({"attempts": [changed_part(attempt, max_steps=-1)]}, "attempts.0.max_steps: "),
        ({"attempts": [changed_part(attempt, from_step=-1)]}, "attempts.0.from_step: "),
        ({"attempts": [changed_part(attempt, changes=[{"rule": "x"}])]}, "attempts.0.changes.0.what: "),
        ({"attempts": [changed_part(attempt, error={})]}, "attempts.0.error.message: "),
        ({"checkpoints": [changed_part(checkpoint, step=-1)]}, "checkpoints.0.step: "),
        ({"environment": {"name": 7}}, "environment.name: "),
        ({"warm_start": {"variant": "x"}}, "warm_start.seed: "),
        ({"by_hand": {"script": "x", "head": "y"}}, "by_hand.changed: "),
        ({"data": {"train": changed_part(good.data["train"], rows=-1)}}, "data.train.rows: "),
        ({"data": {"train": changed_part(good.data["train"], also_in_train=-1)}}, "data.train.also_in_train: "),
        ({"data": {"train": changed_part(good.data["train"], path="x" * 10_001)}}, "data.train.path: "),
        ({"spec": {}}, "spec.experiment: "),
        ({"spec": {**good.spec, "train": {"max_steps": "many"}}}, "spec.train."),
    ):
        wrong = wrong_in(changed(good, **values))
        assert wrong is not None, values
        assert wrong.startswith(where), wrong
    for values in (
        {"seed": 2**31 - 1}, {"step": 0}, {"parameters": None}, {"selected_step": None}, {"train_s": 0.0},
        {"spec": {**good.spec, "of_a_later_version": 1}},
    ):  # fmt: skip
        assert wrong_in(changed(good, **values)) is None


def changed_part(part: Any, **values: Any) -> Any:
    return part.model_copy(update=values)


# The team's branch.


@pytest.fixture
def joined(iris: Repo, tmp_path: Path) -> Repo:
    """Two remotes, and none that main follows."""
    for name in ("origin", "fork"):
        iris.git("clone", "--quiet", "--bare", ".", str(tmp_path / f"{name}.git"))
        iris.git("remote", "add", name, str(tmp_path / f"{name}.git"))
    iris.git("fetch", "--quiet", "--all")
    return iris


def test_the_team_s_remote_is_that_which_main_follows_then_origin_then_the_only_one(joined: Repo) -> None:
    def remote() -> str | None:
        return team_remote(Project.open(joined.path))

    assert remote() == "origin"
    joined.git("branch", "--quiet", "--set-upstream-to=fork/main", "main")
    assert remote() == "fork"
    joined.git("branch", "--quiet", "--unset-upstream", "main")
    joined.git("remote", "rename", "origin", "other")
    assert remote() is None  # two, and nothing says which
    joined.git("remote", "remove", "fork")
    assert remote() == "other"
    joined.git("remote", "remove", "other")
    assert remote() is None


def test_the_newest_of_a_branch_is_the_remote_s_where_that_goes_on(joined: Repo) -> None:
    def tip(branch: str = "main") -> str | None:
        return newest(Project.open(joined.path), branch)

    first = joined.git("rev-parse", "main").strip()
    assert tip() == first
    second = joined.commit("second")
    assert tip() == second  # one's own goes on
    joined.git("push", "--quiet", "origin", "main")
    joined.git("push", "--quiet", "fork", f"{joined.commit('third')}:refs/heads/main")
    joined.git("reset", "--quiet", "--hard", first)
    assert tip() == second  # the team's, and not the fork's
    aside = joined.commit("another way")
    assert tip() == aside  # neither goes on from the other
    joined.git("switch", "--quiet", "--detach")
    joined.git("branch", "-D", "main")
    assert tip() == second
    assert (tip("nope"), tip("HEAD")) == (None, aside)


def test_the_target_is_what_the_machine_says_then_the_default_branch_then_its_name(joined: Repo) -> None:
    def target() -> str:
        return target_of(Project.open(joined.path))

    assert target() == "main"
    joined.git("branch", "develop")
    joined.git("branch", "release")
    joined.write("pyproject.toml", '[tool.expmgr]\ntarget = "release"\n')
    assert target() == "main"  # what lies in a checkout may be anybody's
    commit_on(joined, "develop", "pyproject.toml", '[tool.expmgr]\ntarget = "develop"\n')
    assert target() == "main"
    joined.git("add", "--all")
    joined.git("commit", "--quiet", "-m", "a target")
    assert target() == "release"
    joined.write(".git/expmgr/config.toml", 'target = "develop"\n')
    assert target() == "develop"
    joined.write(".git/expmgr/config.toml", 'target = "nope"\n')
    assert target() == "release"
    joined.git("branch", "-D", "release")
    assert target() == "main"
    (joined.path / ".git/expmgr/config.toml").unlink()
    joined.git("remote", "remove", "origin")
    joined.git("remote", "remove", "fork")
    joined.git("branch", "-m", "main", "trunk")
    assert target() == "HEAD"
    joined.write("pyproject.toml", '[tool.expmgr]\ntarget = "trunk"\n')
    assert target() == "trunk"  # where there is no default branch
