"""How teachers are built: torchvision, transformers and one's own, and what is said when they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from raydistill.config.models import Config, TeacherConfig
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError
from raydistill.teachers.models import Network, build, count_parameters
from raydistill.teachers.teacher import load_teacher

Data = dict[str, TaskData]
RESNET = {"layers": [1, 1, 1, 1], "small_images": True}


def network_of(data: TaskData, loader: str, model: str, **more: Any) -> Network:
    torch.manual_seed(0)
    config = TeacherConfig.model_validate({"task": data.name, "loader": loader, "model": model, **more})
    return build("it", config, data.domain, data.settings, len(data.label_names), None)


def logits_of(network: Network, data: TaskData) -> torch.Tensor:
    network.module.eval()
    with torch.no_grad():
        return network.logits(network.prepare(data.train.views(range(4))))


@pytest.mark.parametrize(
    ("task", "loader", "model", "options"),
    [
        ("bands", "torchvision", "resnet", RESNET),
        ("bands", "torchvision", "mobilenet_v3_small", {}),
        ("bands", "python", "own_teachers:pixels", {"dropout": 0.5}),
        ("mood", "python", "own_teachers:words", {}),
        ("tones", "python", "own_teachers:loudness", {}),
        ("tones", "transformers", "wav2vec2", {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            **tiny.WAV2VEC2,
        }),
        ("bands", "transformers", "vit", {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "image_size": 16, "patch_size": 8,
        }),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_teacher_of_every_loader_answers(
    tiny_data: Data, task: str, loader: str, model: str, options: dict[str, Any]
) -> None:
    network = network_of(tiny_data[task], loader, model, options=options)
    logits = logits_of(network, tiny_data[task])
    assert logits.shape == (4, len(tiny.LABELS[task])) and torch.isfinite(logits).all()
    assert count_parameters(network.module) == sum(weight.numel() for weight in network.module.parameters())


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_a_pretrained_folder_gets_a_new_head_where_the_classes_differ(
    tiny_data: Data, tmp_path: Path, task: str
) -> None:
    folder = tiny.save_transformers(task, tmp_path / task, labels=tuple("abcde"), legacy_names=True)
    logits = logits_of(network_of(tiny_data[task], "transformers", str(folder)), tiny_data[task])
    assert logits.shape == (4, len(tiny.LABELS[task]))


def test_grey_pictures_get_a_one_channel_resnet_and_nothing_else(tiny_data: Data) -> None:
    grey = tiny_data["bands"].settings.model_copy(update={"grayscale": True})
    for options in (RESNET, {"layers": [1, 1, 1, 1]}):
        config = TeacherConfig(task="bands", loader="torchvision", model="resnet", options=options)
        network = build("it", config, "vision", grey, 3, None)
        assert network.prepare(tiny_data["bands"].train.views([0]))["pixel_values"].shape == (1, 1, 16, 16)
        assert network.module.eval()(pixel_values=torch.zeros(2, 1, 16, 16)).shape == (2, 3)
    config = TeacherConfig(task="bands", loader="torchvision", model="mobilenet_v3_small")
    with pytest.raises(TeacherError, match="ResNets only"):
        build("it", config, "vision", grey, 3, None)


def test_resolution_mean_and_rate_of_the_config_reach_the_preparation(tiny_data: Data) -> None:
    seen = network_of(
        tiny_data["bands"], "torchvision", "resnet", options=RESNET, image_size=24, image_mean=(0.0,) * 3,
        image_std=(1.0,) * 3,
    ).prepare(tiny_data["bands"].train.views(range(4)))["pixel_values"]  # fmt: skip
    assert seen.shape == (4, 3, 24, 24) and seen.min() >= 0 and seen.max() <= 1
    views = tiny_data["tones"].train.views(range(4))
    heard = network_of(tiny_data["tones"], "python", "own_teachers:loudness", sample_rate=4_000).prepare(views)
    longest = max(len(clip) for clip in views.inputs)
    assert heard["input_values"].shape[1] == pytest.approx(longest / 2, abs=1)


@pytest.mark.parametrize("num_samples", [1, 30])
def test_a_clip_shorter_than_the_first_convolutions_is_answered(tiny_data: Data, num_samples: int) -> None:
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    network = network_of(tiny_data["tones"], "transformers", "wav2vec2", options={**options, **tiny.WAV2VEC2})
    clip = np.full(num_samples, 0.1, np.float32)
    views = ViewBatch("speech", [clip], np.zeros(1, np.int64), np.arange(1), 0, tiny.RATE)
    with torch.no_grad():
        logits = network.logits(network.prepare(views))
    assert logits.shape == (1, 3) and torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("task", "loader", "model", "options", "reason"),
    [
        ("bands", "torchvision", "resnett", {}, "resnett"),
        ("bands", "torchvision", "resnet", {"layers": [1, 1]}, "resnet"),
        ("bands", "torchvision", "resnet18", {"no_such_option": 1}, "no_such_option"),
        ("bands", "transformers", "no_such_type", {}, "no_such_type"),
        ("mood", "transformers", "package:no_such_package/model", {}, "no_such_package"),
        ("mood", "transformers", "package:raydistill/no_such_folder", {}, "no_such_folder"),
        ("bands", "python", "no_such_module:make", {}, "no_such_module"),
        ("bands", "python", "own_teachers:no_such_function", {}, "no_such_function"),
        ("bands", "python", "own_teachers", {}, "own_teachers"),
        ("bands", "python", "own_teachers:pixels", {"no_such_option": 1}, "no_such_option"),
        ("mood", "python", "own_teachers:bare_words", {}, "Network with its tokenizer"),
    ],
)
def test_what_cannot_be_built_names_teacher_model_and_reason(
    tiny_data: Data, task: str, loader: str, model: str, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TeacherError) as caught:
        network_of(tiny_data[task], loader, model, options=options)
    text = str(caught.value)
    assert "teacher 'it'" in text and repr(model) in text and reason in text and "\n" not in text


@pytest.mark.parametrize("task", list(tiny.TASKS))
def test_a_folder_that_save_pretrained_wrote_is_a_checkpoint(
    make_config: Callable[..., Config], tiny_data: Data, tmp_path: Path, task: str
) -> None:
    folder = tiny.save_transformers(task, tmp_path / task, legacy_names=True)
    config = make_config((task,), teachers={"it": tiny.teacher_section(task, folder)})
    views = tiny_data[task].train.views(range(4))
    teacher = load_teacher(config, "it", tiny.LABELS[task])
    same = tiny.save_transformers(task, tmp_path / "same")
    expected = load_teacher(
        make_config((task,), teachers={"it": tiny.teacher_section(task, same)}), "it", tiny.LABELS[task]
    )
    np.testing.assert_array_equal(teacher.logits(views), expected.logits(views))
