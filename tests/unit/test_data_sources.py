"""Every Hugging Face path to a task's data, and what is said when one leads nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny

from raydistill.config.data import TaskConfig
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import DataError

ROWS = tiny.texts(40)
TEXTS = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
PARTS = {"validation_fraction": 0.2, "test_fraction": 0.2}


def load(tmp_path: Path, domain: str, **data: Any) -> TaskData:
    task = TaskConfig.model_validate({"domain": domain, "data": {**PARTS, **data}})
    return load_task_data("it", task, tmp_path / "cache")


def message_of(tmp_path: Path, domain: str = "text", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(tmp_path, domain, **data)
    return str(caught.value)


def all_texts(data: TaskData) -> set[str]:
    return {
        text for split in (data.train, data.validation, data.test) for text in split.views(range(len(split))).inputs
    }


def assert_holds_the_texts(data: TaskData) -> None:
    assert all_texts(data) == set(TEXTS["text"])
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 8, 8)
    assert data.label_names == ("bad", "good") and data.skipped == ()
    known = dict(ROWS)
    for split in (data.train, data.validation, data.test):
        views = split.views(range(len(split)))
        assert [data.label_names[label] for label in views.labels] == [known[text] for text in views.inputs]


@pytest.mark.parametrize("source", ["csv", "json", "parquet"])
def test_one_file_is_read_and_cut_into_three_splits(source: str, tmp_path: Path) -> None:
    file = tmp_path / f"texts.{source}"
    getattr(datasets.Dataset.from_dict(TEXTS), f"to_{source}")(str(file))
    assert_holds_the_texts(load(tmp_path, "text", source=source, path=str(file)))


def test_a_folder_of_csv_files_brings_its_own_splits(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    for split, rows in {"train": ROWS[:20], "validation": ROWS[20:30], "test": ROWS[30:]}.items():
        tiny.write_csv(folder / f"{split}.csv", ("text", "label"), list(rows))
    data = load(tmp_path, "text", source="csv", path=str(folder))
    assert list(data.train.views(range(20)).inputs) == [text for text, _ in ROWS[:20]]
    assert list(data.validation.views(range(10)).inputs) == [text for text, _ in ROWS[20:30]]
    assert list(data.test.views(range(10)).inputs) == [text for text, _ in ROWS[30:]]


def test_a_saved_data_set_with_string_labels_is_read(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(TEXTS).save_to_disk(str(tmp_path / "saved"))
    assert_holds_the_texts(load(tmp_path, "text", source="disk", path=str(tmp_path / "saved")))


def test_a_saved_data_set_with_class_labels_keeps_their_order(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    labels = [["good", "bad"].index(label) for label in TEXTS["label"]]
    whole = datasets.Dataset.from_dict({**TEXTS, "label": labels}, features=features)
    parts = {"train": whole.select(range(30)), "validation": whole.select(range(30, 40))}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path, "text", source="disk", path=str(tmp_path / "saved"))
    assert data.label_names == ("good", "bad")
    assert list(data.validation.labels) == labels[30:]
    assert len(data.train) + len(data.test) == 30


def test_withheld_labels_of_a_class_label_column_are_no_labels(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    labels = [-1 if number < 10 else number % 2 for number in range(40)]
    datasets.Dataset.from_dict({**TEXTS, "label": labels}, features=features).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path, "text", source="disk", path=str(tmp_path / "saved"))
    assert (data.train.labels == -1).sum() == 10 and data.label_names == ("bad", "good")


def test_folders_of_pictures_are_labelled_by_folder(tmp_path: Path) -> None:
    tiny.write_pictures(tmp_path / "pictures", each=8)
    data = load(tmp_path, "vision", source="imagefolder", path=str(tmp_path / "pictures"), image_size=16)
    assert data.label_names == tiny.LABELS["bands"]
    views = data.train.views(range(len(data.train)))
    for pixels, label in zip(views.inputs, views.labels, strict=True):
        bands = {"top": pixels[:5].mean(), "middle": pixels[5:10].mean(), "bottom": pixels[10:15].mean()}
        assert max(bands, key=lambda band: bands[band]) == data.label_names[label]


def test_folders_of_sounds_are_labelled_by_folder(tmp_path: Path) -> None:
    tiny.write_sounds(tmp_path / "sounds", each=6)
    (tmp_path / "sounds/sounds.csv").unlink()
    data = load(tmp_path, "speech", source="audiofolder", path=str(tmp_path / "sounds"), sample_rate=tiny.RATE)
    assert data.label_names == tiny.LABELS["tones"] and data.skipped == ()


def test_a_saved_data_set_of_sounds_is_read(tmp_path: Path) -> None:
    tiny.write_sounds(tmp_path / "sounds", each=6)
    files = sorted((tmp_path / "sounds").rglob("*.wav"))
    rows = {"audio": [str(file) for file in files], "label": [file.parent.name for file in files]}
    saved = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path, "speech", source="disk", path=str(tmp_path / "saved"), sample_rate=tiny.RATE)
    assert data.label_names == tiny.LABELS["tones"] and data.skipped == ()


def test_a_table_may_name_picture_and_sound_files(tiny_data: dict[str, TaskData]) -> None:
    assert tiny_data["tones"].skipped == () and tiny_data["tones"].label_names == tiny.LABELS["tones"]


def test_a_text_that_ends_like_a_file_name_stays_a_text(tmp_path: Path) -> None:
    rows = [*ROWS, ("look at my cat.png", "good"), ("what a song.mp3", "bad")]
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label"), list(rows))
    data = load(tmp_path, "text", source="csv", path=str(tmp_path / "texts.csv"), max_bad_fraction=1.0)
    assert data.skipped == () and "look at my cat.png" in all_texts(data)


def test_other_column_names_are_read_where_the_config_says_so(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "texts.csv", ("review", "stars"), list(ROWS))
    where = {"source": "csv", "path": str(tmp_path / "texts.csv")}
    assert_holds_the_texts(load(tmp_path, "text", **where, input_column="review", label_column="stars"))
    for given, missing, key in (
        ({"label_column": "stars"}, "text", "input_column"),
        ({"input_column": "review"}, "label", "label_column"),
        ({"input_column": "review", "label_column": "stars", "group_column": "film"}, "film", "group_column"),
    ):
        text = message_of(tmp_path, **where, **given)
        assert f"no column {missing!r}" in text and "'review', 'stars'" in text and f"tasks.it.data.{key}" in text


def test_a_train_split_of_another_name_is_asked_for(tmp_path: Path) -> None:
    datasets.DatasetDict({"learn": datasets.Dataset.from_dict(TEXTS)}).save_to_disk(str(tmp_path / "saved"))
    where = {"source": "disk", "path": str(tmp_path / "saved")}
    text = message_of(tmp_path, **where)
    assert "no split 'train'" in text and "['learn']" in text and "tasks.it.data.train_split" in text
    assert_holds_the_texts(load(tmp_path, "text", **where, train_split="learn"))


@pytest.mark.parametrize("source", ["csv", "json", "parquet", "disk", "imagefolder", "audiofolder"])
def test_a_path_that_is_not_there_is_named(source: str, tmp_path: Path) -> None:
    text = message_of(tmp_path, source=source, path=str(tmp_path / "nowhere"))
    assert "task 'it'" in text and str(tmp_path / "nowhere") in text and "no such file or folder" in text


def test_a_file_of_another_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "texts.parquet").write_text("no parquet", encoding="utf-8")
    assert "texts.parquet" in message_of(tmp_path, source="parquet", path=str(tmp_path / "texts.parquet"))


def test_pictures_without_label_folders_have_no_label_column(tmp_path: Path) -> None:
    tiny.write_pictures(tmp_path / "pictures", each=2)
    path = str(tmp_path / "pictures" / "top")
    assert "no column 'label'" in message_of(tmp_path, "vision", source="imagefolder", path=path)
