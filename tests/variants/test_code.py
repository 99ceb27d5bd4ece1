"""Which code a variant reaches, by static imports, without running any of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clones import ok, ran
from expmgr.git.repo import GitRepo
from expmgr.paths import VariantName
from expmgr.variants.code_digest import code_digest, counted_files, reached
from world import Repo, new_repo

FOLDER = "experiments/iris"
FILES = {
    f"{FOLDER}/spec.yaml": "",
    f"{FOLDER}/model.py": "import helper\nfrom shared.layers import Wide\nimport numpy\nfrom lib import deep\n",
    f"{FOLDER}/helper.py": "def f():\n    import late\n",
    f"{FOLDER}/broken.py": "def f(:\n",
    "shared/__init__.py": "",
    "shared/layers.py": "from .inner import X\nfrom . import sibling\nfrom .. import above\n",
    "shared/inner/__init__.py": "from shared import layers\n",
    "shared/sibling.py": "",
    "shared/unused.py": "",
    "src/lib/__init__.py": "",
    "src/lib/deep.py": "from lib.deeper import *\n",
    "src/lib/deeper.py": "",
    "late.py": "",
    "helper.py": "a file of the root that the experiment's own one hides\n",
    "numpy_like.py": "",
}


def test_imports_are_followed_and_nothing_else() -> None:
    found = reached(FILES, VariantName("iris", "any"), lambda path: FILES[path].encode())
    assert set(FILES) - set(found) == {"shared/unused.py", "helper.py", "numpy_like.py"}


PYTHON = """
experiment: iris
data: {kind: python, train: "lib.data:rows", eval: "lib.data:rows", batch_size: 4}
model: {kind: python, build: "lib.model:build"}
optimizer: {kind: adam, learning_rate: 0.1}
loss: mean_squared_error
train: {max_steps: 2}
"""
PREMADE = """
experiment: iris
data: {kind: csv, train: a.csv, eval: a.csv, label: kind, batch_size: 4, labels: [a, b]}
model: {kind: dnn_classifier, hidden_units: [2]}
callbacks: ["lib.model:Own"]
optimizer: {kind: adam, learning_rate: 0.1}
train: {max_steps: 2}
"""


@pytest.mark.parametrize("spec", [PYTHON, PREMADE])
def test_modules_that_the_spec_names_are_code_wherever_they_lie(repo: Repo, spec: str) -> None:
    repo.write(f"{FOLDER}/spec.yaml", spec)
    repo.write("lib/__init__.py", "")
    repo.write("lib/model.py", "import deeper\n")
    repo.write("deeper.py", "")
    repo.commit("code outside of the folder")
    found = {digest(repo)}
    for path in ("lib/model.py", "deeper.py", "lib/__init__.py"):
        repo.write(path, repo.read(path) + "# changed\n")
        repo.commit("changed")
        found.add(digest(repo))
    assert len(found) == 4
    repo.write("unrelated.py", "")
    repo.commit("none of it")
    assert digest(repo) in found


@pytest.fixture
def committed(repo: Repo) -> Repo:
    for path, text in FILES.items():
        repo.write(path, text)
    repo.write(f"{FOLDER}/README.md", "prose")
    repo.commit("code")
    return repo


def digest(repo: Repo) -> str:
    found = GitRepo.discover(repo.path)
    return code_digest(found, found.head(), VariantName("iris", "any"))


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        (f"{FOLDER}/model.py", True), ("shared/sibling.py", True), ("src/lib/deeper.py", True), ("late.py", True),
        ("shared/unused.py", False), (f"{FOLDER}/README.md", False), (f"{FOLDER}/spec.yaml", False),
        (f"{FOLDER}/more.csv", True),
        # What a review froze is prose; a package of that name is code.
        (f"{FOLDER}/reviews/0123456789ab.json", False), (f"{FOLDER}/reviews/0123456789ab.md", False),
        (f"{FOLDER}/reviews/stars.json", True), (f"{FOLDER}/reviews/__init__.py", True),
    ],
)  # fmt: skip
def test_what_moves_the_digest(committed: Repo, path: str, counts: bool) -> None:
    before = digest(committed)
    committed.write(path, FILES.get(path, "") + "\n# changed\n")
    committed.commit("changed")
    assert (digest(committed) != before) is counts


def test_a_script_is_code_wherever_it_lies(repo: Repo) -> None:
    repo.write(
        f"{FOLDER}/spec.yaml",
        "experiment: iris\nmodel: {kind: script, script: ../../lib/train.py}\ntrain: {max_steps: 2}\n",
    )
    repo.write("lib/train.py", "import deeper\n")
    repo.write("deeper.py", "")
    repo.write("other.py", "")
    name, git = VariantName("iris", "any"), GitRepo.discover(repo.path)
    first = code_digest(git, repo.commit(), name)
    for path, counts in (("other.py", False), ("deeper.py", True), ("lib/train.py", True)):
        repo.write(path, "import deeper\nchanged = 1\n")
        digest = code_digest(git, repo.commit(), name)
        assert (digest != first) == counts, path
        first = digest


def test_a_submodule_that_moved_is_other_code(committed: Repo, tmp_path: Path) -> None:
    library = new_repo(tmp_path / "library")
    library.write("layers.py", "x = 1\n")
    library.commit()
    committed.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "libs/layers")
    committed.commit("a submodule")
    before = digest(committed)
    library.write("layers.py", "x = 2\n")
    moved = library.commit()
    committed.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--remote")
    assert committed.git("rev-parse", ":libs/layers").strip() != moved
    committed.commit("moved")
    assert committed.git("rev-parse", "HEAD:libs/layers").strip() == moved
    assert digest(committed) != before


def test_a_module_too_large_to_read_costs_no_other_variant_its_place(repo: Repo) -> None:
    repo.write(f"{FOLDER}/spec.yaml", PYTHON)
    repo.write("lib/__init__.py", "")
    repo.write("lib/model.py", "def build(): ...\n")
    repo.write("lib/data.py", "def rows(): ...\n")
    repo.write("far.py", "")
    repo.commit()
    for name, steps in (("wide", 3), ("deep", 4)):
        ok(repo, "new", f"iris/{name}", "--set", f"train.max_steps={steps}")
        ran(repo, f"iris/{name}", 0.9)
    repo.git("switch", "--quiet", "exp/iris/wide")
    repo.write("lib/model.py", "import os\n" + "#" * 9_000_000)
    large = repo.commit()
    for command in (
        ["list"], ["list", "--sort", "loss"], ["show", "iris/wide"], ["show", "iris/deep"],
        ["diff", "iris/wide", "iris/deep"], ["status"],
    ):  # fmt: skip
        assert "iris/" in ok(repo, *command) or command == ["status"], command
    done = repo.expmgr("compare", "iris/wide", "iris/deep")
    assert "bytes" not in done.stderr, done.stderr
    assert "iris/deep" in done.stdout
    # What it imports is not looked up: every module may be code of the variant.
    found = GitRepo.discover(repo.path)
    files = counted_files(found, large, VariantName("iris", "wide"))
    assert {"lib/model.py", "lib/data.py", "far.py"} <= set(files)
    repo.write("far.py", "x = 1\n")
    assert code_digest(found, repo.commit(), VariantName("iris", "wide")) != code_digest(
        found, large, VariantName("iris", "wide")
    )
