"""`new`: a branch and a commit without a checkout, and every way in which it says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from expmgr.spec.yaml_file import read_spec
from world import Repo

WIDE = ("new", "iris/wide", "--from", "iris/baseline", "--set", "model.hidden_units=[20, 20]", "-m", "twice the width")


@pytest.fixture
def base(iris: Repo) -> Repo:
    assert iris.expmgr("new", "iris/baseline", "-m", "as in the guide").code == 0
    return iris


def test_a_variant_is_a_branch_whose_one_commit_changes_the_spec(base: Repo) -> None:
    result = base.expmgr(*WIDE)
    assert result.code == 0
    commit = base.git("rev-parse", "exp/iris/wide").strip()
    assert result.stdout == f"iris/wide: branch exp/iris/wide at {commit[:12]}\n"
    assert result.stderr == "Next: expmgr run iris/wide\n"
    assert base.git("log", "-1", "--format=%B", "exp/iris/wide").strip() == (
        "twice the width\n\nmodel.hidden_units=[20, 20]\n\nExpmgr-Variant: iris/wide\nExpmgr-From: iris/baseline"
    )
    assert base.git("rev-parse", "exp/iris/wide^") == base.git("rev-parse", "exp/iris/baseline")
    changed = base.git("diff", "--unified=0", "exp/iris/baseline", "exp/iris/wide").splitlines()
    lines = [line for line in changed if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(lines) == 2, changed
    assert "hidden_units: [10, 10]" in lines[0]
    assert "hidden_units: [20, 20]" in lines[1]


def test_json(base: Repo) -> None:
    result = base.expmgr(*WIDE, "--json")
    told = json.loads(result.stdout)
    assert told == {
        "format": 1,
        "variant": "iris/wide",
        "branch": "exp/iris/wide",
        "commit": base.git("rev-parse", "exp/iris/wide").strip(),
        "base": base.git("rev-parse", "exp/iris/baseline").strip(),
    }
    assert result.stderr == ""


@pytest.mark.parametrize("state", ["clean", "dirty", "detached", "linked", "hooks", "packed"])
def test_the_checkout_is_untouched(base: Repo, state: str) -> None:
    folder = base.path
    if state == "dirty":
        base.write("README.md", "changed\n")
        base.write("untracked.txt", "mine\n")
        base.write("staged.txt", "staged\n")
        base.git("add", "staged.txt")
        base.git("stash", "push", "--include-untracked", "--", "untracked.txt")
        base.write("untracked.txt", "mine again\n")
    elif state == "detached":
        base.git("checkout", "--quiet", "--detach")
    elif state == "linked":
        folder = base.path.parent / "linked"
        base.git("worktree", "add", "--quiet", "-b", "side", str(folder))
    elif state == "hooks":
        for hook in ("pre-commit", "post-commit", "post-checkout", "reference-transaction", "commit-msg"):
            path = base.path / ".git" / "hooks" / hook
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\ntouch '{base.path}/{hook}-ran'\nexit 1\n")
            path.chmod(0o755)
    elif state == "packed":
        base.git("pack-refs", "--all")
        base.git("gc", "--quiet")
    before = base.digest(folder, stamps=True, skip_git=True)
    head = (base.git("rev-parse", "HEAD"), base.git("stash", "list"), (base.path / ".git" / "index").read_bytes())
    result = base.expmgr(*WIDE, folder=folder)
    assert result.code == 0, result.stderr
    assert base.digest(folder, stamps=True, skip_git=True) == before
    assert (base.git("rev-parse", "HEAD"), base.git("stash", "list")) == head[:2]
    assert (base.path / ".git" / "index").read_bytes() == head[2]
    assert "refs/expmgr/keep" not in base.git("for-each-ref")
    assert base.git("fsck", "--strict") == ""


NAMES = {
    "-rf": "'-rf' names no experiment",
    "wide": "'wide' names no experiment",
    "": "'' names no experiment",
    "../x": "'..' cannot be the name of an experiment",
    "iris/..": "'..' cannot be the name of a variant",
    "iris/-rf": "'-rf' cannot be the name of a variant",
    "iris/a..b": "'a..b' cannot be the name of a variant",
    "iris/x.lock": "'x.lock' cannot be the name of a variant",
    "iris/A B": "'A B' cannot be the name of a variant",
    "iris/": "'' cannot be the name of a variant",
    "iris/a/b": "'a/b' cannot be the name of a variant",
    "iris/x.": "'x.' cannot be the name of a variant",
    "iris/ünit": "'ünit' cannot be the name of a variant",
    "iris/a\x1b[31m": "'a\\x1b[31m' cannot be the name of a variant",
    "iris/" + "v" * 200: "'" + "v" * 67 + "...' cannot be the name of a variant",
}
RULE = "letters a-z, digits, '.', '_' and '-', the first a letter or digit, at most 64, no '..', no '.' and no '.lock' at the end"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_refused_with_the_rule(base: Repo, name: str) -> None:
    before = base.snapshot()
    result = base.expmgr("new", "--", name)
    rule = f"a name has {RULE}"
    if "names no experiment" in NAMES[name]:
        rule = f"a variant is named EXPERIMENT/VARIANT, each with {RULE}"
    assert result.stderr == f"Error: {NAMES[name]}\nNothing was changed.\nHint: {rule}\n"
    assert (result.code, result.stdout) == (1, "")
    assert base.snapshot() == before


def test_a_name_of_64_characters_is_taken(base: Repo) -> None:
    assert base.expmgr("new", "iris/" + "v" * 64).code == 0
    before = base.snapshot()
    refused = base.expmgr("new", "iris/" + "v" * 65)
    assert (refused.code, refused.stderr.splitlines()[0]) == (
        1, f"Error: {'v' * 65!r} cannot be the name of a variant"
    )  # fmt: skip
    assert base.snapshot() == before


def test_a_branch_that_exists_is_left_alone(base: Repo) -> None:
    before = base.snapshot()
    result = base.expmgr("new", "iris/baseline", "--set", "train.max_steps=7")
    assert result.stderr == (
        "Error: branch exp/iris/baseline exists already\nNothing was changed.\n"
        "Hint: choose another name, or look at it: expmgr show iris/baseline\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("other", ["exp/iris", "exp", "exp/iris/wide/deeper"])
def test_a_branch_beside_which_git_cannot_hold_it(iris: Repo, other: str, packed: bool) -> None:
    iris.git("branch", other)
    if packed:
        iris.git("pack-refs", "--all")
    before = iris.snapshot()
    result = iris.expmgr("new", "iris/wide")
    assert result.stderr == (
        f"Error: git cannot hold branch exp/iris/wide beside branch {other}\nNothing was changed.\n"
        f"Hint: choose another name, or rename the other: git branch -m {other} NEW-NAME\n"
    )
    assert result.code == 1
    assert iris.snapshot() == before


def test_a_spec_that_was_written_but_not_committed(repo: Repo) -> None:
    assert repo.expmgr("init", "--example", "iris").code == 0
    before = repo.snapshot()
    result = repo.expmgr("new", "iris/baseline")
    assert result.stderr == (
        "Error: experiments/iris/spec.yaml is not committed\nNothing was changed.\n"
        'Hint: git add experiments/iris && git commit -m "..."\n'
    )
    assert result.code == 1
    assert repo.snapshot() == before


def test_a_spec_with_changes_that_are_not_committed(iris: Repo) -> None:
    iris.write("experiments/iris/spec.yaml", iris.read("experiments/iris/spec.yaml") + "# more\n")
    before = iris.snapshot()
    result = iris.expmgr("new", "iris/baseline")
    assert result.stderr == (
        "Error: experiments/iris/spec.yaml has changes that are not committed\nNothing was changed.\n"
        'Hint: git add experiments/iris && git commit -m "..."; '
        "or, to leave the changes out: expmgr new iris/baseline --from HEAD\n"
    )
    assert result.code == 1
    assert iris.snapshot() == before
    assert iris.expmgr("new", "iris/baseline", "--from", "HEAD").code == 0


def test_unknown_experiment(iris: Repo) -> None:
    before = iris.snapshot()
    result = iris.expmgr("new", "irish/wide")
    assert result.stderr == (
        "Error: there is no experiment irish at main: experiments/irish/spec.yaml is missing\n"
        "Nothing was changed.\nHint: did you mean iris/wide?\n"
    )
    assert result.code == 1
    assert iris.snapshot() == before


def test_unknown_base(base: Repo) -> None:
    before = base.snapshot()
    result = base.expmgr("new", "iris/wide", "--from", "iris/basline")
    assert result.stderr == (
        "Error: iris/basline is neither a variant nor a commit\nNothing was changed.\nHint: did you mean iris/baseline?\n"
    )
    assert result.code == 1
    assert base.snapshot() == before


SETS = {
    "model.hiden_units=[20, 20]": "--set model.hiden_units: unknown key\nNothing was changed.\n"
    "Hint: did you mean model.hidden_units?\n",
    "model.hidden_units=wide": "--set model.hidden_units: input should be a valid list, is 'wide'\nNothing was changed.\n",
    "train.max_steps=1.5": "--set train.max_steps: input should be a valid integer, is 1.5\nNothing was changed.\n",
    "run_config.session_config={}": "--set run_config.session_config: cannot be honoured: Keras 3 has no session\n"
    "Nothing was changed.\n",
    "train": "--set train is not KEY=VALUE\nNothing was changed.\nHint: for example --set optimizer.learning_rate=0.01\n",
}


@pytest.mark.parametrize("assignment", SETS)
def test_a_set_that_makes_no_spec(base: Repo, assignment: str) -> None:
    before = base.snapshot()
    result = base.expmgr("new", "iris/wide", "--from", "iris/baseline", "--set", assignment)
    assert result.stderr == f"Error: {SETS[assignment]}"
    assert result.code == 1
    assert base.snapshot() == before


def test_no_commit_yet(empty: Repo) -> None:
    result = empty.expmgr("new", "iris/wide")
    assert result.stderr == (
        f"Error: {empty.path} has no commit yet\nNothing was changed.\n"
        "Hint: commit what you have; or, where that is nothing, expmgr init --example iris --commit\n"
    )
    assert result.code == 1


def test_not_a_repository(empty: Repo) -> None:
    folder = empty.path.parent
    result = empty.expmgr("new", "iris/wide", folder=folder)
    assert result.stderr == (
        f"Error: {folder} is not in a git repository\nHint: git init, then expmgr init --example iris --commit\n"
    )
    assert result.code == 1


def test_no_identity(iris: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    iris.git("config", "--global", "--unset", "user.email")
    iris.git("config", "--global", "user.useConfigOnly", "true")
    before = iris.snapshot()
    result = iris.expmgr("new", "iris/wide")
    assert result.stderr == (
        "Error: git does not know who you are, so it cannot make a commit\nNothing was changed.\n"
        'Hint: git config --global user.name "Your Name"; git config --global user.email you@example.com\n'
    )
    assert result.code == 1
    assert iris.snapshot() == before


def test_inside_a_hook_the_folder_counts_not_git_dir(base: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(base.path.parent / "elsewhere.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(base.path.parent / "elsewhere.index"))
    assert base.expmgr(*WIDE).code == 0
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert base.git("rev-parse", "--verify", "exp/iris/wide")


@pytest.mark.slow
@pytest.mark.alone
def test_sixteen_at_once(base: Repo) -> None:
    command = [sys.executable, "-m", "expmgr", "new", "--from", "iris/baseline", "--set", "train.max_steps=5"]
    started = [
        subprocess.Popen(
            [*command, f"iris/v{number}"], cwd=base.path, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        for number in range(16)
    ]
    assert [(process.communicate()[1].splitlines()[-1:], process.returncode) for process in started] == [
        ([f"Next: expmgr run iris/v{number}"], 0) for number in range(16)
    ]
    assert len(base.git("branch", "--list", "exp/iris/v*").splitlines()) == 16
    assert base.git("fsck", "--strict") == ""


@pytest.mark.slow
@pytest.mark.alone
def test_of_sixteen_that_want_one_name_one_gets_it(base: Repo) -> None:
    command = [sys.executable, "-m", "expmgr", "new", "iris/one", "--from", "iris/baseline"]
    started = [
        subprocess.Popen(
            [*command, "-m", str(number)], cwd=base.path, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        for number in range(16)
    ]
    told = [(process.communicate()[1].splitlines(), process.returncode) for process in started]
    (first,) = [number for number, (_, code) in enumerate(told) if code == 0]
    assert [(words[0], code) for words, code in told if code] == [("Error: branch exp/iris/one exists already", 1)] * 15
    assert base.git("log", "-1", "--format=%B", "exp/iris/one").splitlines()[0] == str(first)
    assert base.git("fsck", "--no-dangling", "--strict") == ""


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("data.label=spezies", "experiments/iris/iris_training.csv has no column spezies"),
        ("data.train=iris_trainig.csv", "experiments/iris/iris_trainig.csv is not in the commit (data.train)"),
        (
            "data.features={petal_lenght_cm: numeric}",
            "experiments/iris/iris_training.csv has no column petal_lenght_cm",
        ),
        ("data.features={species: numeric}", "data.features must name at least one column, and not the label"),
    ],
)
def test_what_the_data_does_not_have_makes_no_branch(iris: Repo, setting: str, told: str) -> None:
    before = iris.snapshot()
    result = iris.expmgr("new", "iris/base", "--set", setting)
    assert (result.code, told in result.stderr) == (1, True), result.stderr
    assert iris.snapshot() == before


def editor(repo: Repo, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Let $EDITOR be a `sed` that changes its file."""
    path = repo.path.parent / "editor.sh"
    path.write_text(f'#!/bin/sh\nsed -i "{command}" "$1"\n')
    path.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(path))
    for name in ("VISUAL", "GIT_EDITOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_the_spec_is_edited_before_it_is_committed(base: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(base, monkeypatch, "s/hidden_units: .10, 10./hidden_units: [7]/")
    assert base.expmgr("new", "iris/mine", "--set", "train.max_steps=5", "--edit").code == 0
    spec = base.git("show", "exp/iris/mine:experiments/iris/spec.yaml")
    assert "hidden_units: [7]" in spec
    assert "max_steps: 5" in spec


def test_an_edited_spec_that_is_wrong_makes_no_branch_and_is_kept(base: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    editor(base, monkeypatch, "s/hidden_units/hidden_unit/")
    before = base.git("for-each-ref")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    result = base.expmgr("new", "iris/mine", "--edit")
    assert result.code == 1
    assert "did you mean model.hidden_units?" in result.stderr
    kept = result.stderr.partition("What you wrote is kept: ")[2].splitlines()[0]
    assert "hidden_unit:" in Path(kept).read_text(encoding="utf-8")
    assert base.git("for-each-ref") == before


def test_switch_checks_the_branch_out(base: Repo) -> None:
    result = base.expmgr("new", "iris/mine", "--switch", "--set", "model.hidden_units=[7]")
    assert result.code == 0
    assert base.git("branch", "--show-current").strip() == "exp/iris/mine"
    assert "[7]" in base.read("experiments/iris/spec.yaml")
    assert base.git("status", "--porcelain") == ""


def test_switch_overwrites_nothing(base: Repo) -> None:
    assert base.expmgr("new", "iris/other", "--set", "model.hidden_units=[5]").code == 0
    path = base.write("experiments/iris/spec.yaml", "mine: not committed\n")
    result = base.expmgr("new", "iris/mine", "--from", "iris/other", "--switch")
    assert result.code == 1
    assert "was made, but its branch cannot be checked out" in result.stderr
    assert path.read_text() == "mine: not committed\n"


CODE = """
import keras
from pydantic import BaseModel

class Params(BaseModel):
    units: int = 3
    rate: float

def build_model(params):
    raise RuntimeError("new runs no code")
"""
SPEC = """
experiment: own
data: {kind: python, train: "data:train", eval: "data:train"}
model: {kind: python, build: "model:build_model", params: {rate: 0.5}, params_model: "model:Params"}
optimizer: {kind: adam, learning_rate: 0.1}
train: {max_steps: 5}
"""


@pytest.fixture
def own(iris: Repo) -> Repo:
    iris.write("experiments/own/spec.yaml", SPEC)
    iris.write("experiments/own/model.py", CODE)
    iris.write("experiments/own/data.py", "def train(): ...\n")
    iris.commit()
    return iris


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.build=model:build_modle", "did you mean model:build_model?"),
        ("model.build=modl:build_model", "did you mean model?"),
        ("data.eval=data:evaluation", "experiments/own/data.py has no evaluation"),
        ("model.params.unit=4", "did you mean model.params.units?"),
        ("model.params.units=four", "Params takes int, is 'four'"),
        ("model.params={}", "model.params.rate: is missing"),
        ("callbacks=[nothing:Here]", "the commit has no experiments/own/nothing.py"),
        ("metrics=['model:Accurate']", "experiments/own/model.py has no Accurate"),
        ("model.build=nonsense", "model.build: string should match pattern"),
        ("selection.metric=quality", "selection.mode must say max or min"),
    ],
)
def test_code_that_a_spec_names_is_looked_up_in_the_commit(own: Repo, setting: str, told: str) -> None:
    before = own.snapshot()
    result = own.expmgr("new", "own/base", "--set", setting)
    assert (result.code, told in result.stderr) == (1, True), result.stderr
    assert own.snapshot() == before


