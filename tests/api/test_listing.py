"""Repositories that nobody has trained in yet, from Python: what is listed, shown and refused, and what `dir` has."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable

import pytest

import expmgr
from expmgr.api import filters
from expmgr.launch.call import RunCall
from world import ROOT, Repo


@pytest.fixture
def three(iris: Repo) -> Repo:
    """Variants of two widths and two rates."""
    for name, *values in (
        ("baseline",),
        ("slow", "optimizer.learning_rate=0.001"),
        ("wide", "model.hidden_units=[20, 20]"),
    ):
        sets = [word for value in values for word in ("--set", value)]
        done = iris.expmgr("new", f"iris/{name}", *sets, "-m", f"why {name}")
        assert done.code == 0, done.stderr
    return iris


def test_a_list_is_what_the_command_lists(three: Repo) -> None:
    repository = expmgr.open(three.path)
    found = repository.list()
    assert found.as_dict() == json.loads(three.expmgr("list", "--json").stdout)
    assert [one.variant for one in found] == ["iris/baseline", "iris/slow", "iris/wide"] == repository.variants
    assert (len(found), found[1].why, found.left_out) == (3, "why slow", 0)
    assert repr(found[1]) == "<variant iris/slow: -, runs: none>"
    assert repr(repository) == f"<expmgr repository {three.path}: 3 variants, 0 runs>"
    assert repository.list().to_pandas()["from"].tolist() == [one.base for one in found]
    page = found._repr_html_()
    assert page.count("<tr>") == 4
    assert "why slow" in page


@pytest.mark.parametrize(
    ("asked", "typed"),
    [
        ({"where": "model.hidden_units=[20, 20]"}, ("--where", "model.hidden_units=[20, 20]")),
        ({"where": ["variant~iris", "why!=why wide"]}, ("--where", "variant~iris", "--where", "why!=why wide")),
        ({"sort": "-variant", "limit": 2}, ("--sort", "-variant", "--limit", "2")),
        ({"experiment": "iris", "limit": 1}, ("iris", "--limit", "1")),
    ],
)
def test_conditions_mean_the_same_in_both(three: Repo, asked: dict[str, object], typed: tuple[str, ...]) -> None:
    found = expmgr.open(three.path).list(**asked)  # type: ignore[arg-type]
    assert found.as_dict() == json.loads(three.expmgr("list", *typed, "--json").stdout)
    assert 0 < len(found) < 3
    assert found.left_out == 3 - len(found)


def test_what_makes_no_sense_is_refused(three: Repo) -> None:
    repository = expmgr.open(three.path)
    with pytest.raises(expmgr.BadArgument, match="a condition is KEY=VALUE"):
        repository.list(where="hidden_units")
    with pytest.raises(expmgr.BadArgument, match="1 or more, not 0"):
        repository.list(limit=0)
    with pytest.raises(filters.NoSuchKey, match=r"no key model\.hidden_unit ") as caught:
        repository.list(sort="model.hidden_unit")
    assert caught.value.hint == "did you mean model.hidden_units?"
    with pytest.raises(expmgr.ExpmgrError, match="no variant of an experiment houses"):
        repository.list("houses")
    with pytest.raises(expmgr.ExpmgrError, match="neither a variant nor a run iris/other"):
        repository.show("iris/other")
    with pytest.raises(expmgr.BadArgument, match="two variants or more"):
        repository.diff("iris/wide")
    for seeds in ("0-2", 3, [0.5], [-1], []):
        with pytest.raises(expmgr.BadArgument, match="seeds are numbers"):
            repository.check("iris/wide", seeds=seeds)  # type: ignore[arg-type]
    with pytest.raises(expmgr.BadArgument, match="no rule 'optimiser'"):
        repository.evaluate("iris/wide", allow=["optimiser"])
    with pytest.raises(expmgr.BadArgument, match="no test split"):
        repository.evaluate("iris/wide", split="test")
    with pytest.raises(expmgr.BadArgument, match="map, only, with-optimizer and grow need a checkpoint"):
        repository.run("iris/wide", only=["hidden*"])
    with pytest.raises(expmgr.BadArgument, match="compare takes the names of variants"):
        repository.compare()
    with pytest.raises(expmgr.BadArgument, match=r"a Keras file ends in \.keras"):
        repository.export("iris/wide", three.path / "served", format="keras")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda of: of.run(), "a run takes one variant or more"),
        (lambda of: of.run("iris/wide", jobs=0), "jobs is a whole number, 1 or more, not 0"),
        (lambda of: of.run("iris/wide", jobs=1.5), "jobs is a whole number, 1 or more, not 1.5"),
        (lambda of: of.run("iris/wide", jobs=None), "jobs is a whole number, 1 or more, not None"),
        (lambda of: of.run("iris/wide", max_steps=0), "max-steps is a whole number, 1 or more, not 0"),
        (lambda of: of.run("iris/wide", max_steps=-1), "max-steps is a whole number, 1 or more, not -1"),
        (lambda of: of.run("iris/wide", max_steps=True), "max-steps is a whole number, 1 or more, not True"),
        (lambda of: of.run("iris/wide", from_step=-1), "from-step is a whole number, 0 or more, not -1"),
        (
            lambda of: of.run("iris/wide", warm_start_from="iris/slow", map={"a/*": "b"}),
            "map takes OLD=NEW, or OLD/*=NEW/*, not 'a/*=b'",
        ),
        (
            lambda of: of.run("iris/wide", warm_start_from="iris/slow", map={"a": ""}),
            "map takes OLD=NEW, or OLD/*=NEW/*, not 'a='",
        ),
        (lambda of: of.evaluate("iris/wide", seed=-1), "seed is a whole number, 0 or more, not -1"),
        (lambda of: of.evaluate("iris/wide", split="foo"), "split is train, eval or test, not 'foo'"),
        (lambda of: of.evaluate("iris/wide", split=None), "split is train, eval or test, not None"),
        (lambda of: of.predict("iris/wide", "x.csv", "y.csv", seed="0"), "seed is a whole number, 0 or more, not '0'"),
        (lambda of: of.export("iris/wide", seed=-1), "seed is a whole number, 0 or more, not -1"),
        (lambda of: of.export("iris/wide", format="h5"), "format is savedmodel or keras, not 'h5'"),
        (lambda of: of.list(limit="x"), "limit is a whole number, 1 or more, not 'x'"),
    ],
)
def test_a_value_that_the_command_would_not_take_is_refused_before_anything_is_done(
    three: Repo, monkeypatch: pytest.MonkeyPatch, call: Callable[[expmgr.Repository], object], told: str
) -> None:
    def fetch(*_: object, **__: object) -> bool:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("expmgr.launch.inference.from_store", fetch)
    monkeypatch.setattr("expmgr.launch.call.from_store", fetch)
    before = three.snapshot()
    with pytest.raises(expmgr.BadArgument) as caught:
        call(expmgr.open(three.path))
    assert caught.value.message == told
    assert three.snapshot() == before


def test_nothing_is_fetched_for_a_split_or_a_file_that_cannot_be(three: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> bool:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("expmgr.launch.inference.from_store", fetch)
    repository = expmgr.open(three.path)
    with pytest.raises(expmgr.BadArgument, match="no test split"):
        repository.evaluate("iris/wide", split="test")
    with pytest.raises(expmgr.BadArgument, match=r"a Keras file ends in \.keras"):
        repository.export("iris/wide", three.path / "served", format="keras")
    three.write("served", "mine")
    with pytest.raises(expmgr.ExpmgrError, match="is there already"):
        repository.export("iris/wide", three.path / "served")


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy

    found = RunCall(("iris/wide",), max_steps=numpy.int64(5), jobs=numpy.int32(2))  # type: ignore[arg-type]
    assert [(type(one), one) for one in (found.max_steps, found.jobs)] == [(int, 5), (int, 2)]


def test_the_command_says_how_it_is_used_where_an_argument_makes_no_sense(three: Repo) -> None:
    for typed, told in (
        (("run", "iris/wide", "--jobs", "0"), "--jobs"),
        (("run", "iris/wide", "--max-steps", "0"), "--max-steps"),
        (("run", "iris/wide", "--from-step=-1"), "--from-step"),
        (("run", "iris/wide", "--commit", "a", "--fresh", "--from-step", "0"), "a run either starts over (fresh)"),
        (("run", "iris/wide", "iris/slow", "--commit", "a"), "a commit before the run takes one variant"),
        (("run", "iris/wide", "--warm-start-from", "iris/slow", "--map", "a"), "--map takes OLD=NEW, not 'a'"),
        (("evaluate", "iris/wide", "--split", "foo"), "--split"),
        (("export", "iris/wide", "--format", "h5"), "--format"),
        (("list", "--limit", "0"), "--limit"),
        (("list", "--where", "hidden_units"), "a condition is KEY=VALUE"),
        (("diff", "iris/wide"), "two variants or more"),
        (("evaluate", "iris/wide", "--split", "test"), "iris/wide has no test split"),
        (("run", "iris/wide", "--grow"), "need a checkpoint to warm-start from"),
        (("run", "iris/wide", "--scratch", "--detach"), "a scratch run starts at step 0"),
        (("run", "iris/wide", "--warm-start-from", "iris/slow:x"), "names no checkpoint: VARIANT[:SEED][@STEP]"),
        (("run", "iris/wide", "--warm-start-from", "iris/slow", "--map", "a/*=b"), "map takes OLD=NEW, or OLD/*=NEW/*"),
    ):
        done = three.expmgr(*typed)
        assert (done.code, done.stdout) == (2, ""), typed
        assert "Usage: expmgr" in done.stderr
        assert told in " ".join(done.stderr.split()), typed


def test_a_variant_is_shown_with_what_was_noted_of_it_since(three: Repo) -> None:
    repository = expmgr.open(three.path)
    found = repository.show("wide")
    assert found.as_dict() == json.loads(three.expmgr("show", "iris/wide", "--json").stdout)
    assert repr(found) == "<variant iris/wide: -, runs: none>"
    assert found.notes == []  # type: ignore[union-attr]
    assert three.expmgr("note", "iris/wide", "-m", "looks\ngood").code == 0
    (note,) = repository.show("iris/wide").notes
    assert (note.by, note.text) == ("Ann", "looks good")
    assert f"Ann: looks good ({note.id[:12]})" in three.expmgr("show", "iris/wide").stdout


def test_dir_has_every_public_name() -> None:
    """Also those that `from expmgr import *` leaves out, and what the stub for type checkers has."""
    stub = ast.parse((ROOT / "expmgr" / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {name.asname for one in stub.body if isinstance(one, ast.ImportFrom) for name in one.names}
    public = {name for name in dir(expmgr) if not name.startswith("_")}
    assert public == typed == {*expmgr.__all__, "open"} - {"__version__"}
    assert "open" not in expmgr.__all__
    assert "__version__" in dir(expmgr)
    for name in public - {"save", "restore"}:  # these two import TensorFlow
        assert getattr(expmgr, name).__doc__, name
    methods = {name for name in dir(expmgr.Repository) if not name.startswith("_")}
    assert {"list", "show", "check", "diff", "evaluate", "predict", "export", "reviews", "review"} <= methods
    for name in methods:
        assert getattr(expmgr.Repository, name).__doc__, name


def test_the_reference_has_every_method_with_its_arguments() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name, method in inspect.getmembers(expmgr.Repository, inspect.isfunction):
        if not name.startswith("_"):
            signature = inspect.signature(method)
            plain = [one.replace(annotation=inspect.Parameter.empty) for one in [*signature.parameters.values()][1:]]
            shown = str(inspect.Signature(plain)).replace("'", '"')
            assert f"| `{name}{shown}` |" in page, f"{name}{shown}"
    for name in set(dir(expmgr)) - {one for one in dir(expmgr) if one.startswith("_")}:
        assert f"`{name}" in page or f"expmgr.{name}" in page, name


def test_dir_imports_nothing() -> None:
    code = "import sys, expmgr; before = set(sys.modules); dir(expmgr); print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
