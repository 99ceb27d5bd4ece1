"""Looks up `module:name` of a spec in the files of a commit, without running code."""

from __future__ import annotations

import ast
import importlib.util
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from posixpath import normpath
from typing import Any

from expmgr.errors import SpecProblem, did_you_mean
from expmgr.git.repo import SUBMODULE, GitRepo
from expmgr.paths import VariantName, has_tensorflow, module_roots
from expmgr.spec.code_packages import may_be_named, refused, way_out
from expmgr.spec.data import PythonData, ScriptData
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import EstimatorModel, PythonModel, ScriptModel
from expmgr.spec.optimizer import Named
from expmgr.spec.python_code import NotPython, parse_python, text_of

_UNTOUCHED = "Nothing was changed."
#: What a plain type of Python, or one of pydantic's numbers, is.
_KINDS = {one: one for one in ("int", "float", "str", "bool")}
_KINDS |= {
    f"{bound}{kind}": kind.lower() for kind in ("Int", "Float") for bound in ("Positive", "NonNegative", "Negative")
}
_PLAIN: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
Read = Callable[[str], bytes | None]
#: How files end that Python imports in the place of a source, or from its `__pycache__`.
COMPILED = (".so", ".pyd", ".pyc")


def compiled_by_source(paths: Iterable[str]) -> dict[str, set[str]]:
    """The compiled modules among `paths`, by the source that each may be imported instead of, whether that is there or not."""
    found: dict[str, set[str]] = {}
    for path in paths:
        if path.endswith(COMPILED):
            *folders, file = path.split("/")
            if folders[-1:] == ["__pycache__"]:
                folders.pop()
            source = "/".join([*folders, f"{file.partition('.')[0]}.py"])
            found.setdefault(source, set()).add(path)
    return found


def references_of(spec: ExperimentSpec) -> Iterator[tuple[str, str]]:
    """Key and reference of everything in `spec` that names code."""
    if isinstance(spec.model, PythonModel | EstimatorModel):
        yield "model.build", spec.model.build
        if spec.model.params_model:
            yield "model.params_model", spec.model.params_model
    if isinstance(spec.model, EstimatorModel):
        if spec.model.serving:
            yield "model.serving", spec.model.serving
        for key in ("train_distribute", "eval_distribute", "experimental_distribute", "device_fn"):
            if reference := getattr(spec.run_config, key):
                yield f"run_config.{key}", reference
    keys: tuple[str, ...] = ()
    if isinstance(spec.data, PythonData):
        keys = ("train", "eval", "test", "predict", "params_model")
    elif isinstance(spec.data, ScriptData):
        keys = ("predict", "evaluate")
    for key in keys:
        if reference := getattr(spec.data, key):
            yield f"data.{key}", reference
    for number, callback in enumerate(spec.callbacks):
        yield f"callbacks.{number}", callback.use
    for key in ("loss", "metrics"):
        for named in _named(getattr(spec, key)):
            if ":" in named.use:
                yield key, named.use


def _named(value: Any) -> Iterator[Named]:
    if isinstance(value, Named):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _named(one)
    elif isinstance(value, list):
        for one in value:
            yield from _named(one)


def check_references(
    spec: ExperimentSpec, folder: str, paths: Collection[str], read: Read, packages: Collection[str] = ()
) -> None:
    """`SpecProblem` where `spec` names code that is not among the files `paths`, or params that its model has not.

    `folder` is the experiment's; `read` gives the content of one of `paths`. Of installed packages only those that a spec may
    name (`packages`, the setting `code_packages`, besides the usual ones) pass; what they have is not looked at.
    """
    found = {}
    for key, reference in references_of(spec):
        module, _, name = reference.partition(":")
        path = _file_of(module, folder, paths)
        _check_source(key, reference, folder, paths)
        if path is None:
            if not may_be_named(module, packages):
                raise _not_here(key, reference, module, folder, paths)
            if spec.environment is None:  # what another environment has is its own affair
                _require_installed(key, reference, module, folder, paths)
            continue
        tree = _parsed(read(path) or b"", path, key)
        names = dict(_top_level(tree))
        if name not in names and not any(
            isinstance(one, ast.ImportFrom) and one.names[0].name == "*" for one in tree.body
        ):
            raise SpecProblem(
                f"{key}: {path} has no {name}",
                left_alone=_UNTOUCHED,
                hint=did_you_mean(name, names, f"it has {_listed(names)}", typed=f"{module}:{{}}".format),
            )
        found[key] = node = names.get(name)
        # A name that a module of the repository only imports is code of where it comes from.
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            is_ours = _file_of(node.module, folder, paths) is not None or may_be_named(node.module, packages)
            if not is_ours and _is_installed(node.module.partition(".")[0]):
                raise _refused(key, reference, node.module)
    if isinstance(spec.model, PythonModel | EstimatorModel):
        _check_params("model", spec.model.params, found.get("model.params_model"))
    if isinstance(spec.model, ScriptModel):
        _check_script(spec.model, folder, paths, read)
    if isinstance(spec.data, PythonData):
        _check_params("data", spec.data.params, found.get("data.params_model"))


