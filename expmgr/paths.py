"""Names of experiments, variants and runs, and the path of every file in a user's repository."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NewType

from expmgr.errors import BadName, SpecProblem

BranchName = NewType("BranchName", str)
RunId = NewType("RunId", str)

NAME_RULE = (
    "letters a-z, digits, '.', '_' and '-', the first a letter or digit, at most 64, no '..', "
    "no '.' and no '.lock' at the end"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")

#: Where experiments live on every branch, and where variants live among the branches.
EXPERIMENTS = "experiments"
BRANCH_PREFIX = "exp/"

#: What makes a folder a Python project of its own.
_OF_A_PROJECT = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})

#: `git rev-parse --local-env-vars` of git 2.39: inside a hook they point to another repository than the folder does.
REPOSITORY_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


@dataclass(frozen=True, order=True)
class VariantName:
    """`<experiment>/<variant>`, and the branch, spec and folders that follow from it."""

    experiment: str
    variant: str

    def __str__(self) -> str:
        return f"{self.experiment}/{self.variant}"

    @property
    def branch(self) -> BranchName:
        return BranchName(f"{BRANCH_PREFIX}{self}")

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.branch}"

    @property
    def folder(self) -> str:
        """The experiment's folder, relative to the repository's root, on every branch."""
        return experiment_folder(self.experiment)

    @property
    def spec_path(self) -> str:
        return f"{self.folder}/spec.yaml"


def experiment_folder(experiment: str) -> str:
    """The folder of an experiment, relative to the repository's root."""
    return f"{EXPERIMENTS}/{experiment}"


def check_name(name: str, what: str) -> str:
    """`name` itself, if the rule for experiments and variants allows it; otherwise `BadName` with the rule."""
    if not _NAME.match(name) or ".." in name or name.endswith((".lock", ".")):
        raise BadName(
            f"{_shown(name)} cannot be the name of {what}",
            hint=f"a name has {NAME_RULE}",
            left_alone="Nothing was changed.",
        )
    return name


def parse_variant(name: str) -> VariantName:
    """`iris/wide` as a `VariantName`; `BadName` for everything else, short names included."""
    experiment, slash, variant = name.partition("/")
    if not slash:
        raise BadName(
            f"{_shown(name)} names no experiment",
            hint=f"a variant is named EXPERIMENT/VARIANT, each with {NAME_RULE}",
            left_alone="Nothing was changed.",
        )
    return VariantName(check_name(experiment, "an experiment"), check_name(variant, "a variant"))


def module_roots(paths: Iterable[str]) -> list[str]:
    """Where the modules of a repository with the files `paths` are looked for besides the experiment's folder, each with a
    slash at its end: its root (''), its `src/`, and both of every Python project inside of it (`libs/model/`)."""
    found = ["", "src/"]
    for path in sorted(paths):
        folder, _, file = path.rpartition("/")
        if folder and file in _OF_A_PROJECT and not folder.startswith(f"{EXPERIMENTS}/"):  # those are experiments' own
            found += [f"{folder}/", f"{folder}/src/"]
    return list(dict.fromkeys(found))


def seeds_text(seeds: Iterable[int]) -> str:
    """Seeds as `--seeds` takes them: `0-2,7`."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and parts[-1][1] == seed - 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def run_command(variant: object, seed: int | None, max_steps: int | None) -> str:
    """What to type to train `variant`; None stands for what needs no word: a fixed seed, the steps of the spec."""
    seeds = f" --seeds {seed}" if seed else ""
    steps = "" if max_steps is None else f" --max-steps {max_steps}"
    return f"expmgr run {variant}{seeds}{steps}"


def _shown(name: str) -> str:
    """`name` in quotes, cut, and with nothing in it that a terminal would act on."""
    return repr(name if len(name) <= 70 else name[:67] + "...")


def home_path(text: str, what: str) -> Path:
    """`text` as a path, with the home folder that `~` or `~user` means. `SpecProblem`, which names `what`, if this machine
    has no such folder, or if no path can be written so."""
    try:
        if "\0" not in text:
            return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise SpecProblem(
            f"{what} is {_shown(text)}: this machine has no home folder {_shown(user)}",
            left_alone="Nothing was changed.",
            hint="write the whole path, from / on",
        ) from None
    raise SpecProblem(f"{what} is {_shown(text)}: no path has a zero byte", left_alone="Nothing was changed.")


@dataclass(frozen=True)
class Layout:
    """Where things lie. `git_common_dir` is shared by all worktrees; `models_root` is the root of all model_dirs."""

    git_common_dir: Path
    models_root: Path

    @property
    def own(self) -> Path:
        """`.git/expmgr/`: everything of ours that is not in git and not a model."""
        return self.git_common_dir / "expmgr"

    @property
    def runs(self) -> Path:
        return self.own / "runs"

    @property
    def active(self) -> Path:
        """One empty file a run that has begun and not ended, so that the next command finds what a crash left."""
        return self.own / "active"

    def stop_file(self, name: VariantName) -> Path:
        """Touched when somebody stops a variant: what waits to run of it then does not."""
        return self.own / "stopped" / f"{name.experiment}--{name.variant}"

    def run_dir(self, run_id: str) -> Path:
        return self.runs / run_id

    def variant_dir(self, name: VariantName) -> Path:
        """The variant's model_dir; each seed is a folder of its own in it."""
        return self.models_root / name.experiment / name.variant

    def model_dir(self, name: VariantName, seed: int) -> Path:
        return self.variant_dir(name) / f"seed-{seed}"


@dataclass(frozen=True)
class RunDir:
    """The folder of one run, `.git/expmgr/runs/<run-id>/`, and the files in it."""

    path: Path

    @property
    def record(self) -> Path:
        """The record: JSON, whole at every moment, immutable when the run has ended."""
        return self.path / "run.json"

    @property
    def before(self) -> Path:
        """The record without the attempt that goes on, byte for byte; gone when that has ended."""
        return self.path / "before.json"

    @property
    def request(self) -> Path:
        """What the worker is asked to do."""
        return self.path / "request.json"

    @property
    def events(self) -> Path:
        """Append-only: what happened, a line each with length and CRC (`durable.append_line`)."""
        return self.path / "events.jsonl"

    def damaged_events(self, attempt: int) -> Path:
        """The events of an attempt of which some could not be read, kept when the others were folded into the record."""
        return self.path / f"events-{attempt}.damaged.jsonl"

    @property
    def progress(self) -> Path:
        """Where the run stands now; replaced often, never fsynced, read only to be shown."""
        return self.path / "progress.json"

    @property
    def log(self) -> Path:
        """What the run's process wrote to stdout and stderr."""
        return self.path / "log.txt"

    @property
    def code(self) -> Path:
        """The run's own checkout at its commit; gone when the run has ended."""
        return self.path / "code"


def seeds_option(seed: int) -> str:
    """What a command needs to mean that seed."""
    return f" --seeds {seed}" if seed else ""


def has_tensorflow() -> bool:
    """Whether this interpreter would find TensorFlow, of whatever distribution; it is not imported."""
    import importlib.util

    found = importlib.util.find_spec("tensorflow")
    return found is not None and found.origin is not None  # a mere folder of that name is none
