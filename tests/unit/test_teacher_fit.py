"""Training a teacher: it learns, keeps its best weights, stops early, and resumes to the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from raydistill.config.data import TaskConfig
from raydistill.config.models import Config, TeachConfig, TeacherConfig
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import TeacherError
from raydistill.teachers.checkpoints import teacher_folder
from raydistill.teachers.fit import fit, validation_accuracy
from raydistill.teachers.models import Network, build
from raydistill.teachers.teach import train_teacher, untrained
from raydistill.teachers.teacher import load_teacher

Data = dict[str, TaskData]


class Stop(Exception):
    """A power cut, as far as the training can tell."""


def network_of(data: TaskData, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    model = {"bands": "own_teachers:pixels", "mood": "own_teachers:words"}[data.name]
    options = {"dropout": 0.3} if data.name == "bands" else {}
    config = TeacherConfig(task=data.name, loader="python", model=model, options=options)
    return build("it", config, data.domain, data.settings, len(data.label_names), None)


def teach(**settings: Any) -> TeachConfig:
    return TeachConfig.model_validate(
        {"num_epochs": 6, "batch_size": 4, "learning_rate": 0.02, "precision": "fp32", "patience": 100, **settings}
    )


@pytest.mark.parametrize("task", ["bands", "mood"])
def test_a_teacher_learns_and_ends_in_eval_mode_with_its_best_weights(
    tiny_data: Data, tmp_path: Path, task: str
) -> None:
    network, heard = network_of(tiny_data[task]), []
    before = validation_accuracy(network, tiny_data[task], bf16=False)
    outcome = fit(network, tiny_data[task], teach(), tmp_path, 0, heard.append)
    assert not network.module.training
    after = validation_accuracy(network, tiny_data[task], bf16=False)
    assert outcome["validation_accuracy"] == after > before
    assert any("samples/s" in line and "s left" in line for line in heard)
    assert any("validation accuracy" in line for line in heard)


def test_only_labelled_rows_teach(tiny_data: Data, tmp_path: Path) -> None:
    """With an unlabelled row in a batch the cross-entropy would fail on its label −1."""
    file = tmp_path / "texts.csv"
    rows = [(text, label if number % 3 else "") for number, (text, label) in enumerate(tiny.texts(60))]
    tiny.write_csv(file, ("text", "label"), list(rows))
    task = TaskConfig.model_validate({"domain": "text", "data": {"source": "csv", "path": str(file)}})
    data = load_task_data("mood", task, tmp_path / "cache")
    assert (data.train.labels == -1).sum() == 20
    outcome = fit(network_of(data), data, teach(num_epochs=1), tmp_path / "state", 0, lambda line: None)
    labelled = int((data.train.labels >= 0).sum())
    assert outcome["samples"] == round(labelled / 4) * 4


@pytest.mark.parametrize("task", ["bands", "mood"])
def test_stopped_and_resumed_gives_the_weights_of_an_uninterrupted_training(
    tiny_data: Data, tmp_path: Path, task: str
) -> None:
    data, settings = tiny_data[task], teach(num_epochs=4, evaluations_per_epoch=2)
    whole, parts = network_of(data), network_of(data)
    outcome = fit(whole, data, settings, tmp_path / "whole", 0, lambda line: None)

    evaluations = 0

    def cut(line: str) -> None:
        nonlocal evaluations
        evaluations += "validation accuracy" in line
        if evaluations == 4:  # told before it is saved: the third one is what remains
            raise Stop

    with pytest.raises(Stop):
        fit(parts, data, settings, tmp_path / "parts", 0, cut)
    fresh, heard = network_of(data, seed=9), []
    resumed = fit(fresh, data, settings, tmp_path / "parts", 0, heard.append)
    assert "goes on from step" in heard[0]
    assert resumed["validation_accuracy"] == outcome["validation_accuracy"]
    assert resumed["samples"] == outcome["samples"]
    for key, weight in whole.module.state_dict().items():
        assert torch.equal(fresh.module.state_dict()[key], weight), key


def test_it_stops_after_as_many_evaluations_without_a_better_one_as_patience_says(
    tiny_data: Data, tmp_path: Path
) -> None:
    evaluations: list[str] = []
    settings = teach(num_epochs=20, learning_rate=1e-12, patience=2)

    def hear(line: str) -> None:
        evaluations.extend([line] if "validation accuracy" in line else [])

    outcome = fit(network_of(tiny_data["mood"]), tiny_data["mood"], settings, tmp_path, 0, hear)
    assert len(evaluations) == 3  # the first is better than nothing, the next two are not
    assert outcome["samples"] == 3 * (len(tiny_data["mood"].train) // 4) * 4


def test_weights_that_got_worse_are_thrown_away(tiny_data: Data, tmp_path: Path) -> None:
    data, network, heard = tiny_data["mood"], network_of(tiny_data["mood"]), []
    fit(network, data, teach(learning_rate=0.3), tmp_path / "first", 0, lambda line: None)

    def ruin(line: str) -> None:
        if "validation accuracy" in line:
            heard.append(float(line.split()[-1]))
            if len(heard) == 1:
                with torch.no_grad():
                    network.module.bag.weight.neg_()  # every answer is now the opposite

    outcome = fit(network, data, teach(learning_rate=1e-12, patience=2), tmp_path / "second", 0, ruin)
    assert heard[0] > 0.8 and max(heard[1:]) < 0.2
    assert validation_accuracy(network, data, bf16=False) == outcome["validation_accuracy"] > 0.8


@pytest.mark.parametrize(
    "settings",
    [{"num_epochs": 0.05}, {"batch_size": 1_000}, {"evaluations_per_epoch": 100, "batch_size": 5}, {"batch_size": 4},
     {"num_epochs": 3, "warmup_fraction": 0.0}, {"num_epochs": 3, "warmup_fraction": 0.9}],
    ids=str,
)  # fmt: skip
def test_very_short_and_very_coarse_trainings_run(tiny_data: Data, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"num_epochs": 1, **settings}
    outcome = fit(network_of(tiny_data["mood"]), tiny_data["mood"], teach(**settings), tmp_path, 0, lambda line: None)
    assert 0 <= outcome["validation_accuracy"] <= 1 and outcome["samples"] > 0


def test_a_state_that_cannot_be_written_is_a_teacher_error(tiny_data: Data, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way", encoding="utf-8")
    with pytest.raises(TeacherError, match="cannot write the teacher's training state"):
        fit(network_of(tiny_data["mood"]), tiny_data["mood"], teach(), tmp_path / "state", 0, lambda line: None)


def test_a_trained_teacher_lies_in_the_cache_with_its_card_and_is_not_trained_twice(
    make_config: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    section = {"task": "mood", "loader": "python", "model": "own_teachers:words", "precision": "fp32",
               "train": teach().model_dump()}  # fmt: skip
    config = make_config(("mood",), teachers={"it": section}, cache_dir=str(tmp_path))
    said: list[str] = []
    train_teacher(config, "it", tiny_data["mood"], lambda line: None, said.append)
    folder = teacher_folder(config, "it")
    assert folder.is_dir() and not folder.with_name(f"{folder.name}.unfinished").exists()
    assert len(said) == 1 and "validation accuracy" in said[0]
    teacher = load_teacher(config, "it", tiny_data["mood"].label_names)
    split = tiny_data["mood"].validation
    right = (teacher.logits(split.views(range(len(split)))).argmax(axis=1) == split.labels).mean()
    assert f"{right:.3f}" in said[0]
    np.testing.assert_array_equal(teacher.columns, [0, 1])


def test_a_teacher_that_learned_from_other_data_is_trained_again(
    make_config: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    section = {"task": "mood", "loader": "python", "model": "own_teachers:words", "train": teach().model_dump()}
    config = make_config(("mood",), teachers={"it": section}, cache_dir=str(tmp_path))
    train_teacher(config, "it", tiny_data["mood"], lambda line: None, lambda line: None)
    assert untrained(config, tiny_data) == []
    card = teacher_folder(config, "it") / "teacher.json"
    card.write_text(card.read_text(encoding="utf-8").replace(tiny_data["mood"].learning_fingerprint, "other data"))
    assert untrained(config, tiny_data) == ["it"]
