"""Every row asked once, the answers kept in row order; and teachers that know nothing are found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError
from raydistill.teachers.labelling import LabelJob, check_teacher, label_split, read_labels, training_views
from raydistill.teachers.local import LocalTeachers
from raydistill.teachers.teacher import Teacher, load_teacher

Data = dict[str, TaskData]


@pytest.fixture
def teacher_of(make_config: Callable[..., Config], tmp_path: Path) -> Callable[[str], Teacher]:
    def make(task: str) -> Teacher:
        section = tiny.teacher_section(task, tiny.save_transformers(task, tmp_path / task))
        return load_teacher(make_config((task,), teachers={"it": section}), "it", tiny.LABELS[task])

    return make


@pytest.fixture
def config_of(make_config: Callable[..., Config], tmp_path: Path) -> Callable[[str], Config]:
    def make(task: str) -> Config:
        section = {"task": task, "loader": "python", "model": "nobody:asks", "batch_size": 7}
        return make_config((task,), teachers={"it": section}, store={"path": str(tmp_path / "labels")})

    return make


def job_of(teacher: Teacher, data: Data, task: str, views: tuple[int, ...]) -> LabelJob:
    return LabelJob("it", teacher.fingerprint, task, data[task].train, len(tiny.LABELS[task]), views)


@pytest.mark.parametrize("task", list(tiny.TASKS))
@pytest.mark.parametrize("view", [0, 1])
def test_labels_are_the_teachers_word_in_row_order_and_asked_once(
    teacher_of: Callable[[str], Teacher], config_of: Callable[[str], Config], tiny_data: Data, task: str, view: int
) -> None:
    teacher, split, heard = teacher_of(task), tiny_data[task].train, []
    job, config = job_of(teacher, tiny_data, task, (view,)), config_of(task)
    cost = label_split(config, job, LocalTeachers({"it": teacher}), heard.append, heard.append)
    expected = np.concatenate([teacher.logits(split.views([row], view)) for row in range(len(split))])
    logits = read_labels(config, job, view)
    np.testing.assert_allclose(logits.astype(np.float32), expected.astype(np.float32), atol=2e-2)
    assert (cost.samples, cost.samples_cached) == (len(split), 0) and cost.busy_s > 0
    assert f"{len(split)}/{len(split)} rows" in heard[-1]

    cost = label_split(config, job, None, heard.append, heard.append)  # nobody to ask
    np.testing.assert_array_equal(read_labels(config, job, view), logits)
    assert (cost.samples, cost.samples_cached, cost.busy_s) == (0, len(split), 0.0)


def test_damaged_labels_are_made_again(
    teacher_of: Callable[[str], Teacher], config_of: Callable[[str], Config], tiny_data: Data, tmp_path: Path
) -> None:
    teacher, heard = teacher_of("bands"), []
    job, config = job_of(teacher, tiny_data, "bands", (0,)), config_of("bands")
    label_split(config, job, LocalTeachers({"it": teacher}), heard.append, lambda line: None)
    first = read_labels(config, job, 0)
    (shard,) = (tmp_path / "labels").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    assert heard == []
    cost = label_split(config, job, LocalTeachers({"it": teacher}), heard.append, lambda line: None)
    np.testing.assert_array_equal(read_labels(config, job, 0), first)
    assert cost.samples == len(job.split) and len(heard) == 1 and shard.name in heard[0]


def test_training_views_are_those_the_student_draws(make_config: Callable[..., Config]) -> None:
    config = make_config()
    views = {name: training_views(task) for name, task in config.tasks.items()}
    assert views == {"bands": (1, 2), "mood": (0,), "tones": (1, 2)}


def said(data: TaskData, right: float) -> np.ndarray:
    """Logits on the validation split, of which the first `right` are right."""
    labels = data.validation.labels
    answers = np.where(
        np.arange(len(labels)) < round(right * len(labels)), labels, (labels + 1) % len(data.label_names)
    )
    return np.eye(len(data.label_names), dtype=np.float16)[answers]


def test_a_teachers_own_accuracy_is_measured(tiny_data: Data) -> None:
    assert check_teacher("it", tiny_data["bands"], said(tiny_data["bands"], 0.9), allowed=False) == pytest.approx(0.9)
    assert check_teacher("it", tiny_data["bands"], said(tiny_data["bands"], 1.0), allowed=False) == 1.0


@pytest.mark.parametrize("right", [0.0, 0.3])
def test_a_teacher_at_chance_level_is_refused_unless_allowed(tiny_data: Data, right: float) -> None:
    data = tiny_data["bands"]
    with pytest.raises(TeacherError) as caught:
        check_teacher("it", data, said(data, right), allowed=False)
    text = str(caught.value)
    assert "'it' is at chance level" in text and f"{right:.3f}" in text and "allow_chance_level=true" in text
    assert check_teacher("it", data, said(data, right), allowed=True) == pytest.approx(right)


def test_a_teacher_that_always_names_the_commonest_class_is_at_chance_level(tiny_data: Data) -> None:
    data = tiny_data["bands"]
    logits = np.zeros((len(data.validation), 3), np.float16)
    logits[:, np.bincount(data.validation.labels).argmax()] = 5
    with pytest.raises(TeacherError, match="chance level"):
        check_teacher("it", data, logits, allowed=False)