def test_code_of_a_package_is_not_looked_into(own: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to be installed; whether it has the name is seen when it is run, and nothing of it runs here."""
    package = tmp_path / "packages" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(9)\n")
    monkeypatch.syspath_prepend(str(package.parent))
    settings = ("callbacks=['theirs.inner:Stop', 'keras.callbacks:TerminateOnNaN']", "model.params.units=4")
    own.write("pyproject.toml", '[tool.expmgr]\ncode_packages = ["theirs", "their"]\n')
    before = own.snapshot()
    missing = own.expmgr("new", "own/base", "--set", settings[0].replace("theirs.inner", "their.inner"))
    assert (missing.code, missing.stdout) == (1, "")
    assert missing.stderr == (
        "Error: callbacks.0: their.inner:Stop: the commit has no experiments/own/their/inner.py\nNothing was changed.\n"
        "Hint: add the file with git, and commit\n"
    )
    assert own.snapshot() == before
    result = own.expmgr("new", "own/base", *(part for one in settings for part in ("--set", one)))
    assert (result.code, result.stderr.splitlines()[-1]) == (0, "Next: expmgr run own/base"), result.stderr
    assert not (tmp_path / "ran").exists()
    spec = read_spec(own.git("show", "exp/own/base:experiments/own/spec.yaml").encode(), "spec.yaml")
    assert [one.use for one in spec.callbacks] == ["theirs.inner:Stop", "keras.callbacks:TerminateOnNaN"]


def test_of_what_the_commit_has_the_name_is_looked_up_though_a_package_is_called_so(
    own: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("class Stop: ...\n")
    monkeypatch.syspath_prepend(str(package.parent))
    refused = own.expmgr("new", "own/base", "--set", "callbacks=['model:Stop']")
    assert (refused.code, refused.stderr.splitlines()[0]) == (
        1, "Error: callbacks.0: experiments/own/model.py has no Stop"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "package"),
    [
        ("data.train=os:getcwd", "os"),
        ("data.eval=os.path:abspath", "os"),
        ("data.test=subprocess:run", "subprocess"),
        ("model.build=builtins:exec", "builtins"),
        ("model.params_model=typer:Typer", "typer"),
        ("callbacks=['rich.console:Console']", "rich"),
        ("metrics=['importlib:import_module']", "importlib"),
        ("loss=expmgr.errors:ExpmgrError", "expmgr"),
        ("data.train=__main__:main", "__main__"),
        ("data.train=data:getcwd", "os"),
    ],
)
def test_code_from_elsewhere_is_refused(own: Repo, setting: str, package: str) -> None:
    own.write("experiments/own/data.py", "from os import getcwd\ndef train(): ...\n")
    own.commit()
    before = own.snapshot()
    result = own.expmgr("new", "own/base", "--set", setting)
    assert (result.code, result.stdout) == (1, "")
    story = f"is code of {package}, not of the repository, Keras, TensorFlow or NumPy\nNothing was changed.\nHint: name"
    assert story in result.stderr
    assert own.snapshot() == before


def test_the_checkout_allows_a_package_and_a_variant_does_not(own: Repo) -> None:
    setting = "callbacks=['rich.console:Console']"
    refused = own.expmgr("new", "own/base", "--set", setting)
    line = refused.stderr.partition("allow the package: ")[2].partition(" in [tool.expmgr]")[0]
    assert line == 'code_packages = ["rich"]'
    own.git("switch", "--quiet", "--create", "exp/own/theirs")
    own.write("pyproject.toml", f"[tool.expmgr]\n{line}\n")
    own.commit()
    own.git("switch", "--quiet", "main")
    assert own.expmgr("new", "own/base", "--from", "own/theirs", "--set", setting).stderr == refused.stderr
    own.write("pyproject.toml", f"[tool.expmgr]\n{line}\n")
    done = own.expmgr("new", "own/base", "--set", setting)
    assert done.code == 0, done.stderr
    own.write("pyproject.toml", '[tool.expmgr]\ncode_packages = ["os"]\n')
    assert own.expmgr("new", "own/other", "--set", "data.train=os:getcwd").code == 1


def test_code_that_is_nested_too_deeply_ends_in_an_error(own: Repo) -> None:
    own.git("switch", "--quiet", "--create", "exp/own/theirs")
    own.write("experiments/own/model.py", f"{CODE}\nx = {'-' * 5000}1\n")
    own.commit()
    own.git("switch", "--quiet", "main")
    result = own.expmgr("new", "own/base", "--from", "own/theirs")
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: model.build: experiments/own/model.py: an expression is nested too deeply\nNothing was changed.\n"
    )


def test_values_that_the_base_has_already_are_named(base: Repo) -> None:
    units = "model.hidden_units=[10, 10]"
    same = base.expmgr("new", "iris/same", "--set", units, "--set", "train.max_steps=1000")
    told = "Note: nothing differs between iris/same and main: --set gave values that it has already\n"
    assert (same.code, same.stderr) == (0, f"{told}Next: expmgr run iris/same\n")
    for command in (["iris/plain"], ["iris/other", "--set", units, "--set", "train.max_steps=7"]):
        assert "nothing differs" not in base.expmgr("new", *command).stderr
