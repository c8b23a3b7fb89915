"""One model for every domain: its shapes, its blindness to padding, and its way to disk and back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.errors import ConfigError
from raydistill.student.model import Student
from raydistill.student.predicting import predict_split

MakeConfig = Callable[..., Config]
Data = dict[str, TaskData]
SUBSETS = [names for size in (1, 2, 3) for names in combinations(tiny.TASKS, size)]


@pytest.fixture(scope="module")
def build(make_config: MakeConfig, tiny_data: Data, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Student]:
    def make(tasks: tuple[str, ...] = tuple(tiny.TASKS), seed: int = 0, **shape: Any) -> Student:
        config = make_config(tasks, student={**tiny.STUDENT, **shape})
        data = {name: tiny_data[name] for name in tasks}
        return make_student(config, data, seed, tmp_path_factory.mktemp("student") / "initial").eval()

    return make


def answers(student: Student, data: Data, rows: Any = range(5), view: int = 0) -> dict[str, torch.Tensor]:
    views = {name: data[name].train.views(rows, view) for name in student.tasks}
    with torch.no_grad():
        return student({name: student.preparer(name)(each) for name, each in views.items()})


@pytest.mark.parametrize("tasks", SUBSETS, ids="+".join)
def test_one_logit_a_class_for_any_set_of_tasks(
    build: Callable[..., Student], tiny_data: Data, tasks: tuple[str, ...]
) -> None:
    student = build(tasks)
    logits = answers(student, tiny_data)
    assert {name: each.shape for name, each in logits.items()} == {name: (5, len(tiny.LABELS[name])) for name in tasks}
    assert all(torch.isfinite(each).all() for each in logits.values())
    assert {name: task.label_names for name, task in student.tasks.items()} == {n: tiny.LABELS[n] for n in tasks}


@pytest.mark.parametrize(
    "shape",
    [
        {"width": 24, "num_heads": 3},
        {"depth": 2},
        {"patch_size": 8},
        {"frames_per_token": 8},
        {"num_mels": 20},
        {"embedding_width": 48},
        {"max_length": 4},
        {"sample_rate": 4_000},
    ],
    ids=str,
)
def test_every_measure_of_the_student_can_be_set(
    build: Callable[..., Student], tiny_data: Data, shape: dict[str, int]
) -> None:
    student = build(**shape)
    assert all(torch.isfinite(each).all() for each in answers(student, tiny_data).values())
    stated = {key: getattr(student.shape, key) for key in shape if key != "sample_rate"}
    assert stated == {key: value for key, value in shape.items() if key != "sample_rate"}


@pytest.mark.parametrize("name", list(tiny.TASKS))
def test_a_rows_answer_does_not_depend_on_the_rest_of_its_batch(
    build: Callable[..., Student], tiny_data: Data, name: str
) -> None:
    student = build()
    rows = np.arange(8)
    together = answers(student, tiny_data, rows)[name]
    assert together.std(dim=0).max() > 1e-4
    for row in rows:
        torch.testing.assert_close(answers(student, tiny_data, [row])[name][0], together[row], atol=1e-5, rtol=1e-4)


def test_a_text_without_any_word_spoils_neither_itself_nor_its_neighbours(build: Callable[..., Student]) -> None:
    student = build(("mood",))
    texts = ["the film was fine", "\u200b"]  # a zero-width space is no space to Python and no word to a tokenizer
    views = ViewBatch("text", texts, np.zeros(2, np.int64), np.arange(2), 0)
    logits = student({"mood": student.preparer("mood")(views)})["mood"]
    assert torch.isfinite(logits).all()
    logits.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in student.parameters() if weight.grad is not None)


def test_tasks_asked_together_answer_as_they_do_alone(build: Callable[..., Student], tiny_data: Data) -> None:
    student = build()
    together = answers(student, tiny_data)
    for name in tiny.TASKS:
        prepared = student.preparer(name)(tiny_data[name].train.views(range(5)))
        torch.testing.assert_close(student({name: prepared})[name], together[name], atol=1e-6, rtol=1e-5)


def test_every_parameter_learns(build: Callable[..., Student], tiny_data: Data) -> None:
    student = build().train()
    views = {name: tiny_data[name].train.views(range(6)) for name in student.tasks}
    logits = student({name: student.preparer(name)(each) for name, each in views.items()})
    sum(each.square().sum() for each in logits.values()).backward()
    still = [name for name, weight in student.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_saved_and_loaded_it_gives_identical_answers_labels_and_words(
    build: Callable[..., Student], tiny_data: Data, tmp_path: Path
) -> None:
    student = build()
    student.save_pretrained(tmp_path / "student")
    assert {file.name for file in (tmp_path / "student").iterdir()} >= {"config.json", "model.safetensors"}
    loaded = Student.from_pretrained(str(tmp_path / "student")).eval()
    for name, logits in answers(student, tiny_data).items():
        assert torch.equal(answers(loaded, tiny_data)[name], logits)
        assert loaded.tasks[name].label_names == student.tasks[name].label_names
    assert loaded.tokenizer is not None and student.tokenizer is not None
    assert loaded.tokenizer.get_vocab() == student.tokenizer.get_vocab()
    assert loaded.num_parameters == student.num_parameters == sum(w.numel() for w in loaded.parameters())


def test_weights_are_drawn_by_seed(build: Callable[..., Student]) -> None:
    first, again, other = (build(("bands",), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_width_that_the_heads_do_not_divide_is_refused(build: Callable[..., Student]) -> None:
    with pytest.raises(ConfigError, match="student: width 32 is not a multiple of num_heads 3"):
        build(num_heads=3)


@pytest.mark.parametrize("name", ["type", "train", "keys", "half", "日本"])
def test_a_task_may_have_any_name(make_config: MakeConfig, tiny_data: Data, tmp_path: Path, name: str) -> None:
    config = make_config(("mood",))
    config = config.model_copy(update={"tasks": {name: config.tasks["mood"]}})
    student = make_student(config, {name: tiny_data["mood"]}, 0, tmp_path / "initial").eval()
    prepared = student.preparer(name)(tiny_data["mood"].train.views(range(3)))
    assert student({name: prepared})[name].shape == (3, 2)


def test_predictions_on_a_split_are_in_row_order_and_leave_the_mode_alone(
    build: Callable[..., Student], tiny_data: Data
) -> None:
    student = build().train()
    split = tiny_data["tones"].test
    logits = predict_split(student, "tones", split, batch_size=3)
    assert student.training and logits.shape == (len(split), 3) and logits.dtype == np.float32
    student.eval()
    with torch.no_grad():
        whole = student({"tones": student.preparer("tones")(split.views(range(len(split))))})["tones"]
    np.testing.assert_allclose(logits, whole.numpy(), atol=1e-5)
