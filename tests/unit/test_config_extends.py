"""A config may extend another and say only what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.config.loader import dump_config, load_config
from raydistill.errors import ConfigError

BASE = """
name: base
tasks:
  mood: {domain: text, data: {source: csv, path: texts.csv, max_train: 10}}
distill: {temperature: 3, hard_weight: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    return tmp_path


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_what_differs_is_replaced_key_by_key_and_the_rest_is_kept(folder: Path) -> None:
    file = write(
        folder / "child.yaml",
        "extends: base.yaml\nname: child\ntasks: {mood: {data: {max_train: 20}}}\ndistill: {temperature: 4}\n",
    )
    config, base = load_config(file), load_config(folder / "base.yaml")
    data = config.tasks["mood"].data
    assert (config.name, data.path, data.max_train) == ("child", "texts.csv", 20)
    assert (config.distill.temperature, config.distill.hard_weight) == (4.0, 0.5)
    assert (base.name, base.tasks["mood"].data.max_train) == ("base", 10)


def test_names_are_added_and_overrides_have_the_last_word(folder: Path) -> None:
    file = write(
        folder / "child.yaml",
        "extends: base.yaml\nname: child\ntasks: {other: {domain: text, data: {source: sentiment}}}\n",
    )
    config = load_config(file, ["distill.temperature=9"])
    assert config.tasks.keys() == {"mood", "other"} and config.distill.temperature == 9


def test_the_file_beside_is_meant_wherever_the_command_runs(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder / "sub" / "child.yaml", "extends: ../base.yaml\nname: child\n")
    grandchild = write(folder / "sub" / "grandchild.yaml", "extends: child.yaml\nname: grandchild\n")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert load_config(file).distill.temperature == 3
    assert load_config(grandchild).distill.temperature == 3


def test_a_recipe_can_be_extended(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "mine.yaml", "extends: demo\nname: mine\nseed: 5\n"))
    demo = load_config("demo")
    assert config.model_dump() == {**demo.model_dump(), "name": "mine", "seed": 5}


def test_the_resolved_config_extends_nothing(folder: Path) -> None:
    config = load_config(write(folder / "child.yaml", "extends: base.yaml\nname: child\n"))
    text = dump_config(config)
    assert "extends" not in text
    (folder / "base.yaml").unlink()
    assert load_config(write(folder / "config.yaml", text)) == config


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_circle_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, base in zip(names, (*names[1:], names[0]), strict=True):
        write(tmp_path / f"{name}.yaml", f"extends: {base}.yaml\nname: {name}\n")
    with pytest.raises(ConfigError, match="extends"):
        load_config(tmp_path / "a.yaml")


def test_two_files_may_have_the_same_name_in_two_folders(folder: Path) -> None:
    file = write(folder / "sub" / "base.yaml", "extends: ../base.yaml\nname: middle\n")
    assert load_config(file).distill.temperature == 3
    outer = write(folder / "sub" / "outer.yaml", "extends: base.yaml\nname: outer\n")
    assert load_config(outer).name == "outer"


def test_a_missing_base_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        load_config(write(folder / "child.yaml", "extends: nothing.yaml\nname: child\n"))


def test_a_mistake_in_the_base_names_the_base(folder: Path) -> None:
    write(folder / "bad.yaml", "name: x\nseed: [1\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml: line 3"):
        load_config(write(folder / "child.yaml", "extends: bad.yaml\nname: child\n"))


def test_files_of_one_name_in_several_folders_are_no_circle(folder: Path) -> None:
    write(folder / "a" / "base.yaml", "extends: ../base.yaml\nname: a\n")
    write(folder / "a" / "b" / "base.yaml", "extends: ../base.yaml\nname: b\n")
    child = write(folder / "a" / "b" / "child.yaml", "extends: base.yaml\nname: child\n")
    assert load_config(child).distill.temperature == 3
    write(folder / "base.yaml", "extends: a/b/base.yaml\n")
    with pytest.raises(ConfigError, match="extends this one"):
        load_config(child)
