"""Finds variants among the branches, and creates a variant as a branch with one commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expmgr.errors import (
    BadName,
    CheckoutNotPutBack,
    DataProblem,
    ExpmgrError,
    NoCommitYet,
    SpecProblem,
    UncommittedChanges,
    UnknownVariant,
    did_you_mean,
)
from expmgr.git.checkouts import switch_branch, uncommitted
from expmgr.git.commits import write_commit
from expmgr.git.process import TooMuchOutput, call_git
from expmgr.git.repo import CommitId, GitRepo, branch_exists
from expmgr.paths import BRANCH_PREFIX, VariantName, parse_variant

if TYPE_CHECKING:
    from expmgr.spec.data import CsvData
    from expmgr.spec.experiment import ExperimentSpec

# expmgr.spec.yaml_file is imported where it is used: `list` needs no YAML, and should not load it.

_HEADS = f"refs/heads/{BRANCH_PREFIX}"
_UNTOUCHED = "Nothing was changed."
_LINK = "120000"
_LFS = b"version https://git-lfs.github.com/spec/v1"
#: Data that is looked at before a variant is made of it; a run looks at all.
_MOST_BYTES = 5_000_000
#: How variants were made: a few hundred bytes each.
_MOST_ORIGINS_BYTES = 16_000_000
#: The commit that made one variant.
_MOST_ORIGIN_BYTES = 100_000


@dataclass(frozen=True)
class Variant:
    """A variant and the newest commit of its branch. `committed_at` is in seconds since 1970, UTC."""

    name: VariantName
    commit: CommitId
    committed_at: int
    subject: str


@dataclass(frozen=True)
class Origin:
    """How a variant was made: from what (a variant, a branch, a commit), and why."""

    base: str
    why: str


@dataclass(frozen=True)
class VariantPlan:
    """A variant that can be made: the commit it starts from, its spec, the message of its commit.

    `folders` are the trees on the way to the spec, as the commit has them (`GitRepo.read_with_folders`).
    """

    name: VariantName
    base: CommitId
    spec_text: bytes
    message: str
    folders: Mapping[str, bytes]
    called: str
    """What it is made from, as it was called."""
    why: str = ""
    is_same: bool = False
    """Whether values were set, and the spec says what that of the base says."""


def all_variants(repo: GitRepo) -> list[Variant]:
    """Every variant, by name. A branch below exp/ that is not named like a variant is none."""
    variants = []
    for branch in repo.branches(_HEADS):
        try:
            name = parse_variant(branch.ref.removeprefix(_HEADS))
        except BadName:
            continue
        variants.append(Variant(name, branch.commit, branch.committed_at, branch.subject))
    return variants


def find_variant(repo: GitRepo, text: str, known: Sequence[Variant] | None = None) -> Variant:
    """The variant called `text`, by its full name or by a short one that is unambiguous; else `UnknownVariant`. `known`:
    all variants, where they were read before."""
    variants = all_variants(repo) if known is None else known
    found = _called(variants, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise _ambiguous(text, found)
    names = {str(one.name) for one in variants}
    shown = "expmgr list shows all variants" if variants else f"there is no variant yet: {first_variant(repo)}"
    hint = did_you_mean(text, names | {one.name.variant for one in variants}, shown)
    raise UnknownVariant(f"there is no variant {text}", left_alone=_UNTOUCHED, hint=hint)


def _called(variants: Sequence[Variant], text: str) -> list[Variant]:
    """The variants that `text` may mean."""
    found = [one for one in variants if str(one.name) == text]
    return found or [one for one in variants if one.name.variant == text]


def _ambiguous(text: str, found: Sequence[Variant]) -> UnknownVariant:
    names = " and ".join(str(one.name) for one in found)
    return UnknownVariant(f"{text} is the short name of {names}", left_alone=_UNTOUCHED, hint="say the full name")


def spec_of(repo: GitRepo, variant: Variant) -> ExperimentSpec:
    """The spec at the variant's newest commit."""
    from expmgr.spec.yaml_file import read_spec

    content = repo.read(variant.commit, variant.name.spec_path)
    if content is None:
        raise SpecProblem(
            f"{variant.name.spec_path} is not on branch {variant.name.branch}",
            hint=f"add it there: git switch {variant.name.branch}",
        )
    return read_spec(content, f"{variant.name.branch}:{variant.name.spec_path}", variant.name.experiment)


