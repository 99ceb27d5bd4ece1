"""CSV data: what is read, and the whole message of everything that is wrong in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expmgr.data import csvdata
from expmgr.errors import DataProblem
from expmgr.spec.data import CsvData

GOOD = "width,colour,kind\n1,red,a\n2.5,blue,b\n-3e1,red,a\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    return tmp_path


def load(checkout: Path, train: str | bytes, evaluated: str | None = None, **spec: Any) -> csvdata.Dataset:
    folder = checkout / "experiments" / "mine"
    (folder / "train.csv").write_bytes(train if isinstance(train, bytes) else train.encode())
    (folder / "eval.csv").write_text(evaluated or GOOD, encoding="utf-8")
    values = {"kind": "csv", "train": "train.csv", "eval": "eval.csv", "label": "kind", **spec}
    is_classifier = values.pop("is_classifier", True)
    return csvdata.load(
        CsvData.model_validate(values), is_classifier=is_classifier, experiment_dir=folder, root=checkout
    )


def told(checkout: Path, *args: Any, **kwargs: Any) -> list[str]:
    with pytest.raises(DataProblem) as caught:
        load(checkout, *args, **kwargs)
    return caught.value.lines()


def test_kinds_vocabulary_and_labels_come_from_the_training_split(checkout: Path) -> None:
    data = load(checkout, GOOD, "width,colour,kind\n4,green,b\n")
    assert [(one.name, one.kind, one.vocabulary) for one in data.features] == [
        ("width", "numeric", None),
        ("colour", "categorical", ["blue", "red"]),
    ]
    assert data.labels == ["a", "b"]
    assert data.splits["train"].columns == {"width": [1.0, 2.5, -30.0], "colour": ["red", "blue", "red"]}
    assert data.splits["train"].targets == [0, 1, 0]
    assert data.splits["eval"].columns == {"width": [4.0], "colour": ["green"]}  # out of vocabulary is no error
    assert data.as_dict()["eval"]["rows"] == 1
    assert data.as_dict()["train"]["path"] == "experiments/mine/train.csv"


def test_a_byte_order_mark_blanks_quotes_and_blank_lines_are_no_part_of_the_data(checkout: Path) -> None:
    text = '\ufeffwidth , "colour",kind\r\n\r\n 1 ,"red, dark",a\r\n2, blue ,b\r\n\r\n'
    data = load(checkout, text.encode())
    assert data.splits["train"].columns == {"width": [1.0, 2.0], "colour": ["red, dark", "blue"]}


def test_the_spec_decides_columns_order_and_kinds(checkout: Path) -> None:
    features = {"colour": "categorical", "width": "categorical"}
    data = load(checkout, GOOD, features=features, labels=["b", "a"])
    assert [(one.name, one.kind) for one in data.features] == list(features.items())
    assert data.splits["train"].targets == [1, 0, 1]


def test_normalisation_is_by_mean_and_population_variance_of_the_training_split(checkout: Path) -> None:
    data = load(checkout, "x,y,kind\n1,7,a\n2,7,b\n3,7,a\n", "x,y,kind\n0,0,a\n", normalize=True)
    assert [one.scale for one in data.features] == [[2.0, 2 / 3], [7.0, 1.0]]


def test_a_regressor_predicts_numbers(checkout: Path) -> None:
    data = load(checkout, GOOD, label="width", is_classifier=False)
    assert data.labels is None
    assert data.splits["train"].targets == [1.0, 2.5, -30.0]


TRAIN = "experiments/mine/train.csv"
NAMES = "the first line names the columns, each with a name of its own"


@pytest.mark.parametrize(
    ("train", "message", "hint"),
    [
        ("", f"{TRAIN} is empty", "the first line names the columns, every further line is a row"),
        ("\n\n", f"{TRAIN} is empty", "the first line names the columns, every further line is a row"),
        ("width,kind\n", f"{TRAIN} has a header and no rows", None),
        ("width,width,kind\n1,2,a\n", f"{TRAIN}:1: column width stands twice", NAMES),
        ("width,,kind\n1,2,a\n", f"{TRAIN}:1: column 2 has no name", NAMES),
        ("1,2,a\n3,4,b\n", f"{TRAIN} has no column kind: its first line holds values, not names",
         "write the names of the columns on the first line"),
        ("width,Kind\n1,a\n", f"{TRAIN} has no column kind", "did you mean Kind?"),
        ("width,colour\n1,a\n", f"{TRAIN} has no column kind", "it has width, colour"),
        ("width,kind\n1,a\n\n2\n", f"{TRAIN}:4: 1 value where the header names 2 columns", None),
        ("width,kind\n1,a\n2,b,c\n", f"{TRAIN}:3: 3 values where the header names 2 columns", None),
        ("width,kind\n1,a\n,b\n", f"{TRAIN}:3: column width has no value", "fill it in, or leave the row out"),
        ('colour,kind\n"a\nb",a\n" ",b\n', f"{TRAIN}:4: column colour has no value",
         "fill it in, or leave the row out"),
        ("width,kind\n1,a\n2,a\n", f"{TRAIN}: column kind has one value only, 'a'", None),
        ("width,kind\n1,a\nnan,b\n", f"{TRAIN}:3: column width has 'nan', which is not a finite number", None),
        ("width,kind\n1,a\n-Inf,b\n", f"{TRAIN}:3: column width has '-Inf', which is not a finite number", None),
        ("width,kind\n1,a\n1e999,b\n", f"{TRAIN}:3: column width has '1e999', which is not a finite number", None),
        ("width,kind\n1,a\n1e39,b\n", f"{TRAIN}:3: column width has '1e39', which is too large for float32", None),
        (b"width,kind\n1,a\n2,\xff\n", f"{TRAIN}:3: byte 0xff is not UTF-8", "save the file as UTF-8"),
        ('width,kind\n1,a\n2,"b\n', f"{TRAIN}:3: not CSV: unexpected end of data", None),
        ("kind\na\nb\n", f"{TRAIN} has no column beside the label kind", None),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    checkout: Path, train: Any, message: str, hint: str | None
) -> None:
    lines = [f"Error: {message}", "Nothing was changed.", *([f"Hint: {hint}"] if hint else [])]
    assert told(checkout, train) == lines


def test_an_unknown_label(checkout: Path) -> None:
    assert told(checkout, GOOD, "width,colour,kind\n1,red,a\n1,red,setossa\n", labels=["a", "b", "setosa"]) == [
        "Error: experiments/mine/eval.csv:3: column kind has 'setossa', which is not among the labels",
        "Nothing was changed.",
        "Hint: did you mean setosa? The labels are a, b, setosa",
    ]


def test_words_in_a_numeric_column_of_eval(checkout: Path) -> None:
    assert told(checkout, GOOD, "width,colour,kind\nwide,red,a\n") == [
        "Error: experiments/mine/eval.csv:2: column width has 'wide', which is not a number",
        "Nothing was changed.",
        "Hint: if the column names categories, say so in the spec: data.features: {width: categorical, ...}",
    ]


def test_a_feature_that_a_file_does_not_have(checkout: Path) -> None:
    assert told(checkout, GOOD, features={"color": "categorical"}) == [
        "Error: experiments/mine/train.csv has no column color",
        "Nothing was changed.",
        "Hint: did you mean colour?",
    ]
    assert told(checkout, GOOD, "width,kind\n1,a\n") == [
        "Error: experiments/mine/eval.csv has no column colour",
        "Nothing was changed.",
        "Hint: it has width, kind",
    ]


@pytest.mark.parametrize("name", ["../../../secret.csv", "link.csv"])
def test_nothing_outside_the_checkout_is_read(checkout: Path, name: str) -> None:
    (checkout / "experiments" / "mine" / "link.csv").symlink_to(checkout.parent / "elsewhere.csv")
    assert told(checkout, GOOD, eval=name) == [
        f"Error: data.eval is {name}, which lies outside the repository",
        "Nothing was changed.",
        "Hint: a run reads what was committed: put the file into the experiment's folder and name it relative to that; "
        "data that is not in git has an absolute path, or ${data_root}/...",
    ]


def test_a_name_that_no_file_can_have(checkout: Path) -> None:
    assert told(checkout, GOOD, eval="a\0b.csv")[0] == "Error: data.eval is 'a\\x00b.csv': no file has such a name"


def test_a_file_that_is_not_there(checkout: Path) -> None:
    assert told(checkout, GOOD, eval="evil.csv") == [
        "Error: experiments/mine/evil.csv is not in the commit (data.eval)",
        "Nothing was changed.",
        "Hint: did you mean eval.csv?",
    ]
    assert told(checkout, GOOD, eval="../mine") == [
        "Error: experiments/mine cannot be read (data.eval): Is a directory",
        "Nothing was changed.",
    ]


def test_values_between_semicolons(checkout: Path) -> None:
    assert told(checkout, GOOD.replace(",", ";")) == [
        "Error: experiments/mine/train.csv has no column kind: its values are separated by semicolons",
        "Nothing was changed.",
        "Hint: save the file with commas between values",
    ]
