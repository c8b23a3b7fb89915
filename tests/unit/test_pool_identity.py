"""The identity of a pool: equal for runs that may share, another one as soon as an answer could differ."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pool_teachers
import pytest
import tiny

from raydistill.config.data import TaskConfig
from raydistill.config.models import Config
from raydistill.errors import TeacherError
from raydistill.teachers.pool.canary import ROWS, TOLERANCE, canary_views, difference
from raydistill.teachers.pool.identity import content_digest, pool_id, pool_spec


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return pool_teachers.pool_config(tmp_path, "one")


def identity(config: Config) -> str:
    return pool_id(config, "one", pool_teachers.LABELS)


def changed(config: Config, path: str, value: Any) -> Config:
    content = config.model_dump(mode="json")
    *parents, last = path.split(".")
    section = content
    for name in parents:
        section = section[name]
    section[last] = value
    return Config.model_validate(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "another-run"), ("seed", 7), ("training.batch_size", 5), ("distill.temperature", 9.0),
        ("teachers.one.window", 9), ("teachers.one.timeout_s", 9.0), ("teachers.one.min_replicas", 3),
        ("tasks.digits.data.num_views", 5), ("tasks.digits.data.path", "/elsewhere"), ("cache_dir", "/elsewhere"),
        ("teachers.one.placement.num_cpus", 2),
    ],
)  # fmt: skip
def test_what_changes_no_answer_changes_no_identity(config: Config, path: str, value: Any) -> None:
    assert identity(changed(config, path, value)) == identity(config)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("teachers.one.options", {"folder": "/elsewhere"}), ("teachers.one.image_size", 9),
        ("teachers.one.image_mean", [0.1]), ("teachers.one.precision", "bf16"), ("teachers.one.label_names", None),
        ("teachers.one.placement.num_gpus", 1), ("tasks.digits.data.image_size", 9),
        ("tasks.digits.data.grayscale", False), ("teachers.one.max_batch_size", 64),
    ],
)  # fmt: skip
def test_what_may_change_an_answer_changes_the_identity(config: Config, path: str, value: Any) -> None:
    assert identity(changed(config, path, value)) != identity(config)


def test_the_order_of_labels_belongs_to_it(config: Config) -> None:
    assert pool_id(config, "one", ("c", "b", "a")) != identity(config)


def test_it_follows_the_weights_and_not_their_place(config: Config, tmp_path: Path) -> None:
    weights = Path(config.teachers["one"].checkpoint or "")
    before = identity(config)
    shutil.copy(weights, tmp_path / "copy.safetensors")
    assert identity(changed(config, "teachers.one.checkpoint", str(tmp_path / "copy.safetensors"))) == before
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    os.utime(weights, ns=(1, 1))
    assert identity(config) != before


def test_a_folder_counts_what_can_change_an_answer(tmp_path: Path) -> None:
    folder = tiny.save_transformers("mood", tmp_path / "mood")
    before = content_digest(folder)
    (folder / "optimizer.pt").write_bytes(b"large")
    (folder / "logs").mkdir()
    assert content_digest(folder) == before
    (folder / "tokenizer_config.json").write_text("{}")
    assert content_digest(folder) != before


def test_a_missing_checkpoint_is_named(config: Config) -> None:
    with pytest.raises(TeacherError, match="teacher 'one': no weights at /nowhere"):
        identity(changed(config, "teachers.one.checkpoint", "/nowhere"))


def test_a_spec_survives_the_way_to_another_process(config: Config) -> None:
    spec = pool_spec(config, "one", pool_teachers.LABELS)
    again = pickle.loads(pickle.dumps(spec))
    assert again.id == spec.id
    assert again.settings == config.teachers["one"]
    np.testing.assert_array_equal(again.canary.inputs, spec.canary.inputs)


@pytest.mark.parametrize("name", list(tiny.TASKS))
def test_the_canary_is_the_same_everywhere_and_fits_its_task(name: str, make_config: Any) -> None:
    task: TaskConfig = make_config().tasks[name]
    one, other = canary_views(task), canary_views(task)
    assert len(one) == ROWS
    assert one.domain == task.domain
    for left, right in zip(one.inputs, other.inputs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_difference_is_a_share_of_the_largest_logit() -> None:
    reference = np.array([[100.0, -2.0]], np.float16)
    assert difference(reference, reference) == 0
    assert difference(np.array([[101.0, -2.0]], np.float16), reference) == pytest.approx(0.01)
    assert difference(np.array([[100.0, 2.0]], np.float16), reference) > TOLERANCE
    assert difference(np.array([[np.nan, 2.0]], np.float16), reference) == np.inf
    assert difference(reference[:, :1], reference) == np.inf
