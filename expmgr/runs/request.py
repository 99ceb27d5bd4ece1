"""`request.json`: what a command asks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.disk import durable
from expmgr.errors import OurBug
from expmgr.guard.warm_start import Wish
from expmgr.paths import RunDir
from expmgr.spec.experiment import ExperimentSpec


class CheckpointRef(BaseModel):
    """A checkpoint of one seed of a variant, and the model_dir that it is in."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    variant: str
    seed: int
    model_dir: Path
    shown: str
    step: int | None = None
    """None: the newest."""

    @property
    def folder(self) -> ModelDir:
        return ModelDir(self.model_dir, shown=self.shown, variant=self.variant, seed=self.seed)


class WarmStart(BaseModel):
    """From which checkpoint training starts, and what of it is taken."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: CheckpointRef
    maps: tuple[tuple[str, str], ...] = ()
    only: tuple[str, ...] = ()
    with_optimizer: bool = False
    grow: bool = False

    def wish(self, allow: tuple[str, ...]) -> Wish:
        return Wish(self.maps, self.only, self.with_optimizer, self.grow, allow)


class Adopt(BaseModel):
    """A checkpoint that was made elsewhere; `vouched_by`: who vouches for what it does not say. None: it is only looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    folder: Path
    step: int | None = None
    maps: tuple[tuple[str, str], ...] = ()
    vouched_by: str | None = None


class Ask(BaseModel):
    """What a model is used for, and with the weights of which checkpoint."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    what: Literal["evaluate", "predict", "export"]
    source: CheckpointRef
    split: Literal["train", "eval", "test"] = "eval"
    data: Path | None = None
    output: Path | None = None
    format: Literal["savedmodel", "keras"] = "savedmodel"


class Request(BaseModel):
    """`request.json`, format 1."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    mode: Literal["train", "check"]
    run_id: str
    variant: str
    seed: int
    commit: str
    spec: dict[str, Any]
    """The resolved spec, defaults included."""
    experiment_dir: Path
    """The experiment's folder in the run's own checkout."""
    variant_dir: Path
    repository: Path | None = None
    """The user's own checkout, of which the run imports nothing."""
    module_roots: list[str] = ["", "src/"]
    """Folders of the run's checkout in which modules are looked for, besides the experiment's."""
    code_packages: list[str] = []
    """Installed packages that the spec may name code of."""
    pass_environment: list[str] | None = None
    """Variables of the environment that user code may see besides the system's; None: all."""
    environment: dict[str, Any] = {}
    """Name and lock digest of the Python environment, for the record."""
    data_root: str | None = None
    """What `${data_root}` stands for on this machine."""
    model_dir: Path
    shown_model_dir: str
    max_steps: int
    fresh: bool = False
    from_step: int | None = None
    """Go back to the checkpoint of this step; None: the newest."""
    candidates: tuple[CheckpointRef, ...] = ()
    """What `check` asks about."""
    warm_start: WarmStart | None = None
    adopt: Adopt | None = None
    ask: Ask | None = None
    allow: tuple[str, ...] = ()
    """Ids of the guard's rules whose refusal the user takes upon themselves."""
    provenance: dict[str, Any]

    def write(self, folder: RunDir) -> None:
        """Write it for the worker, as `request.json` in the run's folder."""
        durable.write_json(folder.request, self.model_dump(mode="json"))

    @property
    def folder(self) -> ModelDir:
        """The model_dir that the run trains in, or that it looks at."""
        return ModelDir(self.model_dir, shown=self.shown_model_dir, variant=self.variant, seed=self.seed)

    @property
    def experiment_spec(self) -> ExperimentSpec:
        """`spec` as its model."""
        return ExperimentSpec.model_validate(self.spec)

    @property
    def random_seed(self) -> int:
        """What the run draws from: `tf_random_seed` where the spec has one, otherwise the run's seed."""
        fixed = self.experiment_spec.run_config.tf_random_seed
        return self.seed if fixed is None else fixed


def read_request(folder: RunDir) -> Request:
    """The request in `folder`; it was written by us, so what cannot be read is our bug."""
    try:
        return Request.model_validate_json(folder.request.read_bytes())
    except (OSError, ValidationError) as error:
        raise OurBug(f"{folder.request} cannot be read: {str(error).splitlines()[0]}") from None
