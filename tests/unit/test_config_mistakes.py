"""Every mistake in a config is one line that names the key, its place and the way out."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from raydistill.config.loader import load_config
from raydistill.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "x",
    "tasks": {"mood": {"domain": "text", "data": {"source": "csv", "path": "texts.csv"}}},
    "teachers": {"bert": {"task": "mood", "loader": "transformers", "model": "bert", "train": {"num_epochs": 1}}},
}


def mistake(*path: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    place = content
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return content


def message_of(content: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(content, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        (("studnet",), "student"),
        (("distill", "temprature"), "temperature"),
        (("tasks", "mood", "domian"), "domain"),
        (("tasks", "mood", "data", "image_sise"), "image_size"),
        (("teachers", "bert", "modle"), "model"),
        (("teachers", "bert", "train", "num_epoch"), "num_epochs"),
        (("teachers", "bert", "train", "placement", "num_cpu"), "num_cpus"),
        (("teachers", "bert", "placement", "num_gpu"), "num_gpus"),
    ],
)
def test_unknown_key_names_its_place_and_the_nearest_valid_key(path: tuple[str, ...], nearest: str) -> None:
    text = message_of(mistake(*path, value=1))
    assert repr(".".join(path)) in text and f"did you mean {nearest!r}" in text


def test_unknown_key_like_no_other_lists_the_valid_ones() -> None:
    text = message_of(mistake("ray", "zzzzzz", value=1))
    assert "ray.zzzzzz" in text and "address" in text and "num_cpus" in text and "num_gpus" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("distill", "temperature"), "warm"),
        (("distill", "temperature"), 0),
        (("distill", "hard_weight"), 1.5),
        (("distill", "temperature"), float("inf")),
        (("training", "learning_rate"), float("nan")),
        (("cache_dir",), "a\0b"),
        (("cache_dir",), "~nosuchuser/cache"),
        (("distill", "task_weights", "mood"), -1.0),
        (("distill", "task_temperatures", "mood"), 0),
        (("training", "num_steps"), -3),
        (("training", "label_fraction"), 0),
        (("seed",), 1.5),
        (("tasks",), ["mood"]),
        (("tasks", "mood", "domain"), "smell"),
        (("student", "size"), "huge"),
        (("name",), "../up"),
    ],
)
def test_wrong_value_names_its_place_and_shows_what_was_given(path: tuple[str, ...], value: Any) -> None:
    text = message_of(mistake(*path, value=value))
    assert f"{'.'.join(path)}: " in text and repr(value)[:20] in text


def test_missing_key_is_named() -> None:
    content = copy.deepcopy(GOOD)
    del content["teachers"]["bert"]["model"]
    assert "key 'teachers.bert.model' is missing" in message_of(content)


def test_further_problems_are_counted() -> None:
    content = mistake("seed", value="x")
    content["num_seeds"] = 0
    assert "(and 1 more problem)" in message_of(content)


def test_config_without_tasks_is_refused() -> None:
    assert "tasks" in message_of({"name": "x", "tasks": {}})


def test_source_that_needs_a_path_says_so() -> None:
    content = copy.deepcopy(GOOD)
    del content["tasks"]["mood"]["data"]["path"]
    text = message_of(content)
    assert "tasks.mood.data" in text and "'csv' needs a path" in text


def test_pixels_are_not_divided_by_nothing() -> None:
    text = message_of(mistake("teachers", "bert", "image_std", value=[0.5, 0.0, 0.5]))
    assert "teachers.bert.image_std.1" in text and "greater than 0" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("teachers", "bert", "task"), "modd"),
        (("distill", "task_weights"), {"modd": 2.0}),
        (("distill", "task_temperatures"), {"modd": 2.0}),
        (("training", "task_batch_size"), {"modd": 2}),
    ],
)
def test_name_of_no_task_is_refused_with_the_tasks_there_are(path: tuple[str, ...], value: Any) -> None:
    text = message_of(mistake(*path, value=value))
    assert ".".join(path) in text and "'modd'" in text and "['mood']" in text


def test_embeddings_from_nobody_lists_the_teachers() -> None:
    text = message_of(mistake("student", "embeddings_from", value="bret"))
    assert "student.embeddings_from" in text and "'bret'" in text and "['bert']" in text


FILES = {
    "duplicate": ("name: x\nseed: 1\nseed: 2\n", ("line 3", "'seed'", "twice")),
    "nested duplicate": ("name: x\ntasks:\n  a:\n    domain: text\n    domain: text\n", ("line 5", "'domain'")),
    "open bracket": ("name: x\nseed: [1\n", ("line 3", "not valid YAML")),
    "tab": ("name: x\ntasks:\n\ta: 1\n", ("line 3", "not valid YAML")),
    "two documents": ("name: x\n---\nname: y\n", ("line 2", "not valid YAML")),
    "empty": ("", ("mapping", "NoneType")),
    "list": ("- name\n", ("mapping", "list")),
    "control character": ("name: x\x07\n", ("not valid YAML",)),
    "impossible date": ("name: 2024-99-99\n", ("name",)),
    "a tag for no date": ("name: !!timestamp abc\n", ("not valid YAML",)),
    "many brackets": ("name: " + "[" * 3000, ("not valid YAML",)),
}


@pytest.mark.parametrize("case", FILES)
def test_unreadable_yaml_names_the_file_and_the_line(case: str, tmp_path: Path) -> None:
    content, wanted = FILES[case]
    file = tmp_path / "some.yaml"
    file.write_text(content, encoding="utf-8")
    text = message_of(file)
    assert str(file) in text
    for part in wanted:
        assert part in text


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"num_gpus": 1.5}, "num_gpus is 1.5"),
        ({"resources": {"big": 2.5}}, "big is 2.5"),
        ({"resources": {"x": -1}}, "greater than 0"),
        ({"resources": {"CPU": 1}}, "num_cpus"),
    ],
)
def test_a_placement_that_ray_cannot_read_is_refused(placement: dict[str, Any], words: str) -> None:
    text = message_of(mistake("teachers", "bert", "placement", value=placement))
    assert "teachers.bert.placement" in text and words in text


def test_a_home_of_nobody_is_no_file() -> None:
    with pytest.raises(ConfigError, match="~nosuchuser"):
        load_config("~nosuchuser/config.yaml")


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_bytes(b"\xff\xfe\x00name")
    assert "cannot be read as text" in message_of(file)


def test_missing_file_lists_the_recipes(tmp_path: Path) -> None:
    text = message_of(tmp_path / "nothing.yaml")
    assert "nothing.yaml" in text and "demo" in text


def test_folder_points_to_the_config_inside(tmp_path: Path) -> None:
    text = message_of(tmp_path)
    assert "is a folder" in text and str(tmp_path / "config.yaml") in text


@pytest.mark.parametrize("override", ["distill.temperature", "=3", ".a=3", "a..b=3", "a.=3"])
def test_malformed_override_shows_the_form(override: str) -> None:
    text = message_of(GOOD, override)
    assert repr(override) in text and "key=value" in text


def test_override_that_is_no_yaml_is_shown() -> None:
    text = message_of(GOOD, "distill={temperature: 1, temperature: 2}")
    assert "'distill={temperature: 1, temperature: 2}'" in text and "given twice" in text


def test_override_below_a_value_says_that_it_has_no_keys() -> None:
    text = message_of(GOOD, "name.first=x")
    assert "name is a value" in text and "'first'" in text


def test_override_with_a_broken_value_is_quoted_back() -> None:
    assert "not valid YAML" in message_of(GOOD, "seed=[1")


@pytest.mark.parametrize("name", ["a.b", "a/b", "a b", "", "a=b"])
def test_a_task_name_that_no_override_or_file_could_hold_is_refused(name: str) -> None:
    tasks = {name: {"domain": "text", "data": {"source": "csv", "path": "x.csv"}}}
    assert "tasks" in message_of({**GOOD, "tasks": tasks, "teachers": {}})


def test_override_of_an_unknown_key_names_it() -> None:
    assert "'distill.temperatur'" in message_of(GOOD, "distill.temperatur=3")