def check_packages(
    repo: GitRepo, commit: str, name: VariantName, spec: ExperimentSpec, packages: Collection[str]
) -> None:
    """`SpecProblem` where `spec` names code of an installed package that a spec may not name (`packages`: the setting
    `code_packages`), or code that `commit` has no source of; what `commit` has is the repository's."""
    named = list(references_of(spec))
    entries = repo.tree(commit) if named else []
    paths = {entry.path for entry in entries}
    has_submodule = any(entry.mode == SUBMODULE for entry in entries)  # of which the files are not known here
    for key, reference in named:
        module, at = reference.partition(":")[0], f"{name.spec_path}: {key}"
        _check_source(at, reference, name.folder, paths)
        if _file_of(module, name.folder, paths) is not None or may_be_named(module, packages):
            continue
        if _is_installed(module.partition(".")[0]) or not has_submodule:
            raise _not_here(at, reference, module, name.folder, paths)


def _check_source(key: str, reference: str, folder: str, paths: Collection[str]) -> None:
    """`SpecProblem` where an import of the module would run a compiled file of the commit, which nobody can read."""
    module = reference.partition(":")[0]
    compiled = compiled_by_source(paths)
    for candidate in _candidates(module, folder, paths) if compiled else ():
        for file in sorted(compiled.get(candidate, ())):
            if "/__pycache__/" in f"/{file}" or (file.endswith(".pyc") and candidate in paths):
                continue  # Python prefers the source
            raise SpecProblem(
                f"{key}: {reference} is in {file}, which is compiled; a spec can only name Python source",
                left_alone=_UNTOUCHED,
                hint=f"git rm {shlex.quote(file)}, and commit the source as {candidate}",
            )


def _check_script(model: ScriptModel, folder: str, paths: Collection[str], read: Read) -> None:
    """The script is there, calls `expmgr.fit`, and has the params that the spec names, as far as its syntax tells."""
    path = normpath(f"{folder}/{model.script}")
    if path not in paths:
        raise SpecProblem(
            f"model.script: the commit has no {path}",
            left_alone=_UNTOUCHED,
            hint=did_you_mean(
                path,
                (one for one in paths if one.endswith(".py")),
                "add the file with git, and commit",
                typed=lambda near: near.removeprefix(f"{folder}/"),
            ),
        )
    tree = _parsed(read(path) or b"", path, "model.script")
    calls = {text_of(one.func): one for one in ast.walk(tree) if isinstance(one, ast.Call)}
    asked = next((one for name, one in calls.items() if name in ("expmgr.params", "params") and one.args), None)
    if asked is None or not isinstance(asked.args[0], ast.Dict):
        return
    keys = [key.value for key in asked.args[0].keys if isinstance(key, ast.Constant)]
    names = [key for key in keys if isinstance(key, str)]
    if len(names) != len(asked.args[0].keys):
        return  # some are computed
    for name in model.params:
        if name not in names:
            raise SpecProblem(
                f"model.params.{name}: {path} has no such parameter",
                left_alone=_UNTOUCHED,
                hint=did_you_mean(name, names, f"it has {_listed(names)}", typed=lambda near: f"model.params.{near}"),
            )


def _file_of(module: str, folder: str, paths: Collection[str]) -> str | None:
    return next((path for path in _candidates(module, folder, paths) if path in paths), None)


