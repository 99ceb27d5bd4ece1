"""One call of `run`: its options, the commit that it makes first, what it fetches, its tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from expmgr.errors import BadArgument, UncommittedChanges
from expmgr.git.checkouts import commit_paths, worktrees
from expmgr.git.repo import CommitId
from expmgr.launch.arguments import name_pairs, whole_number
from expmgr.launch.before import OnNote, backend_notes, from_store
from expmgr.launch.check_plan import parse_checkpoint
from expmgr.launch.environments import environment_of
from expmgr.launch.plan import How, Task, WarmStartOption, plan_tasks
from expmgr.paths import VariantName
from expmgr.project import Project
from expmgr.runs.origin import is_foreign
from expmgr.variants.code_digest import uncommitted_code
from expmgr.variants.variants import find_variant


@dataclass(frozen=True)
class RunCall:
    """What a call was given, before anything is looked up. Raises `BadArgument` for what contradicts itself."""

    variants: tuple[str, ...]
    seeds: tuple[int, ...] | None = None
    """None: seed 0, or the one that the spec fixes."""
    max_steps: int | None = None
    """None: the spec's."""
    jobs: int = 1
    """How many runs at a time."""
    fresh: bool = False
    from_step: int | None = None
    scratch: bool = False
    """Train in a temporary model_dir, and record nothing."""
    detach: bool = False
    allow: tuple[str, ...] = ()
    warm_start_from: str | None = None
    """`VARIANT[:SEED][@STEP]`."""
    maps: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    with_optimizer: bool = False
    grow: bool = False
    commit: str | None = None
    """The message of a commit of the variant's changes, made first."""

    def __post_init__(self) -> None:
        self._check_values()
        if self.commit is not None and len(self.variants) != 1:
            raise BadArgument("a commit before the run takes one variant, the one that is checked out")
        if self.warm_start_from is None and (self.maps or self.only or self.with_optimizer or self.grow):
            raise BadArgument("map, only, with-optimizer and grow need a checkpoint to warm-start from")
        if self.fresh and self.from_step is not None:
            raise BadArgument("a run either starts over (fresh) or goes back to the checkpoint of a step (from-step)")
        is_elsewhere = self.fresh or self.from_step is not None or self.warm_start_from is not None or self.detach
        if self.scratch and is_elsewhere:
            raise BadArgument("a scratch run starts at step 0 in a temporary folder, and waits for the end")

    def _check_values(self) -> None:
        """The names in messages are those of the options, which fit the arguments of `Repository.run` too."""
        if not self.variants:
            raise BadArgument("a run takes one variant or more")
        numbers = {"max-steps": (self.max_steps, 1), "jobs": (self.jobs, 1), "from-step": (self.from_step, 0)}
        for name, (value, least) in numbers.items():
            if value is not None or name == "jobs":
                object.__setattr__(self, name.replace("-", "_"), whole_number(name, value, least))
        name_pairs("map", self.maps)

    @property
    def arguments(self) -> list[str]:
        """What to type after `expmgr` for the same call in the foreground, without the commit, which is made by then."""
        seeds = None if self.seeds is None else ",".join(map(str, self.seeds))
        options = {"--seeds": seeds, "--max-steps": self.max_steps, "--jobs": self.jobs, "--from-step": self.from_step}
        options["--warm-start-from"] = self.warm_start_from
        lists = {"--allow": self.allow, "--map": [f"{old}={new}" for old, new in self.maps], "--only": self.only}
        flags = {"--fresh": self.fresh, "--with-optimizer": self.with_optimizer, "--grow": self.grow}
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        given += [word for name, values in lists.items() for one in values for word in (name, one)]
        return ["run", *self.variants, *given, *(name for name, is_set in flags.items() if is_set)]


@dataclass(frozen=True)
class Committed:
    """What was committed before a run."""

    name: VariantName
    files: Sequence[str]
    """Empty where there was nothing to commit."""
    commit: CommitId
    """The newest of the variant's branch now."""


