"""Imports and calls code of the experiment from the run's own commit, and reports its errors."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from expmgr.disk.durable import DISK_ERRORS
from expmgr.errors import ExpmgrError, UserCodeFailed, did_you_mean
from expmgr.spec.code_packages import may_be_named, refused, way_out
from expmgr.spec.python_code import NotPython, parse_python

_MOST_LINES = 12
#: Errors that speak of the machine, not of the code.
_OF_THE_MACHINE = frozenset({"MemoryError", "ResourceExhaustedError"})
#: How Keras makes words bold.
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: How TensorFlow quotes a frame in a message of its own, for code that it traced or that a pipeline called.
_QUOTED = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')


def _there(folders: Sequence[Path]) -> list[str]:
    return [str(one) for one in folders if one.is_dir()]


def _is_installed(entry: str) -> bool:
    """Whether an entry of the path holds what is installed."""
    return bool({"site-packages", "dist-packages"} & set(Path(entry).parts))


def _hides_python(folder: str) -> bool:
    """Whether a module in `folder` is called as one of Python's own."""
    names = {path.stem for path in Path(folder).iterdir() if path.suffix == ".py" or path.is_dir()}
    return bool(names & sys.stdlib_module_names)


def _is_of_the_disk(error: Exception) -> bool:
    """Whether the disk is full or fails: no fault of the code."""
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


