"""What a good config is: numbers, overrides, recipes, and one object that nobody changes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from raydistill.config.loader import dump_config, list_recipes, load_config

CONTENT: dict[str, Any] = {
    "name": "x",
    "tasks": {"mood": {"domain": "text", "data": {"source": "csv", "path": "texts.csv"}}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E2", 200.0), ("1.5e-4", 1.5e-4), ("1.e+1", 10.0), (".5e1", 5.0), ("3", 3.0)],
)
def test_scientific_notation_is_a_number_in_files_and_overrides(text: str, value: float, tmp_path: Path) -> None:
    assert load_config(CONTENT, [f"distill.temperature={text}"]).distill.temperature == value
    file = tmp_path / "some.yaml"
    file.write_text(
        f"name: x\ntasks: {{mood: {{domain: text, data: {{source: csv, path: a.csv}}}}}}\n"
        f"distill: {{temperature: {text}}}\n",
        encoding="utf-8",
    )
    assert load_config(file).distill.temperature == value


def test_overrides_take_yaml_values_of_every_kind() -> None:
    config = load_config(
        CONTENT,
        [
            "seed=7",
            "description=two words",
            "tasks.mood.data.augment=false",
            "tasks.mood.data.label_names=[bad, good]",
            "tasks.mood.data.test_split=null",
            "distill.task_weights={mood: 2}",
            "distill.task_weights.mood=3",
        ],
    )
    data = config.tasks["mood"].data
    assert (config.seed, config.description) == (7, "two words")
    assert (data.augment, data.label_names, data.test_split) == (False, ("bad", "good"), None)
    assert config.distill.task_weights == {"mood": 3.0}


def test_overrides_add_new_names() -> None:
    config = load_config(
        CONTENT, ["teachers.other.task=mood", "teachers.other.loader=transformers", "teachers.other.model=bert"]
    )
    assert config.teachers_of("mood").keys() == {"other"}


def test_the_later_override_wins_and_the_equals_sign_may_be_in_the_value() -> None:
    assert load_config(CONTENT, ["description=a", "description=b=c"]).description == "b=c"


def test_overrides_leave_the_callers_mapping_alone() -> None:
    mine = copy.deepcopy(CONTENT)
    load_config(mine, ["tasks.mood.data.path=other.csv", "student.size=tiny"])
    assert mine == CONTENT


def test_a_section_left_empty_in_a_file_can_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("name: x\ntasks: {a: {domain: text, data: {source: sentiment}}}\ndistill:\n", encoding="utf-8")
    assert load_config(file, ["distill.temperature=4"]).distill.temperature == 4


def test_yaml_anchors_and_merge_keys_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(
        "name: x\n"
        "tasks:\n"
        "  a: &text\n    domain: text\n    data: {source: csv, path: a.csv}\n"
        "  b:\n    <<: *text\n    data: {source: csv, path: b.csv}\n",
        encoding="utf-8",
    )
    tasks = load_config(file).tasks
    assert (tasks["b"].domain, tasks["b"].data.path) == ("text", "b.csv")


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_shipped_recipe_loads_and_every_task_of_it_has_a_teacher(name: str) -> None:
    config = load_config(name)
    assert config.description
    assert all(config.teachers_of(task) for task in config.tasks)


def test_a_dumped_config_names_every_default(tmp_path: Path) -> None:
    config = load_config(CONTENT)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    assert load_config(file) == config
    assert "temperature: " in file.read_text(encoding="utf-8")


def test_config_is_frozen_all_the_way_down() -> None:
    config = load_config(CONTENT)
    for section, key in ((config, "seed"), (config.distill, "temperature"), (config.tasks["mood"].data, "path")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, 1)


@pytest.mark.parametrize(("seed", "num_seeds", "seeds"), [(0, 1, (0,)), (5, 3, (5, 6, 7))])
def test_seeds_count_up_from_the_first(seed: int, num_seeds: int, seeds: tuple[int, ...]) -> None:
    assert load_config(CONTENT, [f"seed={seed}", f"num_seeds={num_seeds}"]).seeds == seeds


def test_texts_have_no_views_and_pictures_without_augmentation_neither() -> None:
    config = load_config(
        CONTENT,
        [
            "tasks.mood.data.num_views=3",
            "tasks.a={domain: vision, data: {source: fashion_mnist, num_views: 3}}",
            "tasks.b={domain: vision, data: {source: fashion_mnist, num_views: 3, augment: false}}",
        ],
    )
    assert {name: task.num_views for name, task in config.tasks.items()} == {"mood": 0, "a": 3, "b": 0}


def test_what_looks_like_a_date_is_a_name() -> None:
    assert load_config("demo", ["name=2024-13-45"]).name == "2024-13-45"