def commit_changes(project: Project, text: str, message: str) -> Committed:
    """Commit what a run of the variant would not see, in the checkout where it is checked out.

    Raises `UncommittedChanges` where the variant is not checked out, and `SpecProblem` for a spec that is wrong.
    """
    from expmgr.spec.yaml_file import read_spec

    variant = find_variant(project.repo, text)
    if all(worktree.ref != variant.name.ref for worktree in worktrees(project.repo)):
        raise UncommittedChanges(
            f"{variant.name} is not checked out, so there is nothing of it to commit",
            left_alone="Nothing was changed.",
            hint=f"git switch {variant.name.branch}, or run it as it is: expmgr run {variant.name}",
        )
    found = uncommitted_code(project.repo, variant.commit, variant.name)
    if found is None:
        return Committed(variant.name, (), variant.commit)
    root, files = found
    spec_path = Path(root, variant.name.spec_path)
    if spec_path.is_file():  # a spec that is wrong is no commit
        wanted = read_spec(spec_path.read_bytes(), variant.name.spec_path, variant.name.experiment)
        environment_of(project, wanted)  # nor is one that cannot be run here
    project.repo.identity()
    return Committed(variant.name, files, commit_paths(Path(root), files, message, on_note=project.repo.on_note))


def plan_call(project: Project, call: RunCall, on_note: OnNote, done: list[str]) -> list[Task]:
    """The tasks of a call, and what is to be fetched for them fetched, which `done` then says. Raises what is wrong with any
    of them (`plan_tasks`), and nothing has been started."""
    warm = None if call.warm_start_from is None else _warm_start(project, call, call.warm_start_from)
    how = How(call.max_steps, call.fresh, call.from_step, call.allow, warm)
    tasks = plan_tasks(project, call.variants, call.seeds, how)
    for note in (*backend_notes(), *_made_elsewhere(project, tasks)):
        on_note(note)
    if not (call.fresh or call.scratch) and _fetch_lost(project, tasks, warm, on_note):
        done.append("what was fetched")
    return tasks


def place_of(project: Project, call: RunCall) -> Project:
    """Where a call trains: `project`, or a temporary place that is like it."""
    return project.scratch(Path(tempfile.mkdtemp(prefix="expmgr-scratch-"))) if call.scratch else project


def _warm_start(project: Project, call: RunCall, text: str) -> WarmStartOption:
    name, step = parse_checkpoint(text)
    name, colon, seed = name.partition(":")
    if colon and not (seed.isascii() and seed.isdigit()):
        raise BadArgument(f"{text!r} names no checkpoint: VARIANT[:SEED][@STEP]")
    variant = find_variant(project.repo, name).name
    wish = (call.maps, call.only, call.with_optimizer, call.grow)
    return WarmStartOption(variant, step, int(seed) if colon else None, *wish)


def _made_elsewhere(project: Project, tasks: Sequence[Task]) -> Iterator[str]:
    """Which of the runs somebody else has made already, at the same commit."""
    heads = {(one.variant, one.seed, one.commit): one for one in project.records.heads() if one.status == "finished"}
    for task in tasks:
        head = heads.get((str(task.name), task.seed, task.commit))
        if head is not None and is_foreign(project.records.run_dir(head.run_id)):
            yield f"{task} was trained in another clone already, by run {head.run_id}; here it is trained again"


def _fetch_lost(project: Project, tasks: Sequence[Task], warm: WarmStartOption | None, on_note: OnNote) -> bool:
    """Bring from the store what runs of this clone go on from, or start from, where it is not here any more; whether there
    was something to bring."""
    if project.settings.store is None:
        return False
    found = False
    for task in tasks:
        mine = project.records.newest(task.name, task.seed)
        if mine is not None:
            found |= from_store(project, str(task.name), task.seed, None, on_note, record=mine)
        if warm is not None:
            seed = task.seed if warm.seed is None else warm.seed
            found |= from_store(project, str(warm.name), seed, warm.step, on_note)
    return found