def origins(
    repo: GitRepo, ran_at: Mapping[str, str] | None = None, variants: Sequence[Variant] | None = None
) -> dict[VariantName, Origin]:
    """How each variant was made, read from the trailers of the commit that made it.

    `ran_at` gives a commit of variants whose branches may be gone; `variants` are all, where they were read before.
    """
    # Usually that commit is on no other branch. Where it is, after a merge, only the whole history has it.
    own = (f"--branches={BRANCH_PREFIX}*", "--not", f"--exclude={BRANCH_PREFIX}*", "--branches")
    unread: dict[str, int] = {}
    found = _read_origins(repo, unread, *own)
    merged = [variant.name.ref for variant in variants or all_variants(repo) if variant.name not in found]
    if merged:
        found = {**_read_origins(repo, unread, "--first-parent", *merged), **found}
    known = {str(name) for name in found}
    gone = sorted({commit for name, commit in (ran_at or {}).items() if name not in known})
    if gone:
        found = {**_read_origins(repo, unread, "--first-parent", "--ignore-missing", *gone), **found}
    for commit, size in unread.items():
        branches = " and ".join(ref.removeprefix("refs/heads/") for ref in repo.refs_with(commit, _HEADS))
        repo.on_note(
            f"the message of commit {commit[:12]}{branches and f' on {branches}'} is not read: the commit has {size:,} "
            f"bytes, and expmgr reads {_MOST_ORIGIN_BYTES:,} at most"
        )
    return found


def _read_origins(repo: GitRepo, unread: dict[str, int], *commits: str) -> dict[VariantName, Origin]:
    """`unread` is given the commits that are too large to be read, with their sizes."""
    try:
        text = _log_of_origins(repo, *commits, "--")
    except TooMuchOutput:  # somebody pushed a message of megabytes
        text = "".join(_log_of_small(repo, unread, commits))
    found: dict[VariantName, Origin] = {}
    parts = text.split("\0")
    for name, base, why in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        try:
            found.setdefault(parse_variant(name.strip()), Origin(base.strip(), why.strip()))
        except BadName:
            continue
    return found


_NAMES_A_VARIANT = ("--basic-regexp", "--grep=^Expmgr-Variant: ")


def _log_of_origins(repo: GitRepo, *asked: str, stdin: str | None = None) -> str:
    fields = "%(trailers:key=Expmgr-Variant,valueonly)%x00%(trailers:key=Expmgr-From,valueonly)%x00%s%x00"
    answer = call_git(
        repo.folder,
        ["log", f"--format=tformat:{fields}", "--encoding=UTF-8", "--no-show-signature", *_NAMES_A_VARIANT, *asked],
        stdin=None if stdin is None else stdin.encode("ascii"),
        config=("trailer.separators=:",),
        most_bytes=_MOST_ORIGINS_BYTES,
    )
    return answer.text if answer.status == 0 else ""


def _log_of_small(repo: GitRepo, unread: dict[str, int], commits: Sequence[str]) -> Iterator[str]:
    """What `git log` prints of the commits of a size that is read, a few at a time; the others are added to `unread`."""
    answer = call_git(repo.folder, ["rev-list", *_NAMES_A_VARIANT, *commits, "--"])
    ids = answer.text.split() if answer.status == 0 else []
    sizes = repo.sizes(ids)
    unread |= {commit: size for commit, size in zip(ids, sizes, strict=True) if size > _MOST_ORIGIN_BYTES}
    small = [commit for commit, size in zip(ids, sizes, strict=True) if size <= _MOST_ORIGIN_BYTES]
    count = _MOST_ORIGINS_BYTES // _MOST_ORIGIN_BYTES // 4  # a commit is printed three times at most
    for at in range(0, len(small), count):
        portion = "".join(f"{commit}\n" for commit in small[at : at + count])
        yield _log_of_origins(repo, "--no-walk=unsorted", "--stdin", stdin=portion)


