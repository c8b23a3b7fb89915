"""Labels of the kinds with several of them: every way to write them, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny

from raydistill.config.data import DataConfig, TaskConfig
from raydistill.data.dataset import Split, TaskData, load_task_data
from raydistill.data.decoding import BadRow
from raydistill.data.labels import make_reader
from raydistill.errors import DataError

COUNT = 60
PARTS = {"validation_fraction": 0.2, "test_fraction": 0.2}
TAGS = [[], ["b"], ["a", "b"], None, ["c", "a"], ["a"]]  # by row number modulo 6


def texts(count: int = COUNT) -> list[str]:
    return [f"row {number}" for number in range(count)]


def load(tmp_path: Path, kind: str, **data: Any) -> TaskData:
    task = TaskConfig.model_validate({"kind": kind, "domain": "text", "data": {**PARTS, **data}})
    return load_task_data("it", task, tmp_path / "cache")


def from_json(tmp_path: Path, kind: str, columns: dict[str, list[Any]], **data: Any) -> TaskData:
    names = list(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    lines = [json.dumps({"text": text, **row}) for text, row in zip(texts(len(rows)), rows, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return load(tmp_path, kind, source="json", path=str(tmp_path / "rows.jsonl"), **data)


def from_csv(tmp_path: Path, kind: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]], **data: Any) -> TaskData:
    full = [(text, *row) for text, row in zip(texts(len(rows)), rows, strict=True)]
    tiny.write_csv(tmp_path / "rows.csv", ("text", *heads), full)
    return load(tmp_path, kind, source="csv", path=str(tmp_path / "rows.csv"), **data)


def message_of(tmp_path: Path, read: Any, *words: Any, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, *words, **data)
    return str(caught.value)


def by_text(data: TaskData) -> dict[str, np.ndarray]:
    """The labels of every row, whatever split it is in."""
    found = {}
    for split in (data.train, data.validation, data.test):
        views = split.views(range(len(split)))
        found |= dict(zip(views.inputs, views.labels, strict=True))
    return found


def flags(names: list[str] | None, order: str = "abc") -> list[float]:
    return [np.nan] * len(order) if names is None else [float(name in names) for name in order]


def assert_tags(data: TaskData, order: str = "abc") -> None:
    assert data.kind == "multilabel" and data.label_names == tuple(order) and data.skipped == ()
    assert data.train.labels.dtype == np.float32 and data.train.labels.shape == (len(data.train), 3)
    for number, text in enumerate(texts()):
        np.testing.assert_array_equal(by_text(data)[text], flags(TAGS[number % 6], order))
    for split in (data.validation, data.test):
        assert not np.isnan(split.labels).any()  # rows without a label are for learning only


def test_lists_of_names(tmp_path: Path) -> None:
    assert_tags(from_json(tmp_path, "multilabel", {"label": [TAGS[n % 6] for n in range(COUNT)]}))


def test_given_names_decide_the_order(tmp_path: Path) -> None:
    columns = {"label": [TAGS[n % 6] for n in range(COUNT)]}
    assert_tags(from_json(tmp_path, "multilabel", columns, label_names=["c", "a", "b"]), "cab")


@pytest.mark.parametrize("separator", [";", ", ", "|"])
def test_strings_of_names_in_json_where_an_empty_one_says_that_none_holds(tmp_path: Path, separator: str) -> None:
    joined = [None if tags is None else separator.join(tags) for tags in TAGS]
    columns = {"label": [joined[n % 6] for n in range(COUNT)]}
    assert_tags(from_json(tmp_path, "multilabel", columns, label_separator=separator))


def test_strings_of_names_in_csv_where_an_empty_cell_is_missing_and_a_separator_alone_is_none(tmp_path: Path) -> None:
    cells = ["" if tags is None else ";".join(tags) or ";" for tags in TAGS]
    assert_tags(from_csv(tmp_path, "multilabel", ("label",), [(cells[n % 6],) for n in range(COUNT)]))


@pytest.mark.parametrize("words", [("1", "0", ""), ("true", "false", ""), (1, 0, None), (1.0, 0.0, "")])
def test_a_column_for_each_label(tmp_path: Path, words: tuple[Any, Any, Any]) -> None:
    yes, no, missing = words
    rows = [
        tuple(missing if tags is None else yes if name in tags else no for name in "cab")
        for tags in (TAGS[n % 6] for n in range(COUNT))
    ]
    assert_tags(from_csv(tmp_path, "multilabel", tuple("cab"), rows, label_columns=list("cab")), "cab")


def test_a_label_may_be_missing_by_itself(tmp_path: Path) -> None:
    columns = {"a": [None, 1, 0, 1] * 15, "b": [1, None, 0, 1] * 15}
    data = from_json(tmp_path, "multilabel", columns, label_columns=["a", "b"])
    found = by_text(data)
    for number, expected in enumerate(([np.nan, 1], [1, np.nan], [0, 0], [1, 1])):
        np.testing.assert_array_equal(found[f"row {number}"], expected)


def test_one_label_is_a_question_of_yes_or_no(tmp_path: Path) -> None:
    data = from_json(tmp_path, "multilabel", {"spam": [0, 1] * 30}, label_columns=["spam"])
    assert data.label_names == ("spam",) and set(np.unique(data.train.labels)) == {0.0, 1.0}


def test_lists_of_named_classes_keep_their_order(tmp_path: Path) -> None:
    names = ["c", "a", "b"]
    inner = datasets.ClassLabel(names=names)
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.List(inner)})
    rows = {"text": texts(), "label": [None if TAGS[n % 6] is None else [names.index(t) for t in TAGS[n % 6] or ()]
                                       for n in range(COUNT)]}  # fmt: skip
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    assert_tags(load(tmp_path, "multilabel", source="disk", path=str(tmp_path / "saved")), "cab")


def test_a_number_a_row_is_standardised_by_the_train_split(tmp_path: Path) -> None:
    values = [None if n % 6 == 0 else 1e9 + n for n in range(COUNT)]  # as large as a date in seconds
    data = from_json(tmp_path, "regression", {"when": values}, label_column="when")
    assert data.kind == "regression" and data.label_names == ("when",) and data.scales is not None
    ((mean, deviation),) = data.scales
    labels = data.train.labels[~np.isnan(data.train.labels)]
    assert labels.mean() == pytest.approx(0, abs=1e-4) and labels.std() == pytest.approx(1, abs=1e-4)
    for number, text in enumerate(texts()):
        found = float(by_text(data)[text][0]) * deviation + mean
        assert np.isnan(found) if number % 6 == 0 else found == pytest.approx(values[number], abs=1e-3)


def test_several_numbers_a_row_some_of_them_missing(tmp_path: Path) -> None:
    rows = [("" if n % 4 == 0 else n / 10, "" if n % 3 == 0 else -n) for n in range(COUNT)]
    data = from_csv(tmp_path, "regression", ("x", "y"), rows, label_columns=["x", "y"])
    found = by_text(data)
    assert data.label_names == ("x", "y") and np.isnan(found["row 0"]).all()
    np.testing.assert_array_equal(np.isnan([found[f"row {n}"] for n in (3, 4, 5)]), [[0, 1], [1, 0], [0, 0]])


def test_given_scales_are_heeded_and_are_no_other_data(tmp_path: Path) -> None:
    columns = {"y": [float(n) for n in range(COUNT)]}
    plain = from_json(tmp_path, "regression", columns, label_column="y")
    same = {"source": "json", "path": str(tmp_path / "rows.jsonl"), "label_column": "y"}
    given = load(tmp_path, "regression", **same, label_scales={"y": (10.0, 2.0), "z": (0, 1)})
    assert given.scales == ((10.0, 2.0),) and given.train.fingerprint == plain.train.fingerprint
    assert by_text(given)["row 20"][0] == pytest.approx(5.0)
    assert len(list((tmp_path / "cache/data").glob("it-*/table.json"))) == 1
    text = message_of(tmp_path, from_json, "regression", columns, label_column="y", label_scales={"z": (0, 1)})
    assert "label 'y'" in text and "tasks.it.data.label_scales" in text


@pytest.mark.parametrize(
    ("kind", "bad", "said"),
    [
        ("multilabel", "names", "unknown label 'q'"),
        ("multilabel", "flag", "a is 2, neither 0 nor 1"),
        ("regression", "word", "y is 'much', no number"),
        ("regression", "infinite", "y is 'inf', no number"),
    ],
)
def test_rows_whose_labels_cannot_be_read_are_skipped_and_named(tmp_path: Path, kind: str, bad: str, said: str) -> None:
    data: dict[str, Any] = {"max_bad_fraction": 0.5}
    if bad == "flag":
        columns: dict[str, list[Any]] = {"a": [2] + [0, 1] * 30}
        data["label_columns"] = ["a"]
    elif kind == "multilabel":
        columns = {"label": [["q"], *([["a"], []] * 30)]}
        data |= {"label_names": ["a"]} if bad == "names" else {}
    else:
        columns = {"y": ["much" if bad == "word" else "inf", *(str(n) for n in range(60))]}
        data["label_column"] = "y"
    found = from_json(tmp_path, kind, columns, **data)
    assert len(found.skipped) == 1 and "row 0" in found.skipped[0] and said in found.skipped[0]
    text = message_of(tmp_path, from_json, kind, columns, **{**data, "max_bad_fraction": 0.01})
    assert "1 of 61 rows" in text and said in text and "max_bad_fraction" in text


@pytest.mark.parametrize("label", [{"a": 1}, True, ["a", None], [["a"]], [True]])
def test_what_holds_no_names_is_a_bad_row(label: Any) -> None:
    reader = make_reader("multilabel", DataConfig(source="csv", path="x"), None)
    with pytest.raises(BadRow, match=r"is no name|not (dict|bool)"):
        reader.read(label)


def test_missing_label_columns_are_named(tmp_path: Path) -> None:
    columns = {"a": [0, 1] * 30}
    text = message_of(tmp_path, from_json, "multilabel", columns, label_columns=["a", "b"])
    assert "no column 'b'" in text and "tasks.it.data.label_columns" in text
    text = message_of(tmp_path, from_json, "regression", columns)
    assert "no column 'label'" in text and "tasks.it.data.label_column" in text


@pytest.mark.parametrize(
    ("kind", "columns", "said"),
    [
        ("multilabel", {"label": [[] for _ in range(COUNT)]}, "no row has a label that holds"),
        ("multilabel", {"label": [None] * COUNT}, "no labelled rows"),
        ("regression", {"label": [4.0] * COUNT}, "fewer than two values of the label 'label'"),
        ("regression", {"label": [None] * COUNT}, "no labelled rows"),
    ],
)
def test_labels_that_say_nothing_are_refused(tmp_path: Path, kind: str, columns: dict[str, Any], said: str) -> None:
    assert said in message_of(tmp_path, from_json, kind, columns)


def test_a_split_on_which_no_label_holds_is_named(tmp_path: Path) -> None:
    for split, tags in (("train", ["a"]), ("validation", ["a"]), ("test", [])):
        lines = [json.dumps({"text": f"{split} {n}", "label": tags}) for n in range(10)]
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = message_of(
        tmp_path, load, "multilabel", source="json", path=str(tmp_path / "rows"), label_names=["a"]
    )  # fmt: skip
    assert "the test split has no row on which a label holds" in text


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"data": {"label_columns": ["a"]}}, "label_columns is for the kinds multilabel and regression"),
        ({"kind": "multilabel", "data": {"label_columns": []}}, "is empty or names a column twice"),
        ({"kind": "regression", "data": {"label_columns": ["a", "a"]}}, "is empty or names a column twice"),
        ({"kind": "regression", "data": {"label_names": ["a"]}}, "label_names: here the names"),
        ({"kind": "multilabel", "data": {"label_columns": ["a"], "label_names": ["b"]}}, "label_names: here"),
        ({"kind": "multilabel", "data": {"label_scales": {"a": [0, 1]}}}, "label_scales is for the kind regression"),
        ({"kind": "regression", "data": {"label_scales": {"a": [0, 0]}}}, "greater than 0"),
        ({"kind": "multilabel", "data": {"source": "sentiment"}}, "classification or regression only"),
    ],
)
def test_sections_that_make_no_sense_are_refused(section: dict[str, Any], said: str) -> None:
    whole = {"domain": "text", **section, "data": {"source": "csv", "path": "x", **section["data"]}}
    with pytest.raises(ValueError, match=said):
        TaskConfig.model_validate(whole)


def test_classes_keep_their_place_in_the_cache() -> None:
    """Neither prepared tables nor teachers of classification are made again for keys that are not theirs."""
    data = {"source": "csv", "path": "x"}
    task = TaskConfig.model_validate({"domain": "text", "data": data})
    assert set(task.content(("augment", "num_views", "max_bad_fraction"))) == {
        "source", "path", "subset", "input_column", "label_column", "group_column", "train_split", "validation_split",
        "test_split", "validation_fraction", "test_fraction", "max_train", "max_validation", "max_test", "label_names",
        "image_size", "grayscale", "sample_rate", "max_seconds",
    }  # fmt: skip
    other = TaskConfig.model_validate({"kind": "multilabel", "domain": "text", "data": data})
    assert other.content(())["kind"] == "multilabel" and "label_scales" not in other.content(())


def test_a_table_of_classes_is_as_it_was(tiny_data: dict[str, TaskData]) -> None:
    split: Split = tiny_data["mood"].train
    assert split.labels.dtype == np.int64 and split.labels.ndim == 1
    assert tiny_data["mood"].scales is None and tiny_data["mood"].kind == "classification"
