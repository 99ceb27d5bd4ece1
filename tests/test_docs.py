"""The docs say what is so: every command, key, field, rule and link, and what the README shows was run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from expmgr.checkpoints.signature import Signature
from expmgr.cli.main import make_app
from expmgr.errors import ExitCode
from expmgr.guard.rules import RULES
from expmgr.paths import RunDir
from expmgr.runs.record import Attempt, RunRecord
from expmgr.settings import ReviewRules, Settings
from expmgr.spec import data, experiment, model, optimizer, run_config, training
from typed import ESTIMATOR, settled, typed
from typed import commands as typed_commands
from world import ROOT, Repo

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*/README.md"))]


def page(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")


def commands() -> dict[str, str]:
    """Each command that is shown, and its help."""
    found = {
        "review": "Decide whether a variant is merged.\nExample: expmgr review open iris/wide --against iris/baseline"
    }
    for command in make_app().registered_commands:
        assert command.callback is not None
        if not command.hidden:
            found[str(command.name)] = command.callback.__doc__ or ""
    return found


def examples() -> Iterator[str]:
    for text in commands().values():
        yield from re.findall(r"^\s*Example: (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", commands())
def test_a_command_has_help_an_example_and_its_place_in_the_docs(name: str) -> None:
    text = commands()[name]
    assert len(text.strip().splitlines()[0]) > 20
    assert f"Example: expmgr {name}" in text
    section = page("commands").split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"`expmgr {name}" in section
    assert f"`expmgr {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_examples_of_the_help_are_in_the_walk_that_is_run() -> None:
    walk = [
        *_readme_commands(),
        *(f"expmgr {command} iris/wide" for command in ("check", "checkpoints", "show")),
        "expmgr list",
        "expmgr diff iris/baseline iris/wide",  # typed in scenarios/test_diff.py
        'expmgr adopt /data/iris_model --as iris/old --vouch "Ann Lee"',  # scenarios/test_adopt.py, another folder
    ]
    walk += [  # typed in scenarios/test_live.py, of another variant
        "expmgr status",
        "expmgr logs iris/wide -f",
        "expmgr stop iris/wide",
        "expmgr tensorboard iris/baseline iris/wide",
    ]
    walk += [  # typed in scenarios/test_ask.py
        "expmgr evaluate iris/wide",
        "expmgr evaluate iris/wide --data customers.csv --log",
        "expmgr predict iris/wide --data new.csv -o predicted.csv",
        "expmgr export iris/wide -o served",
    ]
    walk += [  # typed in tests/log/test_log.py and scenarios/test_push_pull.py
        "expmgr log iris/wide",
        'expmgr note iris/wide -m "the seeds differ more than I thought"',
        'expmgr retract 3f2a9c -m "that was another variant"',
        "expmgr push",
        "expmgr pull",
        "expmgr restore 20260101-120000000-a1b2c3",  # tests/team/test_damaged_records.py
        "expmgr doctor",  # tests/cli/test_doctor.py
        "expmgr review open iris/wide --against iris/baseline",  # tests/reviews/test_reviews.py
    ]
    assert [example for example in examples() if example not in walk] == []


def test_each_example_of_the_help_is_a_paragraph(repo: Repo) -> None:
    """The help folds the lines of a paragraph into one."""
    names = [name for name in commands() if name != "review"]
    for name in (*names, *(f"review {one}" for one in of_review())):
        shown = repo.expmgr(*name.split(), "--help").stdout
        paragraphs = re.split(r"\n[ \t]*\n", shown)
        found = [one.strip() for one in paragraphs if "Example:" in one]
        assert found, name
        assert all(one.startswith("Example: ") and one.count("Example:") == 1 for one in found), (name, found)


def of_review() -> list[str]:
    (group,) = make_app().registered_groups
    assert group.typer_instance is not None
    return [str(one.name) for one in group.typer_instance.registered_commands]


def test_each_command_of_a_review_has_an_example_and_its_place() -> None:
    (group,) = make_app().registered_groups
    assert group.typer_instance is not None
    for command in group.typer_instance.registered_commands:
        assert f"Example: expmgr review {command.name} " in (command.callback.__doc__ or "")
        assert f"`expmgr review {command.name} " in page("commands")


def test_the_workflows_of_the_docs_can_be_read() -> None:
    """YAML, and shell where they have some; each command that they call is one."""
    from ruamel.yaml import YAML

    text = (DOCS / "reviews.md").read_text(encoding="utf-8")
    blocks = [YAML(typ="safe").load(one) for one in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    steps = [step["run"] for step in blocks[0]["jobs"]["review"]["steps"] if "run" in step]
    steps += blocks[1]["experiment-review"]["script"]
    assert len(steps) == 8
    for step in steps:
        assert subprocess.run(["bash", "-n", "-c", step], check=False).returncode == 0, step
    calls = [line for step in steps for line in step.splitlines() if line.strip().startswith("expmgr ")]
    assert len(calls) == 5


def test_every_option_is_in_the_docs(repo: Repo) -> None:
    for name in (*commands(), *(f"review {one}" for one in of_review())):
        shown = repo.expmgr(*name.split(), "--help").stdout
        name = name.split()[0]
        section = page("commands").split(f"\n## {name}\n")[1].split("\n## ")[0]
        for option in set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help", "--message"}:
            assert option in section, (name, option)


@pytest.mark.parametrize(
    "model",
    [
        experiment.ExperimentSpec,
        data.CsvData,
        data.PythonData,
        model.PythonModel,
        data.ScriptData,
        model.ScriptModel,
        model.EstimatorModel,
        model.DnnClassifier,
        training.Train,
        training.EarlyStopping,
        training.Eval,
        training.Callback,
        optimizer.ExponentialDecay,
        optimizer.PiecewiseConstantDecay,
        optimizer.PolynomialDecay,
        optimizer.InverseTimeDecay,
        optimizer.CosineDecay,
        optimizer.CosineDecayRestarts,
        run_config.RunConfig,
        training.BestCheckpoint,
        experiment.Compare,
        optimizer.Adagrad,
        optimizer.Sgd,
        optimizer.Adam,
        optimizer.AdamW,
        optimizer.RmsProp,
        optimizer.Ftrl,
    ],
)
def test_every_key_of_the_spec_is_in_the_docs(model: type[BaseModel]) -> None:
    text = page("spec")
    for name, field in model.model_fields.items():
        assert f"`{name}`" in text or f"{name}:" in text, name
        if isinstance(field.default, float | int) and not isinstance(field.default, bool):
            assert re.search(rf"(?<![\w.]){re.escape(f'{field.default:g}'.replace('e-07', 'e-7'))}\b", text), (
                name,
                field.default,
            )


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (RunRecord, "record"),
        (Attempt, "record"),
        (Signature, "signature"),
        (Settings, "settings"),
        (ReviewRules, "settings"),
    ],
)
def test_every_field_is_in_the_docs(model: type[BaseModel], where: str) -> None:
    text = page(where)
    assert [name for name in model.model_fields if f"`{name}`" not in text and f'"{name}"' not in text] == []


def test_every_rule_of_the_guard_is_in_the_docs() -> None:
    rows = page("signature").split("## What the guard says")[1]
    for rule in RULES.values():
        assert f"| `{rule.id}` | {rule.verdict.value} | {rule.moved} | {rule.why} |\n" in rows


def test_every_exit_code_is_in_the_docs() -> None:
    text = page("exit-codes")
    not_yet = {ExitCode.NOT_COMPARABLE}
    assert [code for code in ExitCode if f"| {int(code)} |" not in text and code not in not_yet] == []


def test_every_file_of_a_run_is_in_the_docs() -> None:
    text = page("files")
    run_dir = RunDir(Path("r"))
    for path in (run_dir.record, run_dir.request, run_dir.events, run_dir.progress, run_dir.log, run_dir.code):
        assert path.name in text


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def _readme_commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("expmgr ")]


@pytest.mark.tf
@pytest.mark.slow
@pytest.mark.cold
def test_the_readme_was_typed(repo: Repo) -> None:
    rows = [f"{number / 3:.3f},{('red', 'green')[number % 2]},{('cat', 'dog')[number % 2]}" for number in range(50)]
    repo.write("my.csv", "\n".join(["weight_g,colour,kind", *rows, ""]))
    repo.commit("data")
    assert len(_readme_commands()) == 8
    for line in _readme_commands():
        result = repo.expmgr(*shlex.split(line)[1:])
        assert result.code == 0, (line, result.stderr)
    folder = repo.path.parent / "worktree"
    repo.git("worktree", "add", "--quiet", str(folder), "exp/iris/wide")
    path = folder / "experiments/iris/spec.yaml"
    path.write_text(path.read_text().replace("[20, 20]", "[30, 30]"))
    repo.git("commit", "--quiet", "--all", "-m", "wider still", folder=folder)
    refused = repo.expmgr("run", "iris/wide")
    assert refused.code == 3
    picture = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1]
    shown = [
        line.strip()
        for line in picture.splitlines()
        if line.startswith((" Error", "   ", " Nothing")) and "●" not in line
    ]
    told = [line.strip() for line in refused.stderr.splitlines()]
    assert len(shown) == 8
    assert [line for line in shown if line not in told] == []


@pytest.mark.slow
@pytest.mark.cold
@pytest.mark.tf
@pytest.mark.parametrize(("name", "least"), [("tutorial", 25), ("migrate-from-estimators", 6)])
def test_a_page_was_typed(empty: Repo, name: str, least: int) -> None:
    """Line by line in a shell, each with the exit code that the page names and what it shows."""
    shown = typed_commands((ROOT / f"docs/{name}.md").read_text(encoding="utf-8"))
    assert len(shown) >= least
    shutil.copytree(ESTIMATOR, empty.path.parent / "old_model")
    environ = {**os.environ, "COLUMNS": "110"}
    for line, code, lines in shown:
        found = typed(line, empty.path, environ)
        assert found[0] == code, (line, found[1])
        assert settled(found[1]) == settled(lines), line


def test_the_python_files_that_the_docs_name_are_there() -> None:
    """A path from the repository's root or from `expmgr/`; a bare name is a file of this repository, or of a reader's own."""
    of_readers = {"experiments/digits/train.py", "train.py", "setup.py", "callbacks.py"}
    names = {
        path.name
        for folder in ("expmgr", "benchmarks", "experiments", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    seen = set()
    for path in PAGES:
        for named in re.findall(r"(?<![\w./-])[\w-]+(?:/[\w-]+)*\.py\b", path.read_text(encoding="utf-8")):
            seen.add(named)
            is_there = (ROOT / named).is_file() or (ROOT / "expmgr" / named).is_file()
            assert is_there or ("/" not in named and named in names) or named in of_readers, f"{path}: {named}"
    assert of_readers | {"git/repo.py", "benchmarks/new.py"} <= seen