def plan_variant(
    repo: GitRepo,
    text: str,
    base: str | None,
    assignments: Sequence[str],
    why: str | None,
    edit: Callable[[bytes, Callable[[bytes], None]], bytes] | None = None,
    packages: Collection[str] = (),
) -> VariantPlan:
    """Decide everything about a new variant; raise where it cannot be made. Nothing is written.

    `edit` is given the text of the spec and a function that raises for one that is wrong, and gives the text that is wanted.
    `packages`: installed packages that the spec may name code of.
    """
    from expmgr.spec.yaml_file import set_values

    name = parse_variant(text)
    clash = repo.clash(name.ref)
    if clash is not None:
        raise branch_exists(name.ref, clash)
    commit, called, branch = _base(repo, base)
    content, folders = repo.read_with_folders(commit, name.spec_path)
    _check_committed(repo, name, content, base)
    if content is None:
        raise _no_experiment(repo, name, commit, called)
    source = f"{branch}:{name.spec_path}" if branch else name.spec_path
    spec_text = set_values(content, assignments, source, name.experiment)
    of_data = any(assignment.partition("=")[0].split(".")[0] == "data" for assignment in assignments)
    check_spec(repo, commit, name, spec_text, packages, data=of_data)
    if edit is not None:
        spec_text = edit(spec_text, lambda text: check_spec(repo, commit, name, text, packages, data=True))
    title = (why or "").strip() or f"New variant {name}"
    body = "".join(f"{assignment}\n" for assignment in assignments)
    trailers = f"Expmgr-Variant: {name}\nExpmgr-From: {called}\n"
    message = "\n\n".join(part for part in (title, body.rstrip(), trailers) if part)
    is_same = bool(assignments) and _says_the_same(content, spec_text, name)
    return VariantPlan(name, commit, spec_text, message, folders, called, title if why else "", is_same)


def _says_the_same(old: bytes, new: bytes, name: VariantName) -> bool:
    from expmgr.spec.yaml_file import read_spec

    if old == new:
        return True
    try:
        return read_spec(old, name.spec_path, name.experiment) == read_spec(new, name.spec_path, name.experiment)
    except SpecProblem:  # the base's may be wrong
        return False


def check_spec(
    repo: GitRepo, commit: CommitId, name: VariantName, content: bytes, packages: Collection[str], *, data: bool
) -> None:
    """Raise `SpecProblem` or `DataProblem` where the commit has not the code that the new spec names, or not the data."""
    from expmgr.spec.data import CsvData
    from expmgr.spec.model import ScriptModel
    from expmgr.spec.yaml_file import read_spec
    from expmgr.variants.code_lookup import check_references, references_of

    spec = read_spec(content, name.spec_path, name.experiment)
    if any(references_of(spec)) or isinstance(spec.model, ScriptModel):
        paths = {entry.path for entry in repo.tree(commit)}
        check_references(spec, name.folder, paths, lambda path: repo.read(commit, path), packages)
    if data and isinstance(spec.data, CsvData):
        _check_data(repo, commit, name, spec.data, is_classifier=spec.is_classifier)


def _check_data(repo: GitRepo, commit: CommitId, name: VariantName, data: CsvData, *, is_classifier: bool) -> None:
    """Raise `DataProblem` where the data in the commit is not what the new spec says of it.

    Looked at are small files that lie in the experiment's folder as they are (no links, nothing that git LFS keeps).
    """
    from posixpath import normpath

    from expmgr.data import csvdata
    from expmgr.data.locations import is_outside

    entries = {entry.path: entry for entry in repo.tree(commit, name.folder)}
    tables = {}
    for split, file in csvdata.files_of(data).items():
        path = normpath(f"{name.folder}/{file}")
        if is_outside(file) or f"{path}.dvc" in entries:
            return
        if not path.startswith(f"{name.folder}/"):
            return
        if path not in entries:
            raise DataProblem(
                f"{path} is not in the commit (data.{split})",
                left_alone=_UNTOUCHED,
                hint=did_you_mean(
                    file, (one.removeprefix(f"{name.folder}/") for one in entries), "add it with git, and commit"
                ),
            )
        (content,) = repo.objects_within([f"{commit}:{path}"], _MOST_BYTES)
        if not isinstance(content, bytes) or entries[path].mode == _LINK or content.startswith(_LFS):
            return
        tables[split] = csvdata.read_table(content, path)
    csvdata.dataset(data, tables, is_classifier=is_classifier)


def make_variant(repo: GitRepo, plan: VariantPlan) -> CommitId:
    """Make the branch and its commit; the user's HEAD, index, files and stash are not touched."""
    commit = write_commit(repo, plan.base, {plan.name.spec_path: plan.spec_text}, plan.message, plan.folders)
    repo.create_branch(plan.name.ref, commit, f"expmgr: new {plan.name}")
    return commit


