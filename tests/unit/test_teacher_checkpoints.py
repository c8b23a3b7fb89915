"""A teacher is loaded loudly: every weight, every label, or an error that names what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError
from raydistill.teachers.checkpoints import match_labels, save_teacher
from raydistill.teachers.models import build
from raydistill.teachers.teach import untrained
from raydistill.teachers.teacher import Teacher, load_teacher

MakeConfig = Callable[..., Config]
Data = dict[str, TaskData]
WEIGHTS = "model.safetensors"


@pytest.fixture
def load(make_config: MakeConfig) -> Callable[..., Teacher]:
    def make(folder: Path, task: str = "bands", labels: tuple[str, ...] | None = None, **more: Any) -> Teacher:
        section = {**tiny.teacher_section(task, folder), **more}
        return load_teacher(make_config((task,), teachers={"it": section}), "it", labels or tiny.LABELS[task])

    return make


@pytest.fixture
def vit(tmp_path: Path) -> Path:
    return tiny.save_transformers("bands", tmp_path / "vit")


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / WEIGHTS)
    edit(weights)
    save_file(weights, folder / WEIGHTS)


def misshape(weights: dict[str, torch.Tensor]) -> None:
    weights["classifier.weight"] = torch.zeros(7, 16)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda weights: weights.pop("classifier.bias"), "1 missing (classifier.bias)"),
        (lambda weights: weights.update(surprise=torch.zeros(1)), "1 unexpected (surprise)"),
        (misshape, "1 of another shape (classifier.weight)"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_weights_that_do_not_fit_are_named(
    load: Callable[..., Teacher], vit: Path, edit: Callable[[dict[str, torch.Tensor]], object], said: str
) -> None:
    load(vit)
    change(vit, edit)
    with pytest.raises(TeacherError) as caught:
        load(vit)
    assert "teacher 'it'" in str(caught.value) and said in str(caught.value)


def test_weights_of_another_architecture_are_refused(load: Callable[..., Teacher], vit: Path) -> None:
    with pytest.raises(TeacherError, match="do not fit TorchvisionClassifier"):
        load(
            vit,
            loader="torchvision",
            model="resnet",
            options={"layers": [1, 1, 1, 1]},
            label_names=tiny.LABELS["bands"],
        )


def test_a_file_that_is_not_safetensors_is_refused(load: Callable[..., Teacher], vit: Path) -> None:
    (vit / WEIGHTS).write_bytes(b"a pickle, perhaps")
    with pytest.raises(TeacherError, match="not a readable safetensors file"):
        load(vit)


def test_a_folder_without_weights_is_named(load: Callable[..., Teacher], vit: Path) -> None:
    (vit / WEIGHTS).unlink()
    with pytest.raises(TeacherError, match=r"no weights at .*vit"):
        load(vit)


def test_plain_torchvision_weights_fit_as_a_file(load: Callable[..., Teacher], tmp_path: Path, tiny_data: Data) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "plain.safetensors")
    teacher = load(
        tmp_path / "plain.safetensors", loader="torchvision", model="resnet18", label_names=tiny.LABELS["bands"]
    )
    views = tiny_data["bands"].train.views(range(3))
    with torch.no_grad():
        expected = network(teacher.network.prepare(views)["pixel_values"])
    np.testing.assert_allclose(teacher.logits(views), expected.numpy(), atol=1e-2)


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_labels_are_matched_by_name_so_that_a_permuted_teacher_says_the_same(
    load: Callable[..., Teacher], tiny_data: Data, tmp_path: Path, task: str
) -> None:
    names = tiny.LABELS[task]
    turned = names[1:] + names[:1]
    views = tiny_data[task].train.views(range(6))
    plain = load(tiny.save_transformers(task, tmp_path / "plain"), task)
    folder = tiny.save_transformers(task, tmp_path / "turned", labels=turned)
    order = [names.index(label) for label in turned]

    def turn(weights: dict[str, torch.Tensor]) -> None:
        for key in ("classifier.weight", "classifier.bias"):
            weights[key] = weights[key][order].clone()

    change(folder, turn)
    teacher = load(folder, task)
    np.testing.assert_allclose(teacher.logits(views), plain.logits(views), atol=1e-2)
    np.testing.assert_allclose(
        load(folder, task, labels=turned).logits(views)[:, 0], plain.logits(views)[:, 1], atol=1e-2
    )
    assert teacher.fingerprint != plain.fingerprint


def test_other_labels_are_refused_with_both_lists(load: Callable[..., Teacher], tmp_path: Path) -> None:
    folder = tiny.save_transformers("bands", tmp_path / "vit", labels=("top", "left", "bottom"))
    with pytest.raises(TeacherError) as caught:
        load(folder)
    assert "['top', 'left', 'bottom']" in str(caught.value) and "['bottom', 'middle', 'top']" in str(caught.value)
    assert load(folder, label_names=("top", "middle", "bottom")).num_parameters > 0


def test_a_checkpoint_that_names_no_labels_asks_for_them(load: Callable[..., Teacher], vit: Path) -> None:
    with pytest.raises(TeacherError, match=r"teachers\.it\.label_names"):
        load(vit / WEIGHTS, model=str(vit))


@pytest.mark.parametrize("given", [("a", "a"), ("a",), ("a", "b", "c")])
def test_doubled_missing_or_surplus_labels_do_not_match(given: tuple[str, ...]) -> None:
    with pytest.raises(TeacherError, match="labels"):
        match_labels("it", "task", given, ("a", "b"))


def test_logits_are_half_precision_and_finite_even_for_a_teacher_that_shouts(
    load: Callable[..., Teacher], vit: Path, tiny_data: Data
) -> None:
    change(vit, lambda weights: weights.update({"classifier.bias": torch.tensor([1e30, -1e30, 0.0])}))
    logits = load(vit).logits(tiny_data["bands"].train.views(range(3)))
    assert logits.dtype == np.float16 and np.isfinite(logits).all()
    assert (logits.argmax(axis=1) == 0).all()


def test_a_saved_teacher_says_the_same_when_loaded(make_config: MakeConfig, tiny_data: Data, tmp_path: Path) -> None:
    bert = str(tiny.save_transformers("mood", tmp_path / "bert"))
    sections = {
        "resnet": {"task": "bands", "loader": "torchvision", "model": "resnet", "options": {"layers": [1, 1, 1, 1]}},
        "own": {"task": "bands", "loader": "python", "model": "own_teachers:pixels"},
        "tied": {"task": "bands", "loader": "python", "model": "own_teachers:tied"},
        "words": {"task": "mood", "loader": "python", "model": "own_teachers:words"},
        "bert": {"task": "mood", "loader": "transformers", "model": bert},
    }  # fmt: skip
    for name, section in sections.items():
        config = make_config(teachers={name: {**section, "checkpoint": str(tmp_path / name), "precision": "fp32"}})
        data = tiny_data[section["task"]]
        torch.manual_seed(1)
        network = build(name, config.teachers[name], data.domain, data.settings, len(data.label_names), None)
        save_teacher(network, tmp_path / name, {"label_names": list(data.label_names)})
        loaded = load_teacher(config, name, data.label_names)
        network.module.eval()
        views = data.train.views(range(5))
        with torch.no_grad():
            expected = network.logits(network.prepare(views)).numpy().astype(np.float16)
        np.testing.assert_array_equal(loaded.logits(views), expected, err_msg=name)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_named_checkpoint_must_be_there_and_a_teacher_without_one_needs_training(
    make_config: MakeConfig, tiny_data: Data, tmp_path: Path
) -> None:
    section = {"task": "bands", "loader": "python", "model": "own_teachers:pixels"}
    with pytest.raises(TeacherError, match=r"no checkpoint at .*nowhere"):
        untrained(make_config(teachers={"it": {**section, "checkpoint": str(tmp_path / "nowhere")}}), tiny_data)
    with pytest.raises(TeacherError, match="neither checkpoint nor train"):
        untrained(make_config(teachers={"it": section}), tiny_data)
    assert untrained(make_config(teachers={"it": {**section, "train": {}}}), tiny_data) == ["it"]
