"""The code that a variant reaches, and its digest: the experiment's folder and all modules it imports.

These are the modules that its spec names, and by static imports from them those of the repository.

Read from git objects or from names alone: nothing of it is run.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence, Set

from expmgr.errors import FileTooLarge, SpecProblem
from expmgr.git.checkouts import uncommitted, worktrees
from expmgr.git.objects import TreeEntry
from expmgr.git.repo import SUBMODULE, GitRepo
from expmgr.paths import VariantName, module_roots
from expmgr.spec.model import ScriptModel
from expmgr.spec.python_code import NotPython, parse_python
from expmgr.variants.code_lookup import COMPILED, compiled_by_source, references_of


def reached(paths: Iterable[str], name: VariantName, read: Callable[[str], bytes | None]) -> list[str]:
    """The files of the experiment's folder, and the modules among `paths` that the spec names or static imports reach,
    sorted.

    `read` gives the content of one of `paths`. A file that is not Python's grammar imports nothing. A compiled module counts
    as its source would, beside it too: Python may prefer it.
    """
    there, folder = set(paths), name.folder
    compiled = compiled_by_source(there)
    known = there | compiled.keys()
    shared = module_roots(there)
    found = {path for path in there if path.startswith(f"{folder}/")}
    roots = [f"{folder}/", *shared]
    modules, script = _named(read(name.spec_path), name)
    found |= {file for module in modules for file in _read_by(module, roots, known)} | ({script} & known)
    queue = [path for path in found if path.endswith(".py")]
    while queue:
        path = queue.pop()
        content = (read(path) if path in there else None) or b""
        roots = [f"{folder}/", *shared] if path.startswith(f"{folder}/") else shared
        for candidate in _imports(content, path, roots, known):
            if candidate not in found:
                found.add(candidate)
                queue.append(candidate)
    return sorted((found & there).union(*(compiled[path] for path in found & compiled.keys())))


def _imports(content: bytes, path: str, roots: Sequence[str], known: Set[str]) -> set[str]:
    """The files of `known` that the imports in `content`, the module at `path`, may mean."""
    try:
        tree = parse_python(content)
    except NotPython:
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _read_by(alias.name, roots, known)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
            if node.level:
                package = "/".join(path.split("/")[: -node.level])
                start = f"{package}/" if package else ""
                found |= {file for one in names if one for file in _files(start, one)} & known
            else:
                found |= {file for one in names if one for file in _read_by(one, roots, known)}
    return found


def _read_by(module: str, roots: Sequence[str], known: Set[str]) -> set[str]:
    """The files of `known` that `import module` may read: below the first of the experiment's folder, the root and its
    `src/` that has the module; else below every project, of which the environment decides."""
    top = module.partition(".")[0]
    for root in roots[: next((at for at, one in enumerate(roots) if one == "src/"), -1) + 1]:
        if {f"{root}{top}.py", f"{root}{top}/__init__.py"} & known:
            return _files(root, module) & known
    return {file for root in roots for file in _files(root, module)} & known


def _named(content: bytes | None, name: VariantName) -> tuple[frozenset[str], str]:
    """The modules that the spec `content` names, and the path of its script; none where it is no spec, which others say."""
    return _named_in(content or b"", VariantName(name.experiment, "any"))


@functools.lru_cache(maxsize=256)  # a list of reviews asks for the same specs again and again
def _named_in(content: bytes, name: VariantName) -> tuple[frozenset[str], str]:
    from expmgr.spec.yaml_file import read_spec  # a list whose digests are known needs no YAML

    try:
        spec = read_spec(content, name.spec_path, name.experiment)
    except SpecProblem:
        return frozenset(), ""
    script = posixpath.normpath(f"{name.folder}/{spec.model.script}") if isinstance(spec.model, ScriptModel) else ""
    return frozenset(reference.partition(":")[0] for _, reference in references_of(spec)), script


def _files(root: str, module: str) -> set[str]:
    """The files that `import module` reads below `root`: the module, and each package on the way to it."""
    parts = module.split(".")
    files = {f"{root}{'/'.join(parts)}.py"}
    for count in range(1, len(parts) + 1):
        files.add(f"{root}{'/'.join(parts[:count])}/__init__.py")
    return files


def code_digest(repo: GitRepo, commit: str, name: VariantName) -> str:
    """sha256 over the files that a variant reaches at `commit`: path, mode and object id of each.

    Prose (*.md) and what reviews froze do not count, and the spec does not: a record holds it resolved.
    """
    counted = counted_files(repo, commit, name).values()
    text = "".join(f"{entry.path}\0{entry.mode}\0{entry.oid}\n" for entry in counted)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def counted_files(repo: GitRepo, commit: str, name: VariantName) -> dict[str, TreeEntry]:
    """The files that `code_digest` is of, by path, in its order."""
    entries = {entry.path: entry for entry in _entries(repo, commit, name)}
    too_large: list[str] = []

    def read(path: str) -> bytes | None:
        content = _content(repo, commit, path)
        if content is None:
            too_large.append(path)
        return content

    files = set(reached(entries, name, read))
    # What a module imports that is too large to be read is not looked up, so all modules count.
    if any(path.endswith(".py") and path in entries for path in too_large):
        files |= {path for path in entries if path.endswith(".py")}
    # What lies in a submodule is in another repository: which of its modules are imported is not looked up, so all count.
    files |= {path for path, entry in entries.items() if entry.mode == SUBMODULE}
    return {path: entries[path] for path in sorted(files) if not _is_prose(path, name)}


def _content(repo: GitRepo, commit: str, path: str) -> bytes | None:
    """The content of a file, None where there is none or expmgr reads none so large: its id is what a digest needs."""
    try:
        return repo.read(commit, path)
    except FileTooLarge:
        return None


#: In an experiment's folder: what was decided, as `review merge` writes it.
_REVIEW = re.compile(r"reviews/[0-9a-f]{12}\.json\Z")


def _is_prose(path: str, name: VariantName) -> bool:
    """Whether nothing of a variant follows from a file."""
    return path.endswith(".md") or path == name.spec_path or bool(_REVIEW.match(path.removeprefix(f"{name.folder}/")))


def is_code(entry: TreeEntry) -> bool:
    """Whether Python can import a file, or what is in a submodule."""
    return entry.path.endswith((".py", *COMPILED)) or entry.mode == SUBMODULE


def roots_of(repo: GitRepo, commit: str, name: VariantName) -> list[str]:
    """Where the code of a variant looks for modules at `commit`, besides the experiment's folder (`module_roots`)."""
    return module_roots(entry.path for entry in _entries(repo, commit, name))


