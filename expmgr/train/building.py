"""Builds what a run needs before it may start: request, data, model and the wanted signature."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import tensorflow as tf

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.signature import Signature
from expmgr.data.files import Content, contents
from expmgr.data.locations import Places
from expmgr.errors import DataProblem, SpecProblem, UserCodeFailed, did_you_mean
from expmgr.paths import RunDir
from expmgr.runs.request import Request, read_request
from expmgr.spec.data import CsvData, PythonData, ScriptData
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import PythonModel, ScriptModel
from expmgr.train.data.datasets import Rows
from expmgr.train.data.pipelines import Stream
from expmgr.train.data.sources import Source, Tables
from expmgr.train.environment import bits, environment, versions
from expmgr.train.loop.evaluation import Evaluation
from expmgr.train.loop.loop import InnerLoop
from expmgr.train.model.premade import build_model
from expmgr.train.model.step import Errors, StepFunction
from expmgr.train.signature import live
from expmgr.train.signature.measures import measures_of
from expmgr.train.signature.probe import as_it_was
from expmgr.train.signature.sourcecode import code_of
from expmgr.train.user.callbacks import Callbacks
from expmgr.train.user.code import UserCode
from expmgr.train.user.data import Functions
from expmgr.train.user.model import build_user_model, handed_over
from expmgr.train.user.params import in_force
from expmgr.train.user.script import Call, Given, class_weight_of, filled, run_script


@dataclass
class Built:
    """A run that was prepared in memory alone."""

    request: Request
    spec: ExperimentSpec
    data: Source
    model: Any
    folder: ModelDir
    code: UserCode
    """Where the modules that the spec names are."""
    provenance: dict[str, Any]
    script: Call | None = None
    """What a training script handed over."""

    def signature(self, step: int) -> Signature:
        """What a checkpoint of the model at `step` requires; what the model offers to one."""
        return self._signature.model_copy(update={"step": step, "provenance": self.provenance})

    @cached_property
    def _signature(self) -> Signature:
        """Made before training: a learning rate that a callback moves later is no other setting."""
        is_rows = isinstance(self.data, Tables) or self.inner.feed.batch_size is not None
        setup = live.setup_of(
            self.model,
            batch_size=self.spec.data.batch_size if is_rows else None,
            shuffle=self.spec.data.shuffle if is_rows else None,
            seed=self.request.seed,
        )
        if weights := self._class_weight():
            setup = setup.model_copy(update={"loss": {**(setup.loss or {}), "class_weight": weights}})
        if self.spec.optimizer is not None:
            settings = self.spec.optimizer.model_dump(mode="json")
            setup = setup.model_copy(update={"optimizer": {**setup.optimizer, **settings}})
        return live.signature_of(
            self.model,
            self.data.first(),
            self.data.contract(),
            setup,
            trained=self.data.train_type_spec,
            order=list(self.data.order),
            architecture=self.spec.model.model_dump(mode="json"),
            code=code_of(self.model, self.code.root),
            provenance=self.provenance,
        )

    def _class_weight(self) -> list[float] | None:
        """What an example of each class counts, in the order of the labels."""
        weights, labels = self.spec.train.class_weight, self.data.labels
        if weights is None and self.script is not None:
            return class_weight_of(self.script)
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
    def params(self) -> dict[str, Any]:
        """What the user's code was given, its defaults included, by key of the spec."""
        return in_force(self.code, self.script.params if self.script is not None else None)

    @property
    def measures(self) -> dict[str, str]:
        """By what it is evaluated: digests."""
        return measures_of(self.model)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(int(variable.value.shape.num_elements()) for variable in self.model.trainable_variables)

    @cached_property
    def callbacks(self) -> Callbacks:
        """The callbacks that the spec names, made."""
        steps = self.inner.feed.steps_per_epoch
        given = self.script.callbacks if self.script is not None else []
        if steps is None and (self.spec.callbacks or given):
            raise SpecProblem(
                "callbacks are told of epochs, and nothing says how many steps an epoch has",
                left_alone="Nothing was changed.",
                hint="data.steps_per_epoch: 1000, or a Dataset that knows its length (Dataset.apply(assert_cardinality))",
            )
        return Callbacks(self.spec.callbacks, self.code, self.model, steps or 1, given)

    @cached_property
    def inner(self) -> InnerLoop:
        """The loop on the device, not yet traced."""
        feed = self.data.feed(self.request.random_seed, self._class_weight())
        return InnerLoop(self.model, feed, self.errors, self._trial)

    @contextlib.contextmanager
    def _trial(self) -> Iterator[Any]:
        with as_it_was(self.model):
            yield self.data.first()

    @property
    def errors(self) -> Errors:
        """Puts what the user's code raises into words."""
        return self.code.errors

    def evaluation(self, rows: Rows | Stream) -> Evaluation:
        """An evaluation of `rows`."""
        return Evaluation(self.model, rows, self.spec.data.batch_size or 32, self.errors)

    def make_ready(self) -> None:
        """Trace and try everything that training needs, so that what is wrong leaves no trace on the disk."""
        if (
            self.spec.train.determinism
        ):  # after the signature: it lets other operations be traced for the same computation
            self.signature(0)
            tf.config.experimental.enable_op_determinism()
        self.inner.trace()
        self.inner.warm_up()
        self.signature(0)  # beside it
        self.check_metrics()
        self.code.look_at_modules("model.build")  # what functions imported while they ran
        self.callbacks.state()  # made and asked

    def environment(self) -> dict[str, Any]:
        """What the record says of the machine and the libraries."""
        return environment(self.spec.train.precision, self.request.environment)

    def check_metrics(self) -> None:
        """Evaluate a few rows, so that what is wrong with it is known before training: `UserCodeFailed`, or
        `SpecProblem` where the spec goes by a metric that an evaluation of the user's model does not give."""
        if not self.spec.is_own or not self.spec.evaluates:
            return
        named = self.spec.named_metrics
        if named.get("compare.metric") == "loss":  # also what is compared where nobody said so
            del named["compare.metric"]
        try:
            with as_it_was(self.model):
                found = self.evaluation(Rows(self.data.first())).run(lambda: False, lambda: 0.0) or {}
        except UserCodeFailed as error:
            if not StepFunction(self.model, "test_step").is_own:
                error.hint = "give the model a test_step(self, data), or evaluate nothing: eval: {at_end: false}"
            error.left_alone = "Nothing was changed."
            raise
        for key, metric in named.items():
            if metric not in found:
                raise SpecProblem(
                    f"{key}: an evaluation gives no metric {metric}",
                    left_alone="Nothing was changed.",
                    hint=did_you_mean(metric, found, f"it gives {', '.join(found) or 'none'}"),
                )

    def gives_logits(self, values: Any) -> bool:
        """Whether outputs of classes are logits: as the loss says, else by whether each row sums to 1."""
        loss = getattr(self.model, "loss", None)
        from_logits = getattr(loss, "from_logits", None)
        if from_logits is None:
            from_logits = (getattr(loss, "_fn_kwargs", None) or {}).get("from_logits")
        if from_logits is not None:
            return bool(from_logits)
        if values.shape[1] == 1:
            return bool((values < 0).any() or (values > 1).any())
        return bool((values < 0).any() or abs(values.sum(axis=1) - 1).max() > 1e-3)