def _candidates(module: str, folder: str, paths: Collection[str]) -> list[str]:
    """Where the source of a module may be, in the order in which it is looked for."""
    inner = module.replace(".", "/")
    roots = (f"{folder}/", *module_roots(paths))
    return [f"{root}{inner}{end}" for root in roots for end in (".py", "/__init__.py")]


def _require_installed(key: str, reference: str, module: str, folder: str, paths: Collection[str]) -> None:
    if _is_installed(module.partition(".")[0]) or not has_tensorflow():
        return  # without TensorFlow nothing runs in this environment, so it need not have what a run imports
    raise _missing(key, reference, module, folder, paths)


def _not_here(key: str, reference: str, module: str, folder: str, paths: Collection[str]) -> SpecProblem:
    """The error for a module that the commit does not have, and that is of no package that a spec may name."""
    if not _is_installed(module.partition(".")[0]):
        return _missing(key, reference, module, folder, paths)
    return _refused(key, reference, module)


def _refused(key: str, reference: str, module: str) -> SpecProblem:
    return SpecProblem(f"{key}: {refused(reference, module)}", left_alone=_UNTOUCHED, hint=way_out(module))


def _is_installed(top: str) -> bool:
    if top in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(top)
    except ValueError:  # such as `__main__`
        return True
    except ImportError:
        return False
    return found is not None and not _is_namespace(found)


def _missing(key: str, reference: str, module: str, folder: str, paths: Collection[str]) -> SpecProblem:
    modules = [path.removeprefix(f"{folder}/").removesuffix(".py") for path in paths if path.endswith(".py")]
    hint = did_you_mean(module, modules)
    return SpecProblem(
        f"{key}: {reference}: the commit has no {folder}/{module.replace('.', '/')}.py",
        left_alone=_UNTOUCHED,
        hint=hint or "add the file with git, and commit",
    )


def _is_namespace(module_spec: Any) -> bool:
    """Whether it is a mere folder of that name, such as one in the working directory."""
    return (module_spec.origin is None and module_spec.loader is None) or (
        module_spec.origin is None and module_spec.submodule_search_locations is not None
    )


def _parsed(content: bytes, path: str, key: str) -> ast.Module:
    try:
        return parse_python(content)
    except NotPython as error:
        place = f"{path}:{error.line}" if error.line else path
        raise SpecProblem(f"{key}: {place}: {error}", left_alone=_UNTOUCHED) from None


def _listed(names: Collection[str]) -> str:
    """The first of `names`, in a hint."""
    return ", ".join(list(names)[:20])[:500] or "none"


def _top_level(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The names that a module has, as far as its syntax tells; those below `if` and `try` too."""
    queue: list[ast.AST] = list(tree.body)
    while queue:
        node = queue.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                yield from ((one.id, node) for one in ast.walk(target) if isinstance(one, ast.Name))
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            queue.extend(ast.iter_child_nodes(node))


def _check_params(section: str, params: Mapping[str, Any], node: ast.AST | None) -> None:
    """Names and plain types of params, where the class that takes them is a plain pydantic model."""
    if (
        not isinstance(node, ast.ClassDef)
        or len(node.bases) != 1
        or text_of(node.bases[0]).rpartition(".")[2] != "BaseModel"
    ):
        return
    fields = {
        one.target.id: one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    config = next((one for name, one in _top_level(ast.Module(node.body, [])) if name == "model_config"), None)
    if config is not None and "allow" in text_of(config):
        return  # any name
    for name, value in params.items():
        if name not in fields:
            raise SpecProblem(
                f"{section}.params.{name}: unknown key",
                left_alone=_UNTOUCHED,
                hint=did_you_mean(
                    name,
                    fields,
                    f"{section}.params takes {_listed(fields)}",
                    typed=lambda near: f"{section}.params.{near}",
                ),
            )
        kind = _KINDS.get(text_of(fields[name].annotation).rpartition(".")[2], "")
        if kind in _PLAIN and (not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind != "bool")):
            raise SpecProblem(f"{section}.params.{name}: {node.name} takes {kind}, is {value!r}", left_alone=_UNTOUCHED)
    missing = [name for name, one in fields.items() if one.value is None and name not in params]
    if missing:
        raise SpecProblem(
            f"{section}.params.{missing[0]}: is missing",
            left_alone=_UNTOUCHED,
            hint=f"{node.name} takes {_listed(fields)}",
        )
