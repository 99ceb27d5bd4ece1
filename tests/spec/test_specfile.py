"""spec.yaml: every error with its place, and `--set` that changes only the lines it has to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expmgr.errors import SpecProblem
from expmgr.spec.changes import changes, flat
from expmgr.spec.experiment import ExperimentSpec
from expmgr.spec.run_config import RUN_CONFIG_REASONS, RunConfig
from expmgr.spec.yaml_file import read_spec, set_values
from world import ROOT

TEXT = """\
# what this is about
experiment: iris          # the folder
question:   Does it?
data:       {kind: csv, train: a.csv, eval: b.csv, label: species, batch_size: 100}
model:      {kind: dnn_classifier, hidden_units: [10, 10]}    # widths
optimizer:  {kind: adagrad, learning_rate: 0.1}
train:
  max_steps: 1000         # enough

# the end
"""


def problem(text: str | bytes, **options: str) -> str:
    with pytest.raises(SpecProblem) as caught:
        read_spec(text.encode() if isinstance(text, str) else text, "spec.yaml", **options)
    return "\n".join(caught.value.lines())


def set_problem(*assignments: str) -> str:
    with pytest.raises(SpecProblem) as caught:
        set_values(TEXT.encode(), assignments, "spec.yaml", "iris")
    return "\n".join(caught.value.lines())


def changed(*assignments: str) -> tuple[list[str], list[str]]:
    """The lines that go and those that come."""
    new = set_values(TEXT.encode(), assignments, "spec.yaml", "iris").decode().splitlines()
    old = TEXT.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_the_shipped_spec_is_read() -> None:
    spec = read_spec((ROOT / "experiments/iris/spec.yaml").read_bytes(), "spec.yaml", "iris")
    assert spec.model.kind == "dnn_classifier"
    assert spec.data.batch_size == 100


UNTOUCHED = "\nNothing was changed."
PROBLEMS = {
    "": "Error: spec.yaml holds no spec: it is empty",
    "- 1": "Error: spec.yaml holds no spec: it is not a mapping",
    "a: [1": "Error: spec.yaml:1:6: expected ',' or ']', but got '<stream end>'",
    "a: 1\na: 2\n": 'Error: spec.yaml:2:1: found duplicate key "a" with value "2" (original value: "1")',
    "[" * 3000: "Error: spec.yaml:1: a spec has at most 50 levels of mappings and lists",
    TEXT.replace("train:\n", "trian:\n"): "Error: spec.yaml has 2 problems:\n  spec.yaml:1: train: is missing\n"
    f"  spec.yaml:7: trian: unknown key{UNTOUCHED}\nHint: did you mean train?",
    TEXT.replace("max_steps: 1000", 'max_steps: "1000"'): "Error: spec.yaml:8: train.max_steps: "
    f"input should be a valid integer, is '1000'{UNTOUCHED}",
    TEXT.replace("max_steps: 1000", "max_steps: 0"): "Error: spec.yaml:8: train.max_steps: "
    f"input should be greater than 0, is 0{UNTOUCHED}",
    TEXT.replace("adagrad", "adagrat"): "Error: spec.yaml:6: optimizer.kind: is 'adagrat', must be one of "
    f"adagrad, sgd, adam, adamw, rmsprop, ftrl{UNTOUCHED}\nHint: did you mean adagrad?",
    TEXT.replace("kind: adagrad, ", ""): f"Error: spec.yaml:6: optimizer.kind: is missing{UNTOUCHED}\n"
    "Hint: one of adagrad, sgd, adam, adamw, rmsprop, ftrl",
}


@pytest.mark.parametrize("text", PROBLEMS, ids=lambda text: text[:20])
def test_a_problem_has_its_place(text: str) -> None:
    assert problem(text) == PROBLEMS[text]


def test_another_experiment_than_the_folder() -> None:
    assert problem(TEXT, experiment="mnist") == (
        "Error: spec.yaml:2: experiment is 'iris', but the spec lies in experiments/mnist/"
    )


def test_at_most_five_problems_are_told() -> None:
    told = problem("a: 1\nb: 2\nc: 3\n").splitlines()
    assert told[0] == "Error: spec.yaml has 7 problems:"
    assert told[6] == "  and 2 more"


@pytest.mark.parametrize("bomb", ["a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "a: &a\n  b: *a\n"])
def test_a_spec_that_refers_to_itself_ends_in_an_error(bomb: str) -> None:
    assert problem(bomb).startswith("Error: ")


def test_bytes_that_are_no_text_and_files_that_are_no_spec() -> None:
    assert problem(b"a: \xff\xfe").startswith("Error: spec.yaml")
    assert "a spec has at most 1,000,000" in problem(b"#" * 1_000_001)


def test_run_config_has_the_names_and_defaults_of_tensorflow_2_15() -> None:
    assert RunConfig().model_dump() == {
        "tf_random_seed": None, "save_summary_steps": 100, "save_checkpoints_steps": None, "save_checkpoints_secs": 600,
        "session_config": None, "keep_checkpoint_max": 5, "keep_checkpoint_every_n_hours": 10000,
        "log_step_count_steps": 100, "train_distribute": None, "device_fn": None, "protocol": None,
        "eval_distribute": None, "experimental_distribute": None, "experimental_max_worker_delay_secs": None,
        "session_creation_timeout_secs": 7200, "checkpoint_save_graph_def": True,
    }  # fmt: skip


@pytest.mark.parametrize("key", RUN_CONFIG_REASONS)
def test_what_cannot_be_honoured_is_refused_with_the_reason(key: str) -> None:
    told = set_problem(f"run_config.{key}=7")
    assert told.splitlines()[0] == f"Error: --set run_config.{key}: cannot be honoured: {RUN_CONFIG_REASONS[key]}"


@pytest.mark.parametrize("key", [key for key in RUN_CONFIG_REASONS if key not in ("model_dir",)])
def test_a_default_of_run_config_is_taken_whatever_it_means(key: str) -> None:
    default = RunConfig.model_fields[key].default
    text = f"{TEXT}run_config: {{{key}: {'null' if default is None else default}}}\n"
    assert read_spec(text.encode(), "spec.yaml").run_config == RunConfig()


def test_checkpoints_by_steps_switch_the_seconds_off_and_both_are_an_error() -> None:
    spec = read_spec(f"{TEXT}run_config: {{save_checkpoints_steps: 50}}\n".encode(), "spec.yaml")
    assert (spec.run_config.save_checkpoints_steps, spec.run_config.save_checkpoints_secs) == (50, None)
    assert ExperimentSpec.model_validate(spec.resolved()).resolved() == spec.resolved()
    assert "save_checkpoints_steps and save_checkpoints_secs cannot both be set" in problem(
        f"{TEXT}run_config: {{save_checkpoints_steps: 50, save_checkpoints_secs: 60}}\n"
    )
    both = "run_config:\n  save_checkpoints_secs: 1200\n  keep_checkpoint_max: 10\n"
    assert read_spec(f"{TEXT}{both}".encode(), "spec.yaml").run_config.save_checkpoints_secs == 1200


def test_set_changes_one_line() -> None:
    assert changed("model.hidden_units=[20, 20]") == (
        ["model:      {kind: dnn_classifier, hidden_units: [10, 10]}    # widths"],
        ["model:      {kind: dnn_classifier, hidden_units: [20, 20]}    # widths"],
    )
    assert changed("train.max_steps=5") == (
        ["  max_steps: 1000         # enough"],
        ["  max_steps: 5         # enough"],
    )
    assert changed("optimizer.learning_rate=1e-3")[1] == ["optimizer:  {kind: adagrad, learning_rate: 1e-3}"]


def test_set_adds_a_key_where_it_belongs() -> None:
    assert changed("model.dropout=0.2")[1] == [
        "model:      {kind: dnn_classifier, hidden_units: [10, 10], dropout: 0.2}    # widths"
    ]
    assert changed("run_config.save_checkpoints_steps=100") == ([], ["run_config: {save_checkpoints_steps: 100}"])
    assert changed("run_config.save_checkpoints_steps=100", "run_config.keep_checkpoint_max=3")[1] == [
        "run_config: {save_checkpoints_steps: 100, keep_checkpoint_max: 3}"
    ]


def test_null_unsets_a_key() -> None:
    assert changed("question=null") == (["question:   Does it?"], [])
    assert changed("data.batch_size=null")[1] == ["data:       {kind: csv, train: a.csv, eval: b.csv, label: species}"]
    assert changed("model.dropout=null") == ([], [])
    assert "--set data.label: is missing" in set_problem("data.label=null")


def test_a_set_without_a_value_and_of_nothing() -> None:
    assert set_problem("train") == (
        "Error: --set train is not KEY=VALUE\nNothing was changed.\nHint: for example --set optimizer.learning_rate=0.01"
    )
    assert set_values(TEXT.encode(), [], "spec.yaml", "iris") == TEXT.encode()


def test_a_string_with_yaml_in_it_stays_a_string() -> None:
    new = set_values(TEXT.encode(), ['question="a: {b}, #c"', "data.label='x, y'"], "spec.yaml", "iris")
    spec = read_spec(new, "spec.yaml")
    assert (spec.question, spec.data.label) == ("a: {b}, #c", "x, y")


@given(
    st.lists(st.integers(1, 999), min_size=1, max_size=4),
    st.floats(1e-9, 1e9, allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=30),
    st.integers(1, 10**9),
)
def test_set_says_what_was_meant_and_nothing_else(units: list[int], rate: float, question: str, steps: int) -> None:
    quoted = json.dumps(question, ensure_ascii=False)
    assignments = [
        f"model.hidden_units={units}", f"optimizer.learning_rate={rate!r}", f"question={quoted}",
        f"run_config.save_checkpoints_steps={steps}",
    ]  # fmt: skip
    base = read_spec(TEXT.encode(), "spec.yaml").resolved()
    spec = read_spec(set_values(TEXT.encode(), assignments, "spec.yaml", "iris"), "spec.yaml")
    moved = changes(base, spec.resolved())
    assert set(moved) <= {
        "model.hidden_units", "optimizer.learning_rate", "question", "run_config.save_checkpoints_steps",
        "run_config.save_checkpoints_secs",
    }  # fmt: skip
    told = flat(spec.resolved())
    assert (told["model.hidden_units"], told["question"]) == (units, question)
    assert told["optimizer.learning_rate"] == pytest.approx(rate)
    assert ExperimentSpec.model_validate(spec.resolved()).resolved() == spec.resolved()


def test_a_direction_that_contradicts_the_metric_is_an_error() -> None:
    said = problem(TEXT + "compare: {metric: accuracy, mode: min}\n")
    assert "compare.mode is min, but accuracy is better where it is more: compare.mode=max, or null" in said
    spec = read_spec((TEXT + "compare: {metric: accuracy, mode: max}\n").encode(), "spec.yaml")
    assert spec.compared.mode == "max"