def build(run_dir: RunDir) -> Built:
    """Read everything, the data before the model is built, since it is what fails most."""
    request = read_request(run_dir)
    spec = request.experiment_spec
    code = UserCode(
        request.experiment_dir, run_dir.code, request.repository, request.module_roots, request.code_packages
    )
    if isinstance(spec.model, ScriptModel):
        return _of_script(spec, request, code)
    data = source_of(spec, request, code)
    if isinstance(spec.model, PythonModel):
        model = build_user_model(spec, code, request.random_seed, data.first())
    else:
        assert isinstance(data, Tables)
        model = build_model(spec, data.table.features, data.labels, request.random_seed)
    return Built(
        request,
        spec,
        data,
        model,
        request.folder,
        code,
        {**request.provenance, **versions(), **bits(spec.train.determinism)},
    )


def _of_script(spec: ExperimentSpec, request: Request, code: UserCode) -> Built:
    """A script brings data and model at once."""
    assert isinstance(spec.data, ScriptData)
    files = _files(spec.data, request)  # before the script, which reads them
    call = run_script(spec, code, request.random_seed)
    spec = filled(spec, call)
    data = Given(call, spec, code, seed=request.random_seed, data_root=request.data_root, files=files)
    model = handed_over(call.model, code, request.experiment_spec.model, data.first())
    about = {**request.provenance, **versions(), **bits(spec.train.determinism)}
    built = Built(request, spec, data, model, request.folder, code, about, call)
    steps = built.inner.feed.steps_per_epoch
    if call.callbacks and data.has_eval and steps is not None and not (spec.eval.every_steps or spec.eval.every_secs):
        # `fit` evaluates at the end of every epoch, and tells callbacks.
        built.spec = spec.model_copy(update={"eval": spec.eval.model_copy(update={"every_steps": steps})})
    for name in call.left_out:
        print(f"callback {name} is not called: expmgr does what it does", flush=True)
    return built


def source_of(spec: ExperimentSpec, request: Request, code: UserCode) -> Source:
    """The splits that the spec names."""
    if isinstance(spec.data, CsvData):
        return Tables(
            spec.data,
            is_classifier=spec.is_classifier,
            experiment_dir=request.experiment_dir,
            root=code.root,
            places=Places(request.data_root, request.repository),
        )
    assert isinstance(spec.data, PythonData)
    return Functions(
        spec.data,
        code,
        seed=request.random_seed,
        most_eval=spec.eval.steps,
        data_root=request.data_root,
        files=_files(spec.data, request),
    )


def _files(data: PythonData | ScriptData, request: Request) -> dict[str, Content]:
    """What the code reads besides what it gives."""
    return contents(data.files, request.experiment_dir, Places(request.data_root, request.repository))
