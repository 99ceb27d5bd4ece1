"""Builds an Estimator with a function of the repository, its data, and the wanted signature."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from expmgr.checkpoints.model_dir import ModelDir
from expmgr.checkpoints.signature import Signature, TrainingSetup, Variable
from expmgr.errors import Stopped, UserCodeFailed, WarmStartProblem
from expmgr.paths import RunDir
from expmgr.runs.request import Request, read_request
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.model import EstimatorModel
from expmgr.train.building import source_of
from expmgr.train.environment import bits, environment, versions
from expmgr.train.estimators import graphs
from expmgr.train.estimators.inputs import Fed, Inputs
from expmgr.train.estimators.running import Interrupt, metrics_of
from expmgr.train.signature.sourcecode import code_behind
from expmgr.train.user.code import UserCode
from expmgr.train.user.params import in_force, params_of

_UNTOUCHED = "Nothing was changed."


@dataclass
class BuiltEstimator:
    """A run that was prepared in memory alone."""

    request: Request
    spec: ExperimentSpec
    data: Inputs
    estimator: Any
    folder: ModelDir
    code: UserCode
    code_digest: str
    """Of the syntax trees behind the function that builds it."""
    provenance: dict[str, Any]
    newest: Path | None = field(default=None)
    """The checkpoint that an evaluation looks at; None before the first."""

    def signature(self, step: int) -> Signature:
        """What a checkpoint of the Estimator at `step` requires; what it offers to one."""
        return self._signature.model_copy(update={"step": step, "provenance": self.provenance})

    @cached_property
    def _signature(self) -> Signature:
        inference, training = self._inference, self.training_mode
        roles = inference.roles

        def described(one: Variable) -> Variable:
            role, blind = roles.get(one.path, (None, None))
            return one.model_copy(update={"role": role, "blind_role": blind if blind != role else None})

        weights = {one.path for one in inference.variables}
        # Which of them are trained, the graph of training alone says.
        return Signature(
            keys="names",
            step=0,
            variables=[described(one) for one in training.variables if one.path in weights],
            optimizer_variables=[one for one in training.variables if one.path not in weights],
            state=[],
            inference=inference.inference,
            training_step=training.inference,
            code=self.code_digest,
            step_code=self.code_digest,
            architecture=self.spec.model.model_dump(mode="json"),
            layers={},
            data=self.data.contract(),
            training=TrainingSetup(
                optimizer={"kind": "+".join(training.kinds) or "unknown", **training.settings},
                batch_size=self.data.batch_size,
                shuffle=self.spec.data.shuffle if self.data.batch_size is not None else None,
                seed=self.request.seed,
            ),
            provenance=self.provenance,
        )

    @cached_property
    def _inference(self) -> graphs.Mode:
        """Its graph for predictions; for evaluations where its model_fn knows no predictions."""
        type_specs = self.data.type_specs("eval")
        order = list(self.data.order)
        try:
            return graphs.look(self.estimator, "infer", type_specs, order, self.code_digest)
        except Exception:  # whatever the user's model_fn raises without labels
            with self.code.errors("model.build: the graph of an evaluation cannot be made"):
                return graphs.look(self.estimator, "eval", type_specs, order, self.code_digest)

    @cached_property
    def training_mode(self) -> graphs.Mode:
        """Its graph for training."""
        with self.code.errors("model.build: the graph of training cannot be made"):
            return graphs.look(
                self.estimator, "train", self.data.type_specs("train"), list(self.data.order), self.code_digest
            )

    @property
    def params(self) -> dict[str, Any]:
        """What the user's code was given, its defaults included, by key of the spec."""
        return in_force(self.code)

    @property
    def measures(self) -> dict[str, str]:
        """By what it is evaluated: a premade one by what its class does, else by code that says all at once."""
        kind = type(self.estimator)
        if kind.__name__ != "Estimator" and "tensorflow_estimator" in kind.__module__:
            return {"metrics": kind.__name__, "loss": kind.__name__, "steps": ""}
        return {"code": self.code_digest}

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        trained = [one for one in self._signature.variables if one.trainable]
        return sum(int(tf.TensorShape(one.shape).num_elements() or 1) for one in trained)

    def make_ready(self) -> None:
        """Make its graphs, so that what is wrong leaves no trace on the disk."""
        self.signature(0)
        self.code.look_at_modules("model.build")

    def environment(self) -> dict[str, Any]:
        """What the record says of the machine and the libraries."""
        return environment("float32", self.request.environment)

    def settle(self) -> None:
        """Build it anew in the model_dir, which from now on may be written."""
        self.estimator = _built(self.spec, self.request, self.code, str(self.request.model_dir))

    def evaluation(self, source: Fed) -> EstimatorEvaluation:
        """An evaluation of `source`."""
        return EstimatorEvaluation(self, source)