class UserCode:
    """The modules that a spec names, of the run's own checkout `root`: the experiment's folder first, then `roots`.

    `repository` is the user's own checkout, from which nothing may come; `packages` are installed ones that a spec may name.
    """

    def __init__(
        self,
        experiment_dir: Path,
        root: Path,
        repository: Path | None = None,
        roots: Sequence[str] = ("", "src/"),
        packages: Sequence[str] = (),
    ) -> None:
        self._root = root
        self.experiment_dir = experiment_dir
        """The experiment's folder in it."""
        self._repository = repository
        self._packages = packages
        self.params: dict[str, Any] = {}
        """What functions were given as params: "model" or "data" to a dict, or what a params_model made of it."""
        own = ("", "src/")
        self._folders = _there([experiment_dir, *(root / one for one in roots if one in own)])
        self._projects = _there([root / one for one in roots if one not in own])

    @property
    def root(self) -> Path:
        """The run's own checkout."""
        return self._root

    def find(self, reference: str, key: str) -> Any:
        """What `module:name` means. `key` is the place in the spec that says it, for errors.

        It is code of the repository, or of a package that a spec may name; anything else is refused, and is not imported.
        """
        self.prepare()
        module_name, _, name = reference.partition(":")
        if self._is_elsewhere(module_name):
            raise self._refused(reference, key, module_name)
        if (file := self._compiled(module_name)) is not None:
            raise UserCodeFailed(
                f"{self._at(key)}: {reference} is in {file}, which is compiled; a spec can only name Python source",
                left_alone="Nothing was changed.",
                hint=f"git rm {shlex.quote(file)}, and commit the source",
            )
        with self.errors(f"{key}: {reference} cannot be imported"):
            module = importlib.import_module(module_name)
        self.look_at_modules(key)
        found = getattr(module, name, None)
        if found is None:
            there = [one for one in vars(module) if not one.startswith("_")]
            raise UserCodeFailed(
                f"{self._at(key)}: module {module_name} has no {name}",
                left_alone="Nothing was changed.",
                hint=did_you_mean(name, there, f"it has {', '.join(there[:20])}" if there else None),
            )
        if (elsewhere := self._defined_elsewhere(found, module, name)) is not None:
            raise self._refused(reference, key, elsewhere)
        return found

    def _refused(self, reference: str, key: str, module: str) -> UserCodeFailed:
        return UserCodeFailed(
            f"{self._at(key)}: {refused(reference, module)}", left_alone="Nothing was changed.", hint=way_out(module)
        )

    def _is_elsewhere(self, module_name: str) -> bool:
        """Whether the module is there, but neither in the repository nor of a package that may be named; nothing is run."""
        if may_be_named(module_name, self._packages):
            return False
        try:
            found = importlib.util.find_spec(module_name.partition(".")[0])
        except (ImportError, ValueError):  # such as `__main__`
            return module_name.partition(".")[0] in sys.modules
        return found is not None and not any(
            map(self._is_here, [found.origin, *(found.submodule_search_locations or ())])
        )

    def _compiled(self, module_name: str) -> str | None:
        """The compiled file of the run's own checkout that an import of the module would run, relative to it; None where it
        would run sources alone. Nothing is run."""
        parts = module_name.split(".")
        folders: Sequence[str] | None = None
        for count in range(1, len(parts) + 1):
            found = PathFinder.find_spec(".".join(parts[:count]), folders)
            if found is None:
                return None
            file = Path(found.origin) if found.has_location and found.origin else None
            if file is not None and file.suffix != ".py" and file.is_relative_to(self._root):
                return str(file.relative_to(self._root))
            if found.submodule_search_locations is None:
                return None
            folders = [*found.submodule_search_locations]
        return None

    def _is_here(self, file: str | None) -> bool:
        """Whether a file is the repository's. Of the user's own checkout `look_at_modules` says that it must not be."""
        if not file or _is_installed(file):
            return False
        path = Path(file)
        return path.is_relative_to(self._root) or (
            self._repository is not None
            and path.is_relative_to(self._repository)
            and not path.is_relative_to(sys.prefix)
        )

    def _defined_elsewhere(self, found: Any, module: ModuleType, name: str) -> str | None:
        """The module that defines the function or class `found`, which `module` only has, if no spec may name it."""
        if not isinstance(found, type | FunctionType | MethodType | BuiltinFunctionType):
            return None  # an object, such as a partial, is made where it was found
        defined_in = getattr(found, "__module__", None)
        if not defined_in or defined_in == module.__name__ or may_be_named(defined_in, self._packages):
            return None
        there = sys.modules.get(defined_in)
        if there is None or self._is_here(getattr(there, "__file__", None)) or not _has(there, found):
            return None
        # What a decorator made of a function of the repository may say that it is the decorator's.
        file = getattr(module, "__file__", None)
        is_ours = file is not None and self._is_here(file) and _defines(Path(file), name)
        return None if is_ours else str(defined_in)

    def prepare(self) -> None:
        """Let imports find the run's own checkout before what is installed, in editable mode or as a copy.

        The experiment's folder comes first, then the root and its `src/`, then the projects inside of the repository, those
        that the environment names before the others. One that has a module called as one of Python's own comes behind
        Python's.
        """
        mine = {*self._folders, *self._projects}
        rest = [one for one in sys.path if one not in mine]
        named = [inner for one in rest if (inner := self._in_checkout(one)) in self._projects]
        projects = [*dict.fromkeys([*named, *self._projects])]
        first, last = ([one for one in projects if _hides_python(one) == hides] for hides in (False, True))
        place = next((at for at, one in enumerate(rest) if _is_installed(one)), len(rest))
        sys.path[:] = [*self._folders, *first, *rest[:place], *last, *rest[place:]]

    def _in_checkout(self, entry: str) -> str | None:
        """A folder of the user's checkout, which the environment puts on the path, as it is in the run's own."""
        path = Path(entry)
        if self._repository is None or not path.is_relative_to(self._repository):
            return None
        return str(self._root / path.relative_to(self._repository))

    def call(self, reference: str, key: str, given: Mapping[str, Any], *, main: str = "params") -> Any:
        """The function `reference`, called with those of `given` that it names.

        A single parameter of another name that has no default gets `main`.
        """
        function = self.find(reference, key)
        if not callable(function):
            raise UserCodeFailed(f"{self._at(key)}: {reference} is no function", left_alone="Nothing was changed.")
        arguments = self._arguments(function, reference, key, given, main)
        with self.errors(f"{key}: {reference} failed"):
            result = function(**arguments)
        self.look_at_modules(key)  # what it imported while it ran
        return result

    def takes(self, reference: str, key: str, name: str) -> bool:
        """Whether the function names a parameter `name`."""
        return name in _parameters(self.find(reference, key))

    def _arguments(
        self, function: Any, reference: str, key: str, given: Mapping[str, Any], main: str
    ) -> dict[str, Any]:
        parameters = _parameters(function)
        arguments = {name: given[name] for name in parameters if name in given}
        missing = [
            name for name, one in parameters.items() if name not in given and one.default is inspect.Parameter.empty
        ]
        if len(missing) == 1 and main not in arguments:
            arguments[missing[0]] = given[main]
        elif missing:
            raise UserCodeFailed(
                f"{self._at(key)}: {reference} wants {', '.join(missing)}, which nobody gives it",
                left_alone="Nothing was changed.",
                hint=f"it may name {', '.join(given)}; what it needs besides goes into params",
            )
        return arguments

    def look_at_modules(self, key: str) -> None:
        """Nothing of the user's own checkout may have been imported: its files may change while the run goes on.

        Raises `UserCodeFailed`, which names the module; `key` is the place in the spec that led there.
        """
        if self._repository is None:
            return
        inside = f"{self._repository}/"
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if not file or not file.startswith(inside):
                continue
            path = Path(file)
            if path.is_relative_to(self._root) or path.is_relative_to(sys.prefix) or "site-packages" in path.parts:
                continue
            if (self._repository / "expmgr") in path.parents and name.partition(".")[0] == "expmgr":
                continue  # expmgr's own repository, where it runs from
            raise UserCodeFailed(
                f"{self._at(key)}: module {name} was imported from your checkout, {file}, not from the run's own",
                left_alone="Nothing was changed.",
                hint="keep the package at the repository's root, in src/, or in a project with a pyproject.toml of its own",
            )

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Whatever the code raises as `UserCodeFailed`: `what`, and the traceback as far as it is the user's."""
        try:
            yield
        except ExpmgrError:
            raise
        except Exception as error:
            if type(error).__name__ in _OF_THE_MACHINE or _is_of_the_disk(error):
                raise
            traceback.print_exc()  # the whole of it goes to the log
            raise UserCodeFailed(self._at(what), details=self._lines(error)) from error

    def _at(self, what: str) -> str:
        """`what`, which may begin with a key of the spec, with the line of that key before it."""
        key = what.partition(":")[0]
        if " " in key:
            return what
        path = self.experiment_dir / "spec.yaml"
        with contextlib.suppress(OSError, ExpmgrError, ValueError, ImportError):  # an environment may have no YAML
            from expmgr.spec.yaml_file import line_of

            line = line_of(path.read_bytes(), key.split("."))
            return f"{path.relative_to(self._root)}:{line}: {what}"
        return what

    def _lines(self, error: BaseException) -> list[str]:
        lines = []
        for file, number, name, line in self._frames(error)[-_MOST_LINES // 2 :]:
            lines.append(f"{Path(file).relative_to(self._root)}:{number}, in {name}")
            if line:
                lines.append(f"    {line}")
        return [*lines, *_message(error)]

    def _frames(self, error: BaseException) -> list[tuple[str, int, str, str]]:
        """File, line, function and text of the user's own frames, the outermost first."""
        found = [
            (frame.filename, frame.lineno or 0, frame.name, frame.line or "")
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).is_relative_to(self._root)
        ]
        for match in _QUOTED.finditer(str(error)):
            file, number = match["file"], int(match["line"])
            if Path(file).is_relative_to(self._root):
                with contextlib.suppress(OSError, IndexError, UnicodeDecodeError):
                    text = Path(file).read_text(encoding="utf-8").splitlines()[number - 1].strip()
                    found.append((file, number, match["name"], text))
        return list(dict.fromkeys(found))