def _entries(repo: GitRepo, commit: str, name: VariantName) -> list[TreeEntry]:
    """The experiment's folder alone where it holds no Python and its spec names none, for that reaches no further."""
    folder = repo.tree(commit, name.folder)
    has_code = any(entry.path.endswith((".py", *COMPILED)) for entry in folder) or any(
        _named(_content(repo, commit, name.spec_path), name)
    )
    return repo.tree(commit) if has_code else folder


def uncommitted_code(repo: GitRepo, commit: str, name: VariantName) -> tuple[str, list[str]] | None:
    """The checkout in which the variant is checked out and what a run would not see of it, None where nothing.

    Looked at: the experiment's folder, and the modules that it reaches as the files lie in that checkout.
    """
    for worktree in worktrees(repo):
        if worktree.ref != name.ref or not worktree.path.is_dir():
            continue
        changed = uncommitted(worktree.path, ["."])
        if not changed:
            return None
        paths = {entry.path for entry in repo.tree(commit)} | set(changed)

        def read(path: str, root: str = str(worktree.path)) -> bytes | None:
            try:
                with open(f"{root}/{path}", "rb") as file:
                    return file.read()
            except OSError:
                return None

        unseen = sorted(set(changed) & set(reached(paths, name, read)))
        return (str(worktree.path), unseen) if unseen else None
    return None
