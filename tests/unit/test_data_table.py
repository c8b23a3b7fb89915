"""The prepared table: made once, made again when anything in it changes, its splits cut by group."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from raydistill.config.data import TaskConfig
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import DataError


def load(tmp_path: Path, file: Path, domain: str = "text", **data: Any) -> TaskData:
    section = {"source": "csv", "path": str(file), "validation_fraction": 0.2, "test_fraction": 0.2, **data}
    task = TaskConfig.model_validate({"domain": domain, "data": section})
    return load_task_data("it", task, tmp_path / "cache")


def splits(data: TaskData) -> dict[str, Any]:
    return {split.name: split.views(range(len(split))) for split in (data.train, data.validation, data.test)}


def test_second_load_reuses_the_prepared_table(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label"), list(tiny.texts(20)))
    heard: list[str] = []
    task = TaskConfig.model_validate({"domain": "text", "data": {"source": "csv", "path": str(tmp_path / "texts.csv")}})
    first = load_task_data("it", task, tmp_path / "cache", heard.append)
    assert any("20 rows read" in line for line in heard)
    heard.clear()
    second = load_task_data("it", task, tmp_path / "cache", heard.append)
    assert not any("rows read" in line for line in heard)
    assert second.fingerprint == first.fingerprint
    assert splits(second)["train"].inputs == splits(first)["train"].inputs


def test_fingerprint_changes_with_a_row_a_label_and_a_view_setting_only(tmp_path: Path) -> None:
    rows = tiny.texts(20)
    one_label_turned = [(rows[0][0], "good" if rows[0][1] == "bad" else "bad"), *rows[1:]]
    contents = {
        "same": rows,
        "again": rows,
        "row": [("another text", rows[0][1]), *rows[1:]],
        "label": one_label_turned,
    }
    prints = {}
    for name, content in contents.items():
        tiny.write_csv(tmp_path / f"{name}.csv", ("text", "label"), list(content))
        prints[name] = load(tmp_path, tmp_path / f"{name}.csv").fingerprint
    assert prints["again"] == prints["same"]
    prints["names"] = load(tmp_path, tmp_path / "same.csv", label_names=["good", "bad"]).fingerprint
    prints["augment"] = load(tmp_path, tmp_path / "same.csv", augment=False).fingerprint
    del prints["again"]
    assert len(set(prints.values())) == len(prints)
    for setting in ({"max_bad_fraction": 0.5}, {"num_views": 5}):
        assert load(tmp_path, tmp_path / "same.csv", **setting).fingerprint == prints["same"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    tiny.write_csv(file, ("text", "label"), list(tiny.texts(20)))
    before = load(tmp_path, file)
    tiny.write_csv(file, ("text", "label"), [*tiny.texts(20), ("one more", "good")])
    after = load(tmp_path, file)
    assert len(after.train) + len(after.validation) + len(after.test) == 21
    assert after.fingerprint != before.fingerprint


def test_a_picture_that_changed_is_read_again_where_a_table_names_it(tmp_path: Path) -> None:
    tiny.write_pictures(tmp_path / "pictures", each=4)
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    rows = [(str(file.relative_to(tmp_path)), file.parent.name) for file in files]
    tiny.write_csv(tmp_path / "rows.csv", ("image", "label"), list(rows))
    before = load(tmp_path, tmp_path / "rows.csv", "vision", image_size=16)
    for number, file in enumerate(files):
        Image.new("RGB", (16, 16), (255, number, 0)).save(file)
        os.utime(file, (1, 1))
    assert load(tmp_path, tmp_path / "rows.csv", "vision", image_size=16).fingerprint != before.fingerprint


def test_a_group_never_crosses_splits(tmp_path: Path) -> None:
    rows = [(text, label, f"film {number // 5}") for number, (text, label) in enumerate(tiny.texts(60))]
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label", "film"), list(rows))
    data = load(tmp_path, tmp_path / "texts.csv", group_column="film")
    film = {text: group for text, _, group in rows}
    groups = {name: {film[text] for text in views.inputs} for name, views in splits(data).items()}
    assert sum(len(each) for each in groups.values()) == len(set(film.values())) == 12
    assert sum(len(views) for views in splits(data).values()) == 60


def test_the_cut_depends_on_groups_and_not_on_the_order_of_rows(tmp_path: Path) -> None:
    rows = [(text, label, f"film {number // 5}") for number, (text, label) in enumerate(tiny.texts(60))]
    found = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        tiny.write_csv(tmp_path / f"{name}.csv", ("text", "label", "film"), list(order))
        data = load(tmp_path, tmp_path / f"{name}.csv", group_column="film")
        found.append({split: set(views.inputs) for split, views in splits(data).items()})
    assert found[0] == found[1]


def test_unlabelled_rows_stay_in_train_and_never_share_a_group_with_a_test_row(tmp_path: Path) -> None:
    rows = [
        (text, "" if number % 3 == 0 else label, f"film {number // 5}")
        for number, (text, label) in enumerate(tiny.texts(90))
    ]
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label", "film"), list(rows))
    data = load(tmp_path, tmp_path / "texts.csv", group_column="film")
    assert (data.validation.labels >= 0).all() and (data.test.labels >= 0).all()
    assert (data.train.labels == -1).any()
    film = {text: group for text, _, group in rows}
    groups = {name: {film[text] for text in views.inputs} for name, views in splits(data).items()}
    assert not groups["train"] & (groups["validation"] | groups["test"])


def test_maxima_draw_rows_down_the_same_way_every_time(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label"), list(tiny.texts(60)))
    limits = {"max_train": 12, "max_validation": 5, "max_test": 6}
    data = load(tmp_path, tmp_path / "texts.csv", **limits)
    assert {name: len(views) for name, views in splits(data).items()} == {"train": 12, "validation": 5, "test": 6}
    again = load(tmp_path / "elsewhere", tmp_path / "texts.csv", **limits)
    assert again.fingerprint == data.fingerprint
    whole = splits(load(tmp_path, tmp_path / "texts.csv"))
    for name, views in splits(data).items():
        assert set(views.inputs) <= set(whole[name].inputs)


def test_lengths_order_texts_and_sounds_and_pictures_have_none(tiny_data: dict[str, TaskData]) -> None:
    assert tiny_data["bands"].train.lengths is None
    for name in ("mood", "tones"):
        split = tiny_data[name].train
        found, real = split.lengths, np.array([len(each) for each in split.views(range(len(split))).inputs])
        assert found is not None and len(set(real)) > 5
        np.testing.assert_allclose(found / found.max(), real / real.max())


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    tiny.write_csv(tmp_path / "texts.csv", ("text", "label"), list(tiny.texts(20)))
    (tmp_path / "cache").write_text("a file, where the cache should be", encoding="utf-8")
    with pytest.raises(DataError, match="cache"):
        load(tmp_path, tmp_path / "texts.csv")


def test_without_groups_the_cut_depends_on_content_alone(tmp_path: Path) -> None:
    rows = [*tiny.texts(40), *tiny.texts(40)[:10]]
    tiny.write_csv(tmp_path / "one.csv", ("text", "label"), rows)
    tiny.write_csv(tmp_path / "two.csv", ("text", "label"), rows[::-1])
    one, two = (splits(load(tmp_path, tmp_path / name)) for name in ("one.csv", "two.csv"))
    for name in one:
        assert sorted(one[name].inputs) == sorted(two[name].inputs)
    assert not set(one["train"].inputs) & set(one["test"].inputs)