def _has(module: ModuleType, found: Any) -> bool:
    """Whether `module` itself has the function or class `found`. It does not if code of the module only made it: a function
    inside another one, or a class that says so, such as one of `dataclasses.make_dataclass`."""
    if any(one is found for one in vars(module).values()):
        return True
    there: Any = module
    for name in found.__qualname__.split("."):
        there = getattr(there, name, None)
    return getattr(there, "__func__", there) is getattr(found, "__func__", found)


def _defines(path: Path, name: str) -> bool:
    """Whether a file has a function or a class `name`, as its syntax says."""
    try:
        tree = parse_python(path.read_bytes())
    except (OSError, NotPython):
        return False
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in ast.walk(tree))


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in parameters.items() if one.kind in kinds}


def _message(error: BaseException) -> list[str]:
    """What the error says: the first lines that are words of its own."""
    lines = [_ESCAPES.sub("", line).strip() for line in str(error).splitlines()]
    frames = {number for number, line in enumerate(lines) if _QUOTED.search(line)}
    told = [
        line
        for number, line in enumerate(lines)
        if line
        and number not in frames
        and number - 1 not in frames
        and line not in ("in user code:", "Traceback (most recent call last):")
    ]
    kind = type(error).__name__
    if not told:
        return [kind]
    first = told[0] if told[0].startswith(kind) else f"{kind}: {told[0]}"
    return [first, *told[1:3]]