def switch_to(repo: GitRepo, name: VariantName) -> None:
    """Check out the branch of a variant that was just made. Raises `GitFailed` where the user's changes are in the way."""
    assert repo.root is not None
    try:
        switch_branch(repo.root, name.branch)
    except ExpmgrError as error:
        error.message = f"{name} was made, but its branch cannot be checked out"
        if isinstance(error, CheckoutNotPutBack):
            raise
        error.left_alone = "Your checkout is as it was."
        error.hint = error.hint or f"git switch {name.branch}, once your changes are committed or stashed"
        raise


def _base(repo: GitRepo, base: str | None) -> tuple[CommitId, str, str | None]:
    """The commit that a new variant starts from, what to call it, and the branch of the variant that `base` names."""
    if base is None or base in ("HEAD", "@"):
        head, ref = _head(repo), repo.head_ref()
        return head, ref.removeprefix("refs/heads/").removeprefix(BRANCH_PREFIX) if ref else head, None
    require_commit(repo)
    found = _called(all_variants(repo), base)
    if len(found) == 1:
        return found[0].commit, str(found[0].name), found[0].name.branch
    commit = repo.commit_of(base)
    if commit is not None:
        return commit, " ".join(base.split()), None  # on one line, for the trailer
    if found:
        raise _ambiguous(base, found)
    try:
        find_variant(repo, base)
    except UnknownVariant as error:
        hint = error.hint
    raise UnknownVariant(f"{base} is neither a variant nor a commit", left_alone=_UNTOUCHED, hint=hint)


def _check_committed(repo: GitRepo, name: VariantName, content: bytes | None, base: str | None) -> None:
    """A spec that lies in the checkout but not in a commit is what the user thinks of: say that it would be lost."""
    if repo.root is None or (base is not None and content is not None):
        return
    path = repo.root / name.spec_path
    if not path.is_file() or not uncommitted(repo.root, [name.spec_path]):
        return
    state = "is not committed" if content is None else "has changes that are not committed"
    hint = f'git add {name.folder} && git commit -m "..."'
    if content is not None:
        hint += f"; or, to leave the changes out: expmgr new {name} --from HEAD"
    raise UncommittedChanges(f"{name.spec_path} {state}", left_alone=_UNTOUCHED, hint=hint)


def _no_experiment(repo: GitRepo, name: VariantName, commit: CommitId, called: str) -> SpecProblem:
    experiments = {entry.path.split("/")[1] for entry in repo.tree(commit, "experiments") if entry.path.count("/") == 2}
    option = "--example" if name.experiment == "iris" else "--experiment"
    command = f"expmgr init {option} {name.experiment} --commit"
    return SpecProblem(
        f"there is no experiment {name.experiment} at {called[:12] if called == commit else called}: "
        f"{name.spec_path} is missing",
        left_alone=_UNTOUCHED,
        hint=did_you_mean(name.experiment, experiments, command, typed=lambda near: f"{near}/{name.variant}"),
    )


def first_variant(repo: GitRepo) -> str:
    """The commands that lead to a first variant, by the experiments that there are."""
    head = repo.commit_of("HEAD")
    entries = repo.tree(head, "experiments") if head is not None else []
    committed = [
        entry.path.split("/")[1] for entry in entries if re.fullmatch("experiments/[^/]+/spec.yaml", entry.path)
    ]
    if committed:
        return f"expmgr new {committed[0]}/baseline"
    found = sorted((repo.root / "experiments").glob("*/spec.yaml")) if repo.root is not None else []
    if found:
        return _commit_first(found[0].parent.name)
    return "expmgr init --example iris --commit"


def _commit_first(experiment: str) -> str:
    folder = f"experiments/{experiment}"
    return f'git add {folder} && git commit -m "Add experiment {experiment}"; then expmgr new {experiment}/baseline'


def require_commit(repo: GitRepo) -> None:
    """Raise `NoCommitYet` where the repository has none."""
    try:
        _head(repo)
    except NoCommitYet:
        if not repo.branches("refs/heads/"):
            raise


def _head(repo: GitRepo) -> CommitId:
    """The commit that is checked out. The hint of `NoCommitYet` names the experiment that is there."""
    try:
        return repo.head()
    except NoCommitYet as error:
        if repo.root is not None and any((repo.root / "experiments").glob("*/spec.yaml")):
            error.hint = first_variant(repo)
        raise
