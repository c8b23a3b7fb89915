"""Rows that cannot be used: skipped and listed by name up to a limit, an error beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny

from raydistill.config.data import TaskConfig
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import DataError


def load(tmp_path: Path, domain: str, rows: list[tuple[Any, ...]], **data: Any) -> TaskData:
    column = {"vision": "image", "text": "text", "speech": "audio"}[domain]
    tiny.write_csv(tmp_path / "rows.csv", (column, "label"), rows)
    section = {"source": "csv", "path": str(tmp_path / "rows.csv"), "image_size": 16, "sample_rate": tiny.RATE}
    task = TaskConfig.model_validate({"domain": domain, "data": {**section, "max_bad_fraction": 0.5, **data}})
    return load_task_data("it", task, tmp_path / "cache")


@pytest.fixture
def pictures(tmp_path: Path) -> list[tuple[Any, ...]]:
    tiny.write_pictures(tmp_path, each=6)
    return [(str(file.relative_to(tmp_path)), file.parent.name) for file in sorted(tmp_path.rglob("*.png"))]


@pytest.fixture
def sounds(tmp_path: Path) -> list[tuple[Any, ...]]:
    tiny.write_sounds(tmp_path, each=6)
    return [(str(file.relative_to(tmp_path)), file.parent.name) for file in sorted(tmp_path.rglob("*.wav"))]


def test_corrupt_pictures_are_skipped_by_name(tmp_path: Path, pictures: list[tuple[Any, ...]]) -> None:
    (tmp_path / "garbage.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = (tmp_path / pictures[0][0]).read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    bad = ["garbage.png", "empty.png", "torn.png", "missing.png"]
    data = load(tmp_path, "vision", [*pictures, *((name, "top") for name in bad)])
    assert [line.split(":")[0] for line in data.skipped] == bad
    assert all("corrupt image" in line for line in data.skipped)
    assert len(data.train) + len(data.validation) + len(data.test) == len(pictures)


def test_unusable_sounds_are_skipped_by_name(tmp_path: Path, sounds: list[tuple[Any, ...]]) -> None:
    (tmp_path / "garbage.wav").write_bytes(b"RIFF no sound")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0, np.float32), tiny.RATE)
    soundfile.write(tmp_path / "broken.wav", np.full(500, np.nan, np.float32), tiny.RATE, subtype="FLOAT")
    data = load(tmp_path, "speech", [*sounds, ("garbage.wav", "low"), ("silent.wav", "low"), ("broken.wav", "low")])
    reasons = dict(line.split(": ", 1) for line in data.skipped)
    assert reasons.keys() == {"garbage.wav", "silent.wav", "broken.wav"}
    assert "corrupt audio" in reasons["garbage.wav"] and "zero-length" in reasons["silent.wav"]
    assert "not numbers" in reasons["broken.wav"]


def test_empty_texts_are_skipped_by_row(tmp_path: Path) -> None:
    rows = [*tiny.texts(20), ("", "good"), ("   ", "bad")]
    data = load(tmp_path, "text", rows)
    assert list(data.skipped) == ["train row 20: empty text", "train row 21: empty text"]


def test_labels_that_the_config_does_not_list_are_skipped(tmp_path: Path) -> None:
    data = load(tmp_path, "text", [*tiny.texts(20), ("odd one", "so-so")], label_names=["good", "bad"])
    assert list(data.skipped) == ["train row 20: unknown label 'so-so'"]
    assert data.label_names == ("good", "bad")


def test_label_order_of_the_config_rules(tmp_path: Path) -> None:
    plain = load(tmp_path, "text", list(tiny.texts(20)))
    turned = load(tmp_path, "text", list(tiny.texts(20)), label_names=["good", "bad"])
    assert plain.label_names == ("bad", "good") and turned.label_names == ("good", "bad")
    np.testing.assert_array_equal(turned.train.labels, 1 - plain.train.labels)
    assert turned.fingerprint != plain.fingerprint


def test_too_many_bad_rows_are_an_error_that_says_which_and_what_to_do(tmp_path: Path) -> None:
    rows = [*tiny.texts(18), ("", "good"), ("", "bad")]
    assert len(load(tmp_path, "text", rows, max_bad_fraction=0.1).skipped) == 2
    with pytest.raises(DataError) as caught:
        load(tmp_path, "text", rows, max_bad_fraction=0.09)
    text = str(caught.value)
    assert "2 of 20 rows" in text and "train row 18: empty text" in text and "tasks.it.data.max_bad_fraction" in text


def test_a_lower_limit_is_heeded_where_the_table_is_prepared_already(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label"), [*tiny.texts(18), ("", "good"), ("", "bad")])
    section = {"source": "csv", "path": str(tmp_path / "texts.csv")}
    for limit in (0.5, 0.01):
        task = TaskConfig.model_validate({"domain": "text", "data": {**section, "max_bad_fraction": limit}})
        if limit == 0.5:
            assert len(load_task_data("it", task, tmp_path / "cache").skipped) == 2
        else:
            with pytest.raises(DataError, match="2 of 20 rows"):
                load_task_data("it", task, tmp_path / "cache")


def test_one_label_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one label only"):
        load(tmp_path, "text", [(text, "good") for text, _ in tiny.texts(20)])


def test_a_split_that_stays_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the train split has no rows"):
        load(tmp_path, "text", list(tiny.texts(2)))


def test_a_split_without_any_label_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [(text, label if split == "train" else "") for text, label in tiny.texts(20, seed=len(split))]
        tiny.write_csv(tmp_path / "texts" / f"{split}.csv", ("text", "label"), rows)
    section = {"source": "csv", "path": str(tmp_path / "texts")}
    task = TaskConfig.model_validate({"domain": "text", "data": section})
    with pytest.raises(DataError, match="the test split has no labelled rows"):
        load_task_data("it", task, tmp_path / "cache")


def test_numbers_as_labels_stay_whole_where_some_are_missing(tmp_path: Path) -> None:
    rows = [(text, "" if number < 4 else number % 2) for number, (text, _) in enumerate(tiny.texts(24))]
    data = load(tmp_path, "text", rows)
    assert data.label_names == ("0", "1")
    assert (data.train.labels == -1).sum() == 4
