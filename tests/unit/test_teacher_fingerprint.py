"""The fingerprint of a teacher changes with whatever changes its word, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.config.models import Config, TeacherConfig
from raydistill.data.dataset import TaskData
from raydistill.teachers.checkpoints import save_teacher, teacher_folder
from raydistill.teachers.models import build
from raydistill.teachers.teacher import load_teacher

MakeConfig = Callable[..., Config]


@pytest.fixture
def print_of(make_config: MakeConfig, tiny_data: dict[str, TaskData], tmp_path: Path) -> Callable[..., str]:
    """The fingerprint of a teacher that was built with `seed`, saved and loaded."""

    def fingerprint(
        task: str = "bands", labels: tuple[str, ...] | None = None, seed: int = 0, nudge: float = 0.0, **more: Any
    ) -> str:
        section = {"task": task, "loader": "python", "precision": "fp32", **more}
        section.setdefault("model", {"bands": "own_teachers:pixels", "tones": "own_teachers:loudness"}.get(task))
        data = tiny_data[task]
        torch.manual_seed(seed)
        network = build(
            "it", TeacherConfig.model_validate(section), data.domain, data.settings, len(data.label_names), None
        )
        with torch.no_grad():
            next(iter(network.module.parameters())).flatten()[0] += nudge
        save_teacher(network, tmp_path / "it", {"label_names": list(data.label_names)})
        config = make_config((task,), teachers={"it": {**section, "checkpoint": str(tmp_path / "it")}})
        return load_teacher(config, "it", labels or data.label_names).fingerprint

    return fingerprint


def test_the_same_teacher_has_the_same_fingerprint_wherever_it_runs(print_of: Callable[..., str]) -> None:
    elsewhere = print_of(batch_size=7, window=2, timeout_s=5.0, placement={"num_cpus": 2.0})
    assert print_of() == elsewhere


def test_fingerprint_changes_with_weights_labels_preparation_and_precision(print_of: Callable[..., str]) -> None:
    prints = [
        print_of(),
        print_of(seed=1),
        print_of(nudge=1e-3),
        print_of(labels=("top", "middle", "bottom")),
        print_of(image_size=24),
        print_of(image_mean=(0.0, 0.0, 0.0)),
        print_of(image_std=(1.0, 1.0, 1.0)),
        print_of(precision="bf16"),
        print_of("tones"),
        print_of("tones", sample_rate=4_000),
        print_of("mood", model="own_teachers:words"),
        print_of("mood", model="own_teachers:words", options={"lowercase": False}),
    ]
    assert len(set(prints)) == len(prints)


def test_a_teachers_place_in_the_cache_changes_with_its_training_and_not_with_its_placement(
    make_config: MakeConfig,
) -> None:
    section = {"task": "bands", "loader": "python", "model": "own_teachers:pixels", "train": {"num_epochs": 1}}

    def place(**more: Any) -> Path:
        return teacher_folder(make_config(teachers={"it": {**section, **more}}), "it")

    assert place() == place(batch_size=3, window=9, timeout_s=1.0, placement={"num_gpus": 1.0}, allow_chance_level=True)
    assert place() == place(train={"num_epochs": 1, "placement": {"num_cpus": 3.0}})
    others = [place(), place(train={"num_epochs": 2}), place(options={"dropout": 0.1}), place(image_size=8)]
    assert len(set(others)) == len(others)
    assert place(checkpoint="~/mine") == Path("~/mine").expanduser()
