"""What a run needs before it may touch anything: request, data, model, and what the model asks of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from expmgr import csvdata
from expmgr.csvdata import Dataset
from expmgr.errors import DataProblem
from expmgr.model_dir import ModelDir
from expmgr.paths import RunDir
from expmgr.signature import Signature
from expmgr.spec import ExperimentSpec
from expmgr.train import signatures
from expmgr.train.callbacks import Callbacks
from expmgr.train.datasets import Batches, Rows
from expmgr.train.environment import versions
from expmgr.train.loop import InnerLoop
from expmgr.train.models import build_model, input_names
from expmgr.train.request import Request, read_request
from expmgr.train.usercode import UserCode


@dataclass
class Built:
    """A run that was prepared in memory alone."""

    request: Request
    spec: ExperimentSpec
    data: Dataset
    model: Any
    folder: ModelDir
    root: Path
    """The run's own checkout."""
    provenance: dict[str, Any]

    def signature(self, step: int) -> Signature:
        """What a checkpoint of the model at `step` requires; what the model offers to one."""
        return self._signature.model_copy(update={"step": step, "provenance": self.provenance})

    @cached_property
    def _first_rows(self) -> tuple[dict[str, Any], Any]:
        """The first rows of the eval split as they enter the model, inputs in the order of the columns."""
        inputs, targets = self.rows["eval"].take(tf.range(min(signatures.FIRST_ROWS, self.rows["eval"].count)))
        names = input_names(self.data.features)
        return {names[one.name]: inputs[names[one.name]] for one in self.data.features}, targets

    @property
    def first_inputs(self) -> dict[str, Any]:
        return self._first_rows[0]

    @property
    def first_targets(self) -> Any:
        return self._first_rows[1]

    @cached_property
    def _signature(self) -> Signature:
        """Made before training: a learning rate that a callback moves later is no other setting."""
        ordered, targets = self._first_rows
        contract = self.data.contract().model_copy(update={"first_batch": signatures.first_batch(ordered, targets)})
        setup = signatures.setup_of(
            self.model, batch_size=self.spec.data.batch_size, shuffle=self.spec.data.shuffle, seed=self.request.seed
        )
        settings = self.spec.optimizer.model_dump(mode="json")
        if weights := self._class_weight():
            setup = setup.model_copy(update={"loss": {**(setup.loss or {}), "class_weight": weights}})
        return signatures.signature_of(
            self.model,
            (ordered, targets),
            contract,
            setup.model_copy(update={"optimizer": {**setup.optimizer, **settings}}),
            order=list(ordered),
            architecture=self.spec.model.model_dump(mode="json"),
            provenance=self.provenance,
        )

    def _class_weight(self) -> list[float] | None:
        """What an example of each class counts, in the order of the labels."""
        weights, labels = self.spec.train.class_weight, self.data.labels
        if weights is None or labels is None:
            return None
        unknown = [name for name in weights if name not in labels]
        if unknown:
            raise DataProblem(
                f"train.class_weight: {unknown[0]!r} is no class of the data, which has {', '.join(labels)}",
                left_alone="Nothing was changed.",
            )
        return [weights.get(name, 1.0) for name in labels]

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(int(variable.value.shape.num_elements()) for variable in self.model.trainable_variables)

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Every split on the device."""
        return {name: Rows(split, self.data.features, self.data.labels) for name, split in self.data.splits.items()}

    @cached_property
    def code(self) -> UserCode:
        """Where the modules that the spec names are."""
        return UserCode(self.request.experiment_dir, self.root)

    @cached_property
    def callbacks(self) -> Callbacks:
        """The callbacks that the spec names, made."""
        steps = -(-self.rows["train"].count // self.spec.data.batch_size)
        return Callbacks(self.spec.callbacks, self.code, self.model, steps)

    @cached_property
    def inner(self) -> InnerLoop:
        """The loop on the device, not yet traced."""
        data = self.spec.data
        return InnerLoop(
            self.model,
            Batches(
                self.rows["train"],
                batch_size=data.batch_size,
                seed=self.request.random_seed,
                shuffle=data.shuffle,
                class_weight=self._class_weight(),
            ),
        )


def build(run_dir: RunDir) -> Built:
    """Read everything, the data before the model is built, since it is what fails most."""
    request = read_request(run_dir)
    spec = request.resolved
    data = csvdata.load(
        spec.data, is_classifier=spec.is_classifier, experiment_dir=request.experiment_dir, root=run_dir.code
    )
    model = build_model(spec, data.features, data.labels, request.random_seed)
    folder = ModelDir(request.model_dir, shown=request.shown_model_dir, variant=request.variant, seed=request.seed)
    return Built(request, spec, data, model, folder, run_dir.code, {**request.provenance, **versions()})
