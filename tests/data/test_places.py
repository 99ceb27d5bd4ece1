"""Data that is not in git: found by the machine's own settings, and read only."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from expmgr.data import csvdata
from expmgr.data.locations import Places
from expmgr.errors import DataProblem, SpecProblem
from expmgr.spec.data import CsvData

GOOD = "width,kind\n1,a\n2,b\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "experiments" / "mine"
    folder.mkdir(parents=True)
    (folder / "eval.csv").write_text(GOOD)
    return tmp_path / "checkout"


def load(checkout: Path, train: str, places: Places) -> csvdata.Dataset:
    data = CsvData.model_validate({"kind": "csv", "train": train, "eval": "eval.csv", "label": "kind"})
    folder = checkout / "experiments" / "mine"
    return csvdata.load(data, is_classifier=True, experiment_dir=folder, root=checkout, places=places)


def told(checkout: Path, train: str, places: Places) -> list[str]:
    with pytest.raises(DataProblem) as caught:
        load(checkout, train, places)
    return caught.value.lines()


@pytest.mark.parametrize(
    "form", ["{folder}/train.csv", "~/train.csv", "${{data_root}}/train.csv", "file://{folder}/train.csv"]
)
def test_a_path_leads_out_of_the_repository(
    checkout: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "train.csv").write_text(GOOD)
    monkeypatch.setenv("HOME", str(folder))
    name = form.format(folder=folder)
    data = load(checkout, name, Places(data_root=str(folder)))
    split = data.splits["train"]
    assert (split.path, split.rows) == (name, 2)
    assert split.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()


def test_a_machine_without_a_data_root(checkout: Path) -> None:
    assert told(checkout, "${data_root}/train.csv", Places()) == [
        "Error: data.train is ${data_root}/train.csv, and this machine has no data_root",
        "Nothing was changed.",
        'Hint: say where data lies, in .git/expmgr/config.toml: data_root = "/data"',
    ]


def test_what_is_not_there(checkout: Path, tmp_path: Path) -> None:
    lines = told(checkout, "${data_root}/train.csv", Places(data_root=str(tmp_path / "no")))
    assert lines[0] == f"Error: data.train: {tmp_path}/no/train.csv cannot be read: No such file or directory"
    assert lines[-1] == f"Hint: data_root is {tmp_path}/no on this machine (.git/expmgr/config.toml)"
    assert told(checkout, "nonsense://x/y.csv", Places())[0].startswith(
        "Error: data.train: nonsense://x/y.csv cannot be read: "
    )


@pytest.mark.parametrize("layout", [".dvc/cache/files/md5", ".dvc/cache", "kept/files/md5"])
def test_a_file_that_dvc_keeps_is_taken_from_its_cache(checkout: Path, tmp_path: Path, layout: str) -> None:
    digest = hashlib.md5(GOOD.encode()).hexdigest()
    repository = tmp_path / "repository"
    kept = repository / layout / digest[:2] / digest[2:]
    kept.parent.mkdir(parents=True)
    kept.write_text(GOOD)
    (repository / ".dvc").mkdir(exist_ok=True)
    (repository / ".dvc" / "config").write_text("[cache]\n    dir = ../kept\n")
    pointer = checkout / "experiments" / "mine" / "train.csv.dvc"
    pointer.write_text(f"outs:\n- md5: {digest}\n  size: {len(GOOD)}\n  hash: md5\n  path: train.csv\n")
    assert load(checkout, "train.csv", Places(repository=repository)).splits["train"].rows == 2
    kept.write_text("width,kind\n9,a\n9,b\n")  # a cache that somebody wrote into is no witness
    assert told(checkout, "train.csv", Places(repository=repository)) == [
        f"Error: data.train: train.csv is kept by DVC, and its cache does not hold {digest}",
        "Nothing was changed.",
        "Hint: dvc pull",
    ]


def test_a_home_folder_that_is_not_there(checkout: Path) -> None:
    for name, places, what in (
        ("~nobodyx/a.csv", Places(), "data.train is '~nobodyx/a.csv'"),
        ("${data_root}/a.csv", Places(data_root="~nobodyx/b"), "data_root is '~nobodyx/b'"),
    ):
        with pytest.raises(SpecProblem) as caught:
            load(checkout, name, places)
        assert caught.value.lines() == [
            f"Error: {what}: this machine has no home folder '~nobodyx'",
            "Nothing was changed.",
            "Hint: write the whole path, from / on",
        ]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link"])
def test_what_is_no_file_is_not_read(checkout: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take all memory, or never end."""
    monkeypatch.chdir(checkout)  # a socket has a short name
    if kind == "pipe":
        os.mkfifo("odd")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("odd")
    elif kind == "link":
        os.symlink("/dev/null", "odd")
    path = "/dev/null" if kind == "device" else f"{checkout}/odd"
    why = "it is a device, a pipe or a socket, not a file"
    lines = [f"Error: data.train: {path} cannot be read: {why}", "Nothing was changed."]
    assert told(checkout, path, Places()) == lines
    if kind == "pipe":
        os.rename("odd", "experiments/mine/odd.csv")
        lines = [f"Error: experiments/mine/odd.csv cannot be read (data.train): {why}", "Nothing was changed."]
        assert told(checkout, "odd.csv", Places()) == lines
