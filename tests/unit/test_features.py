"""What layers say, of teachers and of students, and what one learns from the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import torchvision
from torch import nn

from raydistill.commands.students import make_student
from raydistill.config.distill import FeatureConfig
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import ConfigError, TeacherError
from raydistill.soft_labels.layers import Layer, layers_asked
from raydistill.student.model import Student
from raydistill.teachers.features import channels_first, channels_last, mean_over_positions, tapped
from raydistill.teachers.teacher import Teacher, load_teacher
from raydistill.training.features import FeatureMatcher, Heard, StudentTaps, make_matchers

Data = dict[str, TaskData]
LAYERS = {"bands": "vit.encoder.layer.0", "mood": "bert.encoder.layer.0", "tones": "wav2vec2.feature_extractor"}


@pytest.fixture
def teacher_of(make_config: Callable[..., Config], tmp_path: Path) -> Callable[[str], Teacher]:
    def load(task: str) -> Teacher:
        folder = str(tiny.save_transformers(task, tmp_path / task))
        section = {"task": task, "loader": "transformers", "model": folder, "checkpoint": folder}
        return load_teacher(make_config(teachers={"it": section}), "it", tiny.LABELS[task])

    return load


def layer_of(teacher: Teacher, *words: str) -> str:
    """Its first module with such a name."""
    return next(name for name, _ in teacher.network.module.named_modules() if all(word in name for word in words))


def test_a_layer_is_heard_beside_the_same_logits(teacher_of: Callable[[str], Teacher], tiny_data: Data) -> None:
    teacher, views = teacher_of("mood"), tiny_data["mood"].train.views(range(5))
    layer = Layer(layer_of(teacher, "encoder.layer.0"))
    logits, features = teacher.answer(views, (layer,))
    np.testing.assert_array_equal(logits, teacher.logits(views))
    assert features[layer].shape == (5, 16) and features[layer].dtype == np.float16
    # Padding has no part in the mean: alone, a short text says the same.
    short = int(np.argmin([len(text) for text in views.inputs]))
    alone = teacher.answer(views.take(np.array([short])), (layer,))[1][layer]
    np.testing.assert_allclose(features[layer][short], alone[0], atol=5e-3)


def test_pictures_keep_their_positions_where_asked(teacher_of: Callable[[str], Teacher], tiny_data: Data) -> None:
    teacher, views = teacher_of("bands"), tiny_data["bands"].train.views(range(3))
    name = layer_of(teacher, "patch_embeddings", "projection")  # a convolution: [batch, channels, 2, 2]
    pooled, mapped = Layer(name), Layer(name, positions=True)
    features = teacher.answer(views, (pooled, mapped))[1]
    assert features[mapped].shape == (3, 4, 16)
    np.testing.assert_allclose(features[mapped].astype(np.float32).mean(axis=1), features[pooled], atol=1e-2)


def test_sound_of_convolutions_has_its_channels_first(teacher_of: Callable[[str], Teacher], tiny_data: Data) -> None:
    teacher, views = teacher_of("tones"), tiny_data["tones"].train.views(range(3))
    conv = Layer(layer_of(teacher, "feature_extractor", "conv_layers.0"))
    deep = Layer(layer_of(teacher, "encoder.layers.0"))
    features = teacher.answer(views, (conv, deep))[1]
    module = dict(teacher.network.module.named_modules())[conv.name]
    assert channels_first(module) and features[conv].shape == (3, module.conv.out_channels)
    assert features[deep].shape == (3, 16)
    assert not channels_first(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(2, 2)))


def test_pictures_are_read_whichever_side_their_channels_are_on() -> None:
    """Between the blocks of a Swin transformer they are last, of a ConvNeXt first."""
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = {"swin_t": ("features.1", 96, 256), "convnext_tiny": ("features.1", 96, 256)}
    for model, (name, channels, positions) in layers.items():
        network = torchvision.models.get_model(model, weights=None).eval()
        layer, mapped = Layer(name), Layer(name, positions=True)
        with torch.no_grad(), tapped("it", network, (layer, mapped)) as taps:
            network(pixels)
        found = taps.features(None, 2)
        assert found[layer].shape == (2, channels) and found[mapped].shape == (2, positions, channels)
        np.testing.assert_allclose(found[mapped].astype(np.float32).mean(axis=1), found[layer], atol=1e-2)
    flat = torch.zeros(1, 8, 8, 8)
    assert channels_last(nn.Linear(8, 8), flat) and not channels_last(nn.Conv2d(8, 8, 1), flat)


@pytest.mark.parametrize(
    ("name", "positions", "words"),
    [
        ("bert.encoder.layer.9", False, ["no layer 'bert.encoder.layer.9'", "did you mean"]),
        ("", False, ["no layer ''", "among its layers"]),
        ("classifier", True, ["classifier", "no positions"]),
    ],
)
def test_layers_that_are_not_there_or_say_nothing_of_use_are_named(
    teacher_of: Callable[[str], Teacher], tiny_data: Data, name: str, positions: bool, words: list[str]
) -> None:
    with pytest.raises(TeacherError) as caught:
        teacher_of("mood").answer(tiny_data["mood"].train.views(range(2)), (Layer(name, positions),))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_layer_that_is_not_passed_is_an_error_and_hooks_are_taken_off() -> None:
    module = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    with pytest.raises(TeacherError, match="does not call layer 'idle'"), tapped("it", module, (Layer("idle"),)):
        module["used"](torch.zeros(1, 2))
    assert not module["idle"]._forward_hooks


def test_the_mean_is_over_real_positions_where_the_mask_is_of_them() -> None:
    values = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = torch.stack([values[0, :2].mean(dim=0), values[1, 0]])
    torch.testing.assert_close(mean_over_positions(values, mask), expected)
    torch.testing.assert_close(mean_over_positions(values, mask[:, :2]), values.mean(dim=1))


FEATURES = {
    "words": {"teacher": "t-mood", "teacher_layer": "deep", "student_layer": "trunk.blocks.0", "loss": "hint"},
    "sight": {"teacher": "t-bands", "teacher_layer": "map", "student_layer": "trunk", "loss": "attention"},
    "sound": {"teacher": "t-tones", "teacher_layer": "deep", "student_layer": "stems.speech", "loss": "cka"},
}
SHAPES = {"words": (7,), "sight": (9, 5), "sound": (4,)}


@pytest.fixture
def config_of(make_config: Callable[..., Config]) -> Callable[..., Config]:
    def make(**features: Any) -> Config:
        teachers = {f"t-{task}": {"task": task, "loader": "python", "model": "nobody:asks"} for task in tiny.TASKS}
        return make_config(teachers=teachers, distill={"features": {**FEATURES, **features}})

    return make


def matched(config: Config, data: Data, folder: Path, **shapes: tuple[int, ...]) -> dict[str, FeatureMatcher]:
    make_student(config, data, 0, folder)
    student = Student.from_pretrained(str(folder))
    return make_matchers(config, student, {n: t.train.views(range(2)) for n, t in data.items()}, {**SHAPES, **shapes})


def test_layers_are_asked_for_once_and_with_positions_where_a_loss_wants_them(config_of: Callable[..., Config]) -> None:
    again = {**FEATURES["words"], "loss": "cka"}
    asked = layers_asked(config_of(again=again).distill)
    assert asked == {"t-mood": (Layer("deep"),), "t-bands": (Layer("map", True),), "t-tones": (Layer("deep"),)}


def test_projectors_are_sized_by_what_both_layers_give(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    matchers = matched(config_of(), tiny_data, tmp_path / "student")
    assert matchers["words"].projector.weight.shape == (7, tiny.STUDENT["width"])
    assert matchers["sight"].projector is None and matchers["sound"].projector is None


def test_every_layer_is_heard_for_its_own_task(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    make_student(config_of(), tiny_data, 0, tmp_path / "student")
    student = Student.from_pretrained(str(tmp_path / "student")).eval()
    inputs = {name: student.preparer(name)(task.train.views(range(3))) for name, task in tiny_data.items()}
    with StudentTaps(student, {"trunk", "stems.text"}).listening() as heard:
        student(inputs)
    assert heard.keys() == {("mood", "stems.text"), *((task, "trunk") for task in tiny.TASKS)}
    for task in tiny.TASKS:
        found = heard[task, "trunk"]
        with StudentTaps(student, {"trunk"}).listening() as alone:
            student({task: inputs[task]})
        torch.testing.assert_close(found.pooled(), alone[task, "trunk"].pooled())
    assert heard["mood", "trunk"].mask is not None and not student.trunk._forward_hooks


@pytest.mark.parametrize(
    ("change", "shape", "words"),
    [
        ({"student_layer": "trunk.block.0"}, (7,), ["no layer 'trunk.block.0'", "did you mean 'trunk.blocks.0'"]),
        ({"student_layer": "stems.vision"}, (7,), ["task 'mood' does not pass", "stems.vision"]),
        ({"student_layer": "heads"}, (7,), ["does not pass", "heads"]),
        ({"loss": "attention"}, (4, 7), ["trunk.blocks.0", "deep", "t-mood", "no common positions"]),
    ],
)
def test_layers_that_cannot_be_held_against_each_other_are_both_named(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path, change: Any, shape: Any, words: list[str]
) -> None:
    config = config_of(words={**FEATURES["words"], **change})
    with pytest.raises(ConfigError) as caught:
        matched(config, tiny_data, tmp_path / "student", words=shape)
    assert all(word in str(caught.value) for word in words), caught.value


def test_positions_with_a_class_token_are_no_square(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"'trunk' \[\d+, 32\] and layer 'map'.*10 positions of the teacher"):
        matched(config_of(), tiny_data, tmp_path / "student", sight=(10, 5))


@pytest.mark.parametrize("loss", ["hint", "contrastive", "rkd_distance", "cka", "attention"])
def test_gradients_flow_through_the_projector_and_are_right(loss: str) -> None:
    torch.manual_seed(0)
    config = FeatureConfig.model_validate({"teacher": "it", "teacher_layer": "deep", "loss": loss})
    mapped = loss == "attention"
    matcher = FeatureMatcher(config, 3, (4, 5) if mapped else (5,), square=True).double()
    teacher = torch.randn(4, 4, 5, dtype=torch.float64) if mapped else torch.randn(4, 5, dtype=torch.float64)
    tokens = torch.randn(4, 4, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] * 4, [True] * 3 + [False]])

    def loss_of(tokens: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        return matcher(Heard(tokens, None if mapped else mask), teacher)

    assert torch.autograd.gradcheck(loss_of, (tokens, *matcher.parameters()), atol=1e-6)
    (gradient,) = torch.autograd.grad(loss_of(tokens), tokens)
    assert gradient[0].abs().sum() > 0
    if not mapped:
        assert (gradient[1, 2:] == 0).all()  # padding