class EstimatorEvaluation:
    """An evaluation of one split, of the checkpoint that `built.newest` names."""

    def __init__(self, built: BuiltEstimator, source: Fed) -> None:
        self._built, self._source = built, source

    def run(self, is_stopped: Any, _clock: Any, *, most_batches: int | None = None) -> dict[str, float] | None:
        """The metrics; None where `is_stopped` said so."""
        built = self._built
        try:
            with built.code.errors("an evaluation failed"):
                found = built.estimator.evaluate(
                    self._source.input_fn,
                    steps=most_batches,
                    hooks=[Interrupt(is_stopped)],
                    checkpoint_path=str(built.newest),
                )
        except Stopped:
            return None
        return metrics_of(found)


def build(run_dir: RunDir) -> BuiltEstimator:
    """Read everything, the data before the Estimator is built, since it is what fails most."""
    request = read_request(run_dir)
    spec = request.experiment_spec
    if request.warm_start is not None:
        raise WarmStartProblem(
            "an Estimator is warm-started by its own code, not by --warm-start-from",
            left_alone=_UNTOUCHED,
            hint="give its constructor warm_start_from, on a variant of its own",
        )
    code = UserCode(
        request.experiment_dir, run_dir.code, request.repository, request.module_roots, request.code_packages
    )
    data = Inputs(source_of(spec, request, code), spec.data, request.random_seed)
    # Only a training writes into the model_dir, once it may: until then a folder that goes with the worker.
    estimator = _built(spec, request, code, tempfile.mkdtemp(prefix="expmgr-estimator-"))
    digest = code_behind([code.find(_model(spec).build, "model.build")], run_dir.code)
    return BuiltEstimator(
        request,
        spec,
        data,
        estimator,
        request.folder,
        code,
        digest,
        {**request.provenance, **versions(), **bits(False)},
    )


def _model(spec: ExperimentSpec) -> EstimatorModel:
    assert isinstance(spec.model, EstimatorModel)
    return spec.model


def _built(spec: ExperimentSpec, request: Request, code: UserCode, model_dir: str) -> Any:
    about = _model(spec)
    tf.keras.utils.set_random_seed(request.random_seed % 2**32)
    run_config = run_config_of(spec, code, model_dir, request.random_seed)
    params = params_of(about.params, about.params_model, code, "model")
    given = {"params": params, "run_config": run_config, "config": run_config, "seed": request.random_seed}
    estimator = code.call(about.build, "model.build", given)
    if not isinstance(estimator, (tf.estimator.Estimator, tf.compat.v1.estimator.Estimator)):
        raise UserCodeFailed(
            f"model.build: {about.build} gives {type(estimator).__name__}, not a tf.estimator.Estimator",
            left_alone=_UNTOUCHED,
            hint="return the Estimator" if estimator is None else None,
        )
    if str(estimator.model_dir) != model_dir:
        raise UserCodeFailed(
            f"model.build: the Estimator of {about.build} keeps its checkpoints in {estimator.model_dir}, "
            "not in the variant's model_dir",
            left_alone=_UNTOUCHED,
            hint="hand the run's configuration on: build_estimator(params, run_config) with config=run_config, "
            "and no model_dir",
        )
    return estimator


def run_config_of(spec: ExperimentSpec, code: UserCode, model_dir: str, seed: int) -> Any:
    """`tf.estimator.RunConfig` with every value of the spec's `run_config`."""
    said = spec.run_config
    named = ("train_distribute", "eval_distribute", "experimental_distribute")
    given: dict[str, Any] = {
        name: code.call(reference, f"run_config.{name}", {"seed": seed})
        for name in named
        if (reference := getattr(said, name)) is not None
    }
    if said.device_fn is not None:
        given["device_fn"] = code.find(said.device_fn, "run_config.device_fn")
    if said.session_config is not None:
        given["session_config"] = _session_config(said.session_config)
    for name in ("save_checkpoints_secs", "save_checkpoints_steps"):
        if (value := getattr(said, name)) is not None:
            given[name] = value
    plain = ("keep_checkpoint_max", "keep_checkpoint_every_n_hours", "log_step_count_steps", "save_summary_steps")
    rest = ("protocol", "experimental_max_worker_delay_secs", "session_creation_timeout_secs")
    given.update({name: getattr(said, name) for name in (*plain, *rest, "checkpoint_save_graph_def")})
    with code.errors("run_config: tf.estimator.RunConfig does not take it"):
        return tf.estimator.RunConfig(model_dir=model_dir, tf_random_seed=seed, **given)


def _session_config(fields: dict[str, Any]) -> Any:
    from google.protobuf import json_format

    config = tf.compat.v1.ConfigProto()
    try:
        json_format.ParseDict(fields, config)
    except json_format.ParseError as error:
        raise UserCodeFailed(f"run_config.session_config: {error}", left_alone=_UNTOUCHED) from None
    return config
