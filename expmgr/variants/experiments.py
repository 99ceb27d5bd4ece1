"""Adds an experiment to a repository: an example, or a first spec for the user's own data."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from expmgr.data.csvdata import CsvTable, distinct, is_number, is_numeric, read_table, require_column
from expmgr.disk import durable
from expmgr.errors import BadName, DataProblem, ExpmgrError
from expmgr.git.checkouts import commit_paths
from expmgr.git.repo import CommitId
from expmgr.paths import check_name, experiment_folder
from expmgr.project import Project
from expmgr.spec.yaml_file import read_spec
from expmgr.variants.examples import example_files

_EVAL_SHARE = 0.2
_MOST_CLASSES = 20
_MOST_BYTES = 50_000_000
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z", re.ASCII)
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


class ExperimentExists(ExpmgrError):
    """The experiment's folder is there already."""


def add_experiment(project: Project, name: str, files: Mapping[str, bytes]) -> list[str]:
    """Write `files` (path in the experiment's folder to content) into the checkout, all or none; return their paths."""
    check_name(name, "an experiment")
    if project.repo.root is None:
        raise BadName("a bare repository has no files to write to", hint="call it in a checkout")
    folder = project.repo.root / experiment_folder(name)
    if folder.exists():
        raise ExperimentExists(
            f"{experiment_folder(name)} exists already",
            left_alone="Nothing was changed.",
            hint=_next_of(project, name),
        )
    try:
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(target, content)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return [f"{experiment_folder(name)}/{path}" for path in files]


def _next_of(project: Project, name: str) -> str:
    """What to do with an experiment that is there."""
    head, folder = project.repo.commit_of("HEAD"), experiment_folder(name)
    is_committed = head is not None and project.repo.read(head, f"{folder}/spec.yaml") is not None
    return ("" if is_committed else f"git add {folder}; git commit; then ") + f"expmgr new {name}/baseline"


def commit_experiment(project: Project, files: Sequence[str], message: str) -> CommitId:
    """Commit `files`, those that git ignores too, on the branch that is checked out, and nothing else."""
    assert project.repo.root is not None
    return commit_paths(project.repo.root, files, message, also_ignored=True, on_note=project.repo.on_note)


def files_of(example: str | None, experiment: str | None, csv_file: Path | None, label: str | None) -> dict[str, bytes]:
    """The files of an example that ships, of a first experiment on `csv_file` with the column `label`, or of one without data;
    none where nothing is named."""
    if example is not None:
        return example_files(example)
    if experiment is None:
        return {}
    return template(experiment) if csv_file is None or label is None else from_csv(experiment, csv_file, label)


def from_csv(experiment: str, path: Path, label: str) -> dict[str, bytes]:
    """The files of a first experiment on the CSV file `path`: two splits and a spec that names every column.

    One row in five is kept for evaluation: drawn with a fixed seed, class by class where the label is one.
    """
    check_name(experiment, "an experiment")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataProblem(f"{path} cannot be read: {error.strerror}", left_alone="Nothing was changed.") from None
    if len(content) > _MOST_BYTES:
        raise DataProblem(
            f"{path} has {len(content):,} bytes, too many for a copy in git (at most {_MOST_BYTES:,})",
            left_alone="Nothing was changed.",
            hint=f"take a part of it, or write the spec yourself: expmgr init --experiment {experiment}",
        )
    table = read_table(content, str(path))
    require_column(table, label)
    for column in table.columns:
        distinct(table, column)  # an empty cell anywhere is told here, before anything is written
    labels = [value for _line, value in table.cells(label)]
    classes = None if _is_measure(labels) else distinct(table, label)
    train, kept = _split(labels if classes is not None else [""] * len(labels))
    if not kept:
        raise DataProblem(f"{path} has {len(labels)} rows, too few to train on and to evaluate")
    if classes is not None and len(classes) < 2:
        raise DataProblem(f"{path}: column {label} has one value only, {classes[0]!r}: there is nothing to tell apart")
    spec_text = _spec_text(experiment, table, label, classes)
    read_spec(spec_text, "spec.yaml", experiment)
    return {
        "spec.yaml": spec_text,
        "train.csv": _csv(table.columns, [table.rows[number] for number in train]),
        "eval.csv": _csv(table.columns, [table.rows[number] for number in kept]),
    }


def template(experiment: str) -> dict[str, bytes]:
    """A first spec for data that is not there yet."""
    check_name(experiment, "an experiment")
    text = f"""\
experiment: {experiment}
question: What do you want to find out?
data:                      # put train.csv and eval.csv beside this file, each with a header
  kind: csv
  train: train.csv
  eval: eval.csv
  label: label             # the column to predict
model: {{kind: dnn_classifier, hidden_units: [32, 32]}}
optimizer: {{kind: adam, learning_rate: 0.001}}
train: {{max_steps: 1000}}
"""
    return {"spec.yaml": text.encode()}


def _is_measure(labels: Sequence[str]) -> bool:
    """Whether a label is a quantity to estimate, not a class: numbers, with fractions or of many values."""
    if not all(is_number(label) for label in labels):
        return False
    return len(set(labels)) > _MOST_CLASSES or any(not float(label).is_integer() for label in labels)


def _split(groups: Sequence[str]) -> tuple[list[int], list[int]]:
    """Row numbers to train on and to evaluate, shuffled, the same share of every group."""
    shuffled = list(range(len(groups)))
    random.Random(0).shuffle(shuffled)
    kept: set[int] = set()
    for group in sorted(set(groups)):
        members = [number for number in shuffled if groups[number] == group]
        kept.update(members[: round(len(members) * _EVAL_SHARE)])
    return [number for number in shuffled if number not in kept], [number for number in shuffled if number in kept]


def _spec_text(experiment: str, table: CsvTable, label: str, classes: Sequence[str] | None) -> bytes:
    features = {
        name: "numeric" if is_numeric(table, name) else "categorical" for name in table.columns if name != label
    }
    lines = [
        f"experiment: {experiment}",
        f"question: {_yaml(f'How well can {label} be predicted from the other columns?')}",
        "data:",
        "  kind: csv",
        "  train: train.csv",
        "  eval: eval.csv",
        f"  label: {_yaml(label)}",
    ]
    if classes is not None:
        lines.append(f"  labels: [{', '.join(_yaml(one) for one in classes)}]")
    lines.append("  features:")
    lines.extend(f"    {_yaml(name)}: {kind}" for name, kind in features.items())
    lines.append("  normalize: true          # numeric columns to mean 0 and variance 1, by the training split")
    kind = "dnn_classifier" if classes is not None else "dnn_regressor"
    lines.append(f"model: {{kind: {kind}, hidden_units: [32, 32]}}")
    lines.append("optimizer: {kind: adam, learning_rate: 0.001}")
    lines.append("train: {max_steps: 1000}")
    return ("\n".join(lines) + "\n").encode()


def _yaml(text: str) -> str:
    """`text` as a YAML scalar that is a string, whatever it looks like."""
    bare = _PLAIN.match(text) and text.lower() not in _YAML_WORDS
    return text if bare else json.dumps(text, ensure_ascii=False)


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue().encode()
