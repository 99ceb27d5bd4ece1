"""Settings: shared ones from pyproject.toml or expmgr.toml, and the machine's own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expmgr.errors import SpecProblem, did_you_mean
from expmgr.paths import home_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The file of another person may be any file.
_MOST_BYTES = 1_000_000

Signing = Literal["off", "warn", "require"]

# Deferred: most repositories set nothing, and every command would wait for validators that see no value.
_CONFIG = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ReviewRules(BaseModel):
    """`[tool.expmgr.review]`: what a merge needs. Those on the target branch count, never a variant's own."""

    model_config = _CONFIG

    approvals: Annotated[int, Field(ge=0)] = 1
    """How many people have to approve."""
    by_others: bool = True
    """Whether they have to be others than those who opened the review, made the variant, or wrote its commits."""


class Settings(BaseModel):
    """`[tool.expmgr]` of pyproject.toml, or expmgr.toml; then `.git/expmgr/config.toml`, which wins."""

    model_config = _CONFIG

    models_dir: str = "models"
    """Root of all model_dirs, relative to the main worktree's root, absolute, or below `~`."""
    data_root: str | None = None
    """Folder that `${data_root}` stands for in a spec: where this machine keeps data that is not in git."""
    pass_environment: list[str] | None = None
    """Variables of the environment that a run is given besides those of the system, `AWS_*` for all of a kind; None:
    all that the command was given."""
    code_packages: list[str] = []
    """Installed packages that a spec may name code of (`package.module:function`), besides Keras, TensorFlow and NumPy."""
    environments: dict[str, str] = {}
    """Name to the Python that runs what names it (`environment` in a spec): a virtual environment's folder or an
    interpreter, relative to the main worktree's root, absolute, or below `~`."""
    record_user: bool = True
    """Whether records name the user."""
    record_host: bool = True
    """Whether records name the machine."""
    store: str | None = None
    """Where checkpoints of the team lie: a folder that it shares, or a URL that fsspec opens."""
    signing: Signing = "off"
    """Whether events of the log are signed with the user's git signing key, and what an unsigned one is worth: `warn` says
    that it is a claim, `require` does without."""
    log_prefix: str = "refs/expmgr/log"
    """Where logs lie at a remote: below `refs/heads/` for a host that takes only branches."""
    allowed_signers: str = ".expmgr/allowed_signers"
    """File on the target branch that says whose keys sign for whom, as `ssh-keygen` reads it; where it lies, that branch
    says too."""
    target: str | None = None
    """The branch that variants are merged into, as the default branch or this machine says; None: the default branch of the
    remote, or main, or master."""
    review: ReviewRules = ReviewRules.model_construct()
    """What a review needs before a variant is merged, as the target branch has it."""
    preemption_notice: Literal["off", "gce", "aws", "azure"] = "off"
    """The cloud whose metadata is asked whether the machine is about to be taken away."""


def read_settings(root: Path | None, own: Path) -> Settings:
    """The settings of the checkout `root` (None in a bare repository) and of this machine (`own`: `.git/expmgr`)."""
    values: dict[str, Any] = {}
    sources: list[tuple[Path, dict[str, Any]]] = []
    if root is not None:
        sources.append((root / "pyproject.toml", _table(root / "pyproject.toml", "tool", "expmgr")))
        sources.append((root / "expmgr.toml", _table(root / "expmgr.toml")))
    sources.append((own / "config.toml", _table(own / "config.toml")))
    if not any(table for _, table in sources):
        return Settings.model_construct()
    for path, table in sources:
        _validate(path, table)
        named = {**values.get("environments", {}), **table.get("environments", {})}
        values.update(table, environments=named)
    settings = Settings.model_validate(values)
    home_path(settings.models_dir, "models_dir")  # every command needs it
    return settings


def shared_settings(read: Callable[[str], bytes | None], where: str) -> Settings:
    """The shared settings of a commit, whose files `read` gives; `where` is how it is called."""
    values: dict[str, Any] = {}
    for name, keys in (("pyproject.toml", ("tool", "expmgr")), ("expmgr.toml", ())):
        path = Path(f"{where}:{name}")
        table = _part(read(name) or b"", path, *keys)
        _validate(path, table)
        values.update(table)
    return Settings.model_validate(values)


def models_root(settings: Settings, main_root: Path) -> Path:
    """Where all model_dirs lie."""
    return main_root / home_path(settings.models_dir, "models_dir")


def _table(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    return _part(content, path, *keys)


def _part(content: bytes, path: Path, *keys: str) -> dict[str, Any]:
    if len(content) > _MOST_BYTES:
        raise SpecProblem(f"{path} has {len(content):,} bytes; settings are read from at most {_MOST_BYTES:,}")
    try:
        table: Any = tomllib.loads(content.decode("utf-8"))
    except ValueError as error:  # not only TOMLDecodeError: dates and numbers that Python does not have
        raise SpecProblem(f"{path} is not TOML: {str(error)[:200]}") from None
    except RecursionError:
        raise SpecProblem(f"{path} is not TOML: it is nested too deeply") from None
    for number, key in enumerate(keys, 1):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise SpecProblem(f"{path}: {'.'.join(keys[:number])} is not a table")
    return dict(table)


def _validate(path: Path, table: dict[str, Any]) -> None:
    """`SpecProblem` for a setting in `table`, the content of the file `path`, that does not exist or that has no such value."""
    for key, value in table.items():
        if _has_zero(value):
            raise SpecProblem(f"{path}: {key}: contains U+0000, which no file and no path can hold")
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        raise _problem(path, error) from None
    for package in settings.code_packages:
        told = f"{path}: code_packages: {package!r:.80}"
        top = package.partition(".")[0]
        if top in sys.stdlib_module_names:
            raise SpecProblem(
                f"{told} is of Python's standard library, of which a spec can name no code",
                hint="delete it from code_packages, and name a function of the repository, which may call it",
            )
        if not package.isidentifier():
            raise SpecProblem(
                f"{told} is not the name that a top-level package is imported by",
                hint=f'write "{top}"' if top.isidentifier() else "write the name that import uses, or delete it",
            )


def _has_zero(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_zero, (*value, *value.values())))
    return any(map(_has_zero, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def _problem(path: Path, error: ValidationError) -> SpecProblem:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = ReviewRules.model_fields if key.startswith("review.") else Settings.model_fields
        if key == "tool":
            return SpecProblem(
                f"{path}: unknown setting tool", hint="this file has no [tool.expmgr]: its settings stand at the top"
            )
        return SpecProblem(f"{path}: unknown setting {key}", hint=did_you_mean(key.removeprefix("review."), fields))
    return SpecProblem(f"{path}: {key}: {first['msg']}")
