"""`init`: examples, and the first spec for data of one's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from clones import refuses
from world import ROOT, Repo

IRIS = ["README.md", "iris_test.csv", "iris_training.csv", "spec.yaml"]


def test_the_example_is_the_one_of_this_repository(repo: Repo) -> None:
    result = repo.expmgr("init", "--example", "iris")
    assert result.code == 0
    assert result.stdout == "".join(f"experiments/iris/{name}\n" for name in IRIS)
    assert result.stderr == (
        'Next: git add experiments/iris && git commit -m "Add experiment iris"\nThen: expmgr new iris/baseline\n'
    )
    for name in IRIS:
        assert repo.read(f"experiments/iris/{name}") == (ROOT / "experiments/iris" / name).read_text()
    assert repo.git("status", "--porcelain") == "?? experiments/\n"


def test_commit_takes_the_example_and_nothing_else(repo: Repo) -> None:
    repo.write("staged.txt", "mine")
    repo.git("add", "staged.txt")
    repo.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n").chmod(0o755)
    result = repo.expmgr("init", "--example", "iris", "--commit")
    commit = repo.git("rev-parse", "HEAD").strip()
    assert result.code == 0
    assert result.stderr == f"committed as {commit[:12]}\nNext: expmgr new iris/baseline\n"
    assert repo.git("show", "--name-only", "--format=%s").split("\n") == [
        "Add experiment iris", "", *(f"experiments/iris/{name}" for name in IRIS), "",
    ]  # fmt: skip
    assert repo.git("status", "--porcelain") == "A  staged.txt\n"


def test_commit_is_the_first_commit_where_there_is_none(empty: Repo) -> None:
    assert empty.expmgr("init", "--example", "iris", "--commit").code == 0
    assert empty.git("rev-list", "--count", "HEAD").strip() == "1"
    assert empty.expmgr("new", "iris/baseline").code == 0


def test_models_are_ignored_once_and_in_this_clone_alone(repo: Repo) -> None:
    for _ in range(2):
        assert repo.expmgr("init").code == 0
    repo.write("models/x", "")
    assert repo.git("status", "--porcelain") == ""
    assert repo.read(".git/info/exclude").count("/models/") == 1
    assert not (repo.path / ".gitignore").exists()


def test_models_elsewhere_need_no_ignoring(repo: Repo, tmp_path: Path) -> None:
    repo.write("pyproject.toml", f'[tool.expmgr]\nmodels_dir = "{tmp_path}/shared"\n')
    assert repo.expmgr("init").code == 0
    assert "models" not in repo.read(".git/info/exclude")


REFUSALS = {
    ("--example", "irish"): "there is no example irish\nNothing was changed.\nHint: did you mean iris?\n",
    ("--experiment", "A B"): "'A B' cannot be the name of an experiment\nNothing was changed.\n"
    "Hint: a name has letters a-z, digits, '.', '_' and '-', the first a letter or digit, at most 64, no '..', "
    "no '.' and no '.lock' at the end\n",
    ("--experiment", "mine", "--csv", "none.csv", "--label", "kind"): "none.csv cannot be read: "
    "No such file or directory\nNothing was changed.\n",
    ("--experiment", "mine", "--csv", "my.csv", "--label", "king"): "my.csv has no column king\nNothing was changed.\n"
    "Hint: did you mean kind?\n",
    ("--experiment", "mine", "--csv", "gap.csv", "--label", "kind"): "gap.csv:3: column weight_g has no value\n"
    "Nothing was changed.\nHint: fill it in, or leave the row out\n",
    ("--experiment", "mine", "--csv", "empty.csv", "--label", "kind"): "empty.csv is empty\nNothing was changed.\n"
    "Hint: the first line names the columns, every further line is a row\n",
}


@pytest.fixture
def data(repo: Repo) -> Repo:
    rows = [
        (f"{number * 1.5}", ("red", "green")[number % 2], ("cat", "dog", "cow")[number % 3]) for number in range(60)
    ]
    lines = ["weight_g,colour,kind", *(",".join(row) for row in rows)]
    repo.write("my.csv", "\n".join(lines) + "\n")
    repo.write("gap.csv", "weight_g,colour,kind\n1,red,cat\n,red,dog\n")
    repo.write("empty.csv", "")
    repo.commit("data")
    return repo


@pytest.mark.parametrize("options", REFUSALS)
def test_a_refusal_changes_nothing(data: Repo, options: tuple[str, ...]) -> None:
    before = data.snapshot()
    result = data.expmgr("init", *options)
    assert result.stderr == f"Error: {REFUSALS[options]}"
    assert (result.code, result.stdout) == (1, "")
    assert data.snapshot() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--example", "iris", "--experiment", "x"), "--example and --experiment cannot be given together"),
        (("--csv", "my.csv"), "--csv FILE, --label COLUMN and --experiment NAME go together"),
        (("--experiment", "x", "--csv", "my.csv"), "--csv FILE, --label COLUMN and --experiment NAME go together"),
        (("--commit",), "--commit needs --example or --experiment: there is nothing to commit"),
    ],
)
def test_options_that_do_not_go_together(data: Repo, options: tuple[str, ...], words: str) -> None:
    before = data.snapshot()
    refuses(data, "init", *options, code=2, words=words)
    assert data.snapshot() == before


def test_an_experiment_that_is_there_is_left_alone(iris: Repo) -> None:
    before = iris.snapshot()
    result = iris.expmgr("init", "--example", "iris")
    assert result.stderr == (
        "Error: experiments/iris exists already\nNothing was changed.\nHint: expmgr new iris/baseline\n"
    )
    assert result.code == 1
    assert iris.snapshot() == before


def test_a_csv_of_ones_own(data: Repo) -> None:
    result = data.expmgr("init", "--experiment", "mine", "--csv", "my.csv", "--label", "kind", "--commit")
    assert result.code == 0, result.stderr
    assert data.read("experiments/mine/spec.yaml") == (
        "experiment: mine\n"
        'question: "How well can kind be predicted from the other columns?"\n'
        "data:\n  kind: csv\n  train: train.csv\n  eval: eval.csv\n  label: kind\n  labels: [cat, cow, dog]\n"
        "  features:\n    weight_g: numeric\n    colour: categorical\n"
        "  normalize: true          # numeric columns to mean 0 and variance 1, by the training split\n"
        "model: {kind: dnn_classifier, hidden_units: [32, 32]}\n"
        "optimizer: {kind: adam, learning_rate: 0.001}\n"
        "train: {max_steps: 1000}\n"
    )
    train, kept = (
        list(csv.DictReader(data.read(f"experiments/mine/{name}.csv").splitlines())) for name in ("train", "eval")
    )
    assert (len(train), len(kept)) == (48, 12)
    assert [sum(row["kind"] == kind for row in kept) for kind in ("cat", "cow", "dog")] == [4, 4, 4]
    assert data.expmgr("new", "mine/baseline").code == 0


@pytest.mark.wide
@pytest.mark.tf
def test_a_csv_of_ones_own_is_trained_as_the_settings_say(data: Repo, tmp_path: Path) -> None:
    data.write("expmgr.toml", f'models_dir = "{tmp_path}/elsewhere"\nrecord_user = false\n')
    data.write(".git/expmgr/config.toml", "record_host = false\n")
    data.commit("settings")
    assert data.expmgr("init", "--experiment", "mine", "--csv", "my.csv", "--label", "weight_g", "--commit").code == 0
    assert "dnn_regressor" in data.read("experiments/mine/spec.yaml")
    assert data.expmgr("new", "mine/baseline").code == 0
    result = data.expmgr("run", "mine/baseline", "--max-steps", "20")
    assert result.code == 0, result.stderr
    assert "mean_absolute_error" in result.stdout
    record = json.loads(data.expmgr("show", "mine/baseline:0", "--json").stdout)
    assert (record["user"], record["host"]) == (None, None)
    assert record["model_dir"] == f"{tmp_path}/elsewhere/mine/baseline/seed-0"
    assert (tmp_path / "elsewhere/mine/baseline/seed-0/model.ckpt-20.index").is_file()
    assert not (data.path / "models").exists()


SETTINGS = {
    "model_dir = 'x'": "unknown setting model_dir\nHint: did you mean models_dir?",
    "models_dir = 3": "models_dir: Input should be a valid string",
    "models_dir = [": "is not TOML",
    'models_dir = "a\\u0000b"': "models_dir: contains U+0000, which no file and no path can hold",
    'environments = {old = "\\u0000"}': "environments: contains U+0000, which no file and no path can hold",
    'pass_environment = ["A\\u0000"]': "pass_environment: contains U+0000, which no file and no path can hold",
    'code_packages = ["os"]': "code_packages: 'os' is of Python's standard library, of which a spec can name no code\n"
                             "Hint: delete it from code_packages, and name a function",
    'code_packages = ["os.path"]': "code_packages: 'os.path' is of Python's standard library",
    'code_packages = ["sk", "sklearn.ensemble"]': "code_packages: 'sklearn.ensemble' is not the name that a top-level package is "
                                                  'imported by\nHint: write "sklearn"\n',
    'code_packages = [""]': "code_packages: '' is not the name that a top-level package is imported by\nHint: write the name",
    'code_packages = ["scikit-learn"]': "code_packages: 'scikit-learn' is not the name that a top-level package is imported by",
}  # fmt: skip


@pytest.mark.parametrize("text", SETTINGS)
def test_settings_that_are_none(repo: Repo, text: str) -> None:
    repo.write("expmgr.toml", text)
    result = repo.expmgr("list")
    assert result.code == 1
    assert result.stderr.startswith(f"Error: {repo.path}/expmgr.toml")
    assert SETTINGS[text] in result.stderr


def test_a_home_folder_that_is_not_there(iris: Repo) -> None:
    told = "models_dir is '~nobodyx/b': this machine has no home folder '~nobodyx'"
    assert iris.expmgr("new", "iris/wide").code == 0
    iris.write("expmgr.toml", 'models_dir = "~nobodyx/b"\n')
    iris.commit("settings")
    for words in (["list"], ["checkpoints", "iris/wide"], ["run", "iris/wide"], ["check", "iris/wide"]):
        done = iris.expmgr(*words)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr == f"Error: {told}\nNothing was changed.\nHint: write the whole path, from / on\n"
    done = iris.expmgr("doctor")
    assert (done.code, told in done.stdout) == (1, True)
    iris.write("expmgr.toml", 'store = "~nobodyx/b"\n')
    done = iris.expmgr("doctor")
    assert (done.code, "store is '~nobodyx/b': this machine has no" in done.stdout) == (1, True)
    iris.write("expmgr.toml", "")
    iris.write(".git/expmgr/config.toml", 'environments = {old = "~nobodyx/b"}\n')
    assert iris.expmgr("new", "iris/old", "--set", "environment=old").code == 0
    done = iris.expmgr("run", "iris/old")
    assert (done.code, "environments.old is '~nobodyx/b': this machine has no" in done.stderr) == (1, True)


def test_a_template_says_what_to_fill_in(repo: Repo) -> None:
    assert repo.expmgr("init", "--experiment", "mine", "--commit").code == 0
    assert repo.expmgr("new", "mine/baseline").code == 0


def test_data_that_git_ignores_is_committed_all_the_same(repo: Repo) -> None:
    repo.write(".gitignore", "*.csv\n")
    repo.commit("no data")
    result = repo.expmgr("init", "--example", "iris")
    assert "Next: git add --force experiments/iris" in result.stderr
    repo.git("clean", "-xfdq", "experiments")
    result = repo.expmgr("init", "--example", "iris", "--commit")
    assert result.code == 0, result.stderr
    assert "Note: git ignores experiments/iris/iris_" in result.stderr
    listed = repo.git("ls-files", "experiments").split()
    assert sorted(listed) == sorted(path for path in result.stdout.split())


EXAMPLES = ("iris", "digits", "messages", "houses", "bars-vae")
ROWS = "a,b,y\n" + "".join(f"{number},{number % 7},{'u' if number % 2 else 'v'}\n" for number in range(40))


@pytest.mark.parametrize("has_commit", [True, False])
@pytest.mark.parametrize(
    "options", [*(["--example", one] for one in EXAMPLES), ["--experiment", "own", "--csv", "rows.csv", "--label", "y"]]
)
def test_hints_after_init_work_as_printed(empty: Repo, options: list[str], *, has_commit: bool) -> None:
    empty.write("rows.csv", ROWS)
    if has_commit:
        empty.commit()
    name = options[1]
    first = f"expmgr new {name}/baseline"
    commit = f'git add experiments/{name} && git commit -m "Add experiment {name}"'
    made = empty.expmgr("init", *options)
    assert made.stderr == f"Next: {commit}\nThen: {first}\n"
    for command in (["list"], ["new", f"{name}/x"]):
        shown = empty.expmgr(*command).stderr
        assert f"git add experiments/{name} && git commit" in shown, shown
        assert "init --example iris" not in shown
    empty.git("add", f"experiments/{name}")
    empty.git("commit", "--quiet", "-m", "Add experiment")
    assert empty.expmgr("list").stderr == f"No variant yet. Hint: {first}\n"
    assert empty.expmgr("show", "x").stderr.endswith(f"Hint: there is no variant yet: {first}\n")
    assert empty.expmgr(*first.split()[1:]).code == 0
    assert f"{name}/baseline" in empty.expmgr("list").stdout


def test_an_empty_repository_is_sent_to_an_example(empty: Repo) -> None:
    empty.expmgr("init")
    shown = empty.expmgr("list").stderr
    assert shown == "No variant yet. Hint: expmgr init --example iris --commit\n"
    assert empty.expmgr(*shown.partition("expmgr ")[2].split()).code == 0
