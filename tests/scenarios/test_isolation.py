"""People's own code runs from the run's checkout, never from the user's, and sees what it may see."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from world import Repo

pytestmark = pytest.mark.tf

SPEC = """
experiment: own
data: {kind: python, train: "data:rows", eval: "data:rows", batch_size: 4}
model: {kind: python, build: "model:build_model"}
optimizer: {kind: sgd, learning_rate: 0.1}
loss: mean_squared_error
train: {max_steps: 2}
run_config: {checkpoint_save_graph_def: false}
"""
DATA = """
import os
import numpy as np

def rows():
    print("secret", os.environ.get("MY_SECRET"), "token", os.environ.get("MY_TOKEN"))
    return np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
"""
MODEL = """
import keras
from widths import WIDTH

def build_model(params):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(WIDTH), keras.layers.Dense(1)])
"""


@pytest.fixture
def own(repo: Repo) -> Repo:
    """An experiment whose model takes its width from a package of the repository."""
    repo.write("experiments/own/spec.yaml", SPEC)
    repo.write("experiments/own/data.py", DATA)
    repo.write("experiments/own/model.py", MODEL)
    repo.write("src/widths/__init__.py", "WIDTH = 2\n")
    repo.commit()
    assert repo.expmgr("new", "own/base").code == 0
    return repo


def parameters(repo: Repo, variant: str) -> int:
    return int(json.loads(repo.expmgr("show", f"{variant}:0", "--json").stdout)["parameters"])


def test_two_variants_with_other_code_of_one_module_run_side_by_side(own: Repo) -> None:
    assert own.expmgr("new", "own/wide", "--switch").code == 0
    own.write("src/widths/__init__.py", "WIDTH = 5\n")
    own.commit("wider")
    own.git("switch", "--quiet", "-")
    result = own.expmgr_process("run", "own/base", "own/wide", "--jobs", "2")
    assert result.code == 0, result.stderr
    assert (parameters(own, "own/base"), parameters(own, "own/wide")) == (11, 26)
    told = own.expmgr("compare", "own/base", "own/wide").stdout
    assert "Besides the spec differ code (src/widths/__init__.py): expmgr diff own/base own/wide\n" in told


@pytest.mark.wide
def test_a_package_that_is_installed_from_the_user_s_checkout_comes_from_the_run_s(own: Repo) -> None:
    own.write("src/widths/__init__.py", "WIDTH = 7  # not committed\n")
    result = own.expmgr_process("run", "own/base", env={"PYTHONPATH": str(own.path / "src")})  # as an editable install
    assert result.code == 0, result.stderr
    assert parameters(own, "own/base") == 11


@pytest.mark.wide
def test_a_copy_that_is_installed_does_not_stand_in_for_a_package_of_the_repository(own: Repo, tmp_path: Path) -> None:
    own.git("rm", "--quiet", "-r", "src")
    own.write("libs/widths/pyproject.toml", '[project]\nname = "widths"\n')
    own.write("libs/widths/src/widths/__init__.py", "WIDTH = 2\n")
    own.commit("moved")
    own.git("branch", "--force", "exp/own/base")
    copy = tmp_path / "site" / "widths"
    copy.mkdir(parents=True)
    (copy / "__init__.py").write_text("WIDTH = 9\n")
    result = own.expmgr_process("run", "own/base", env={"PYTHONPATH": str(copy.parent)})
    assert result.code == 0, result.stderr
    assert parameters(own, "own/base") == 11


@pytest.mark.parametrize("place", ["libs/widths/src", pytest.param("libs/widths", marks=pytest.mark.slow)])
def test_a_package_of_a_project_inside_of_the_repository_counts_as_code_and_comes_from_the_run_s(
    own: Repo, place: str
) -> None:
    own.git("rm", "--quiet", "-r", "src")
    own.write("libs/widths/pyproject.toml", '[project]\nname = "widths"\n')
    own.write(f"{place}/widths/__init__.py", "WIDTH = 2\n")
    own.commit("moved")
    own.git("branch", "--force", "exp/own/base")
    own.write(f"{place}/widths/__init__.py", "WIDTH = 7  # not committed\n")
    result = own.expmgr_process("run", "own/base", env={"PYTHONPATH": str(own.path / place)})  # as an editable install
    assert result.code == 0, result.stderr
    assert parameters(own, "own/base") == 11
    own.commit("wider")
    own.git("branch", "--force", "exp/own/base")
    told = own.expmgr("compare", "own/base", "own/base").stderr
    assert "expmgr run own/base" in told  # what was trained is of another code


@pytest.mark.wide
@pytest.mark.parametrize("place", ["in the function", pytest.param("at the top", marks=pytest.mark.slow)])
def test_a_module_that_comes_from_the_user_s_checkout_all_the_same_stops_the_run(own: Repo, place: str) -> None:
    if place == "in the function":
        line = "from widths import WIDTH\n"
        text = MODEL.replace(line, "").replace("    return", f"    {line}    return")
        own.write("experiments/own/model.py", text)
    own.git("mv", "src", "lib")  # where the run does not look
    own.commit("moved")
    own.git("branch", "--force", "exp/own/base")
    before = own.digest(".git/refs")
    result = own.expmgr_process("run", "own/base", env={"PYTHONPATH": str(own.path / "lib")})
    assert result.code == 1
    path = Path(own.path, "lib/widths/__init__.py")
    assert (
        f"experiments/own/spec.yaml:4: model.build: module widths was imported from your checkout, {path}, not from the run's own"
        in result.stderr
    )
    assert not (own.path / "models").exists()
    assert own.digest(".git/refs").keys() >= before.keys()


@pytest.mark.wide
@pytest.mark.parametrize("names", [["MY_TOK*"], pytest.param(None, marks=pytest.mark.slow)])
def test_the_code_sees_the_environment_that_the_user_names(own: Repo, names: list[str] | None) -> None:
    if names is not None:
        own.write(".git/expmgr/config.toml", f"pass_environment = {json.dumps(names)}\n")
    result = own.expmgr_process("run", "own/base", env={"MY_SECRET": "s", "MY_TOKEN": "t"})
    assert result.code == 0, result.stderr
    log = own.expmgr("logs", "own/base:0").stdout
    assert f"secret {'s' if names is None else None} token t" in log
    runs = own.path / ".git" / "expmgr" / "runs"
    kept = [path for path in runs.rglob("*") if path.is_file() and path.name != "log.txt"]
    assert not any(b"MY_SECRET" in path.read_bytes() for path in kept)


@pytest.mark.slow
def test_another_backend_is_told_of_and_legacy_keras_refused(own: Repo) -> None:
    result = own.expmgr_process("run", "own/base", env={"KERAS_BACKEND": "jax"})
    assert result.code == 0, result.stderr
    assert "Note: KERAS_BACKEND is jax; models are built and trained with the backend tensorflow" in result.stderr
    result = own.expmgr_process("run", "own/base", "--max-steps", "3", env={"TF_USE_LEGACY_KERAS": "1"})
    assert result.code == 1
    assert "TF_USE_LEGACY_KERAS is set" in result.stderr
    assert os.environ.get("TF_USE_LEGACY_KERAS") is None


@pytest.mark.slow
def test_of_two_projects_the_one_that_the_environment_names_is_taken_and_none_hides_python(own: Repo) -> None:
    """Two projects have a module `widths`, and one has a `wave` besides, as Python has."""
    own.git("rm", "-rq", "src")
    for project, width in (("services/api", 99), ("services/models", 3)):
        own.write(f"{project}/pyproject.toml", '[project]\nname = "x"\n')
        own.write(f"{project}/widths.py", f"WIDTH = {width}\n")
    own.write("services/api/wave.py", "raise SystemError('not Python's')\n")
    own.write("experiments/own/model.py", f"import wave\n{MODEL}")
    own.commit("services")
    own.git("branch", "--force", "exp/own/base")
    result = own.expmgr_process("run", "own/base", env={"PYTHONPATH": str(own.path / "services/models")})
    assert result.code == 0, result.stderr
    assert parameters(own, "own/base") == 3 * 3 + 3 + 3 + 1


@pytest.mark.slow
def test_other_files_of_the_same_name_are_no_code_of_the_variant(own: Repo) -> None:
    own.write("model.py", "")  # the experiment's own one hides it
    own.write("experiments/other/pyproject.toml", '[project]\nname = "y"\n')
    own.write("experiments/other/model.py", "")
    own.commit("others")
    own.git("branch", "--force", "exp/own/base")
    assert own.expmgr("run", "own/base").code == 0
    own.git("switch", "--quiet", "exp/own/base")
    own.write("model.py", "changed = True\n")  # not committed
    own.write("experiments/other/model.py", "changed = True\n")
    assert "nothing to do" in own.expmgr("run", "own/base").stderr
    own.commit("others changed")
    assert "nothing to do" in own.expmgr("run", "own/base").stderr
