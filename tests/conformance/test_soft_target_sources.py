"""One suite for every place that soft labels come from: the student must not be able to tell them apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.source import SoftTargetSource, StepViews
from raydistill.soft_labels.store import LabelStore, StoredSource
from raydistill.teachers.labelling import LabelJob, label_split, training_views
from raydistill.teachers.local import LocalSource
from raydistill.teachers.remote import RemoteSource, start_teachers, stop_teachers
from raydistill.teachers.teacher import Teacher, load_teacher

Data = dict[str, TaskData]
TEACHERS = {"vit": "bands", "other-vit": "bands", "bert": "mood"}  # tones: a task without teacher
KINDS = ("local", "remote", "stored")


@pytest.fixture(scope="module")
def config(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("teachers")
    sections = {
        name: tiny.teacher_section(
            task, tiny.save_transformers(task, root / name, seed), window=3, placement={"num_cpus": 0.25}
        )
        for seed, (name, task) in enumerate(TEACHERS.items())
    }
    return make_config(teachers=sections)


@pytest.fixture(scope="module")
def teachers(config: Config) -> dict[str, Teacher]:
    return {name: load_teacher(config, name, tiny.LABELS[task]) for name, task in TEACHERS.items()}


@pytest.fixture(scope="module")
def actors(config: Config) -> Iterator[dict[str, Any]]:
    """Ray, started once for this module and stopped after it."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    handles: dict[str, Any] = {}
    try:
        handles, descriptions = start_teachers(config, tiny.LABELS)
        assert len({each["pid"] for each in descriptions.values()} | {os.getpid()}) == len(TEACHERS) + 1
        yield handles
    finally:
        stop_teachers(handles)
        ray.shutdown()


@pytest.fixture(scope="module")
def stored(
    config: Config, teachers: dict[str, Teacher], tiny_data: Data, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[int, Any]]]:
    """Every view that a student draws, labelled by the teachers in this process, through a store on disk."""
    store = LabelStore(tmp_path_factory.mktemp("labels"))
    found: dict[str, dict[str, dict[int, Any]]] = {}
    for name, task in TEACHERS.items():
        for view in training_views(config.tasks[task]):
            job = LabelJob(name, teachers[name].fingerprint, task, tiny_data[task].train, view, 8)
            label_split(job, LocalSource({name: teachers[name]}), store, lambda line: None)
            logits, cost = label_split(job, LocalSource({}), store, lambda line: None)
            assert cost.samples_cached == len(tiny_data[task].train)
            found.setdefault(task, {}).setdefault(name, {})[view] = logits
    return found


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, config: Config, teachers: dict[str, Teacher]) -> SoftTargetSource:
    kind = request.param
    if kind == "local":
        return LocalSource(teachers)
    if kind == "remote":
        return RemoteSource(request.getfixturevalue("actors"), config.teachers)
    return StoredSource(request.getfixturevalue("stored"))


def micro_batches(data: Data, count: int, tasks: tuple[str, ...] = ("bands", "mood")) -> list[StepViews]:
    """Batches of unlike rows, sizes and views, in an order that no sorting would give."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        step_views = {}
        for task in tasks:
            rows = generator.choice(len(data[task].train), 2 + number % 5, replace=False)
            step_views[task] = data[task].train.views(rows, 0 if task == "mood" else 1 + number % 2)
        made.append(step_views)
    return made


def test_every_batch_comes_back_in_order_with_the_teachers_own_logits(
    source: SoftTargetSource, teachers: dict[str, Teacher], tiny_data: Data
) -> None:
    asked = micro_batches(tiny_data, 8)
    answered = list(source.stream(asked))
    assert len(answered) == len(asked)
    for step_views, (same, targets) in zip(asked, answered, strict=True):
        assert same is step_views
        assert targets.keys() == {"bands", "mood"}
        assert list(targets["bands"].logits) == ["vit", "other-vit"] and list(targets["mood"].logits) == ["bert"]
        for task, views in step_views.items():
            for name, logits in targets[task].logits.items():
                expected = teachers[name].logits(views)
                assert logits.dtype == np.float16 and logits.shape == expected.shape
                # Stored labels come from other batches: the sums inside a matrix product may be ordered otherwise.
                np.testing.assert_allclose(
                    logits.astype(np.float32), expected.astype(np.float32), atol=2e-2, err_msg=name
                )
            fused = np.mean([each.astype(np.float64) for each in targets[task].logits.values()], axis=0)
            np.testing.assert_allclose(targets[task].fused(), fused, atol=1e-3)


def test_two_teachers_of_a_task_do_not_say_the_same(source: SoftTargetSource, tiny_data: Data) -> None:
    (_, targets), *_ = source.stream(micro_batches(tiny_data, 1))
    said = targets["bands"].logits
    assert np.abs(said["vit"].astype(np.float32) - said["other-vit"].astype(np.float32)).max() > 0.1


def test_a_task_without_teacher_has_no_targets(source: SoftTargetSource, tiny_data: Data) -> None:
    for step_views, targets in source.stream(micro_batches(tiny_data, 3, ("tones", "mood"))):
        assert step_views.keys() == {"tones", "mood"} and targets.keys() == {"mood"}
    assert [targets for _, targets in source.stream(micro_batches(tiny_data, 2, ("tones",)))] == [{}, {}]


def test_an_empty_stream_is_answered_by_nothing(source: SoftTargetSource) -> None:
    assert list(source.stream([])) == []
    assert (source.cost().samples, source.cost().samples_cached, source.cost().busy_s) == (0, 0, 0.0)


def test_cost_counts_every_row_once_a_teacher(
    source: SoftTargetSource, tiny_data: Data, request: pytest.FixtureRequest
) -> None:
    asked = micro_batches(tiny_data, 6)
    for _ in source.stream(asked):
        pass
    rows = sum(2 * len(step_views["bands"]) + len(step_views["mood"]) for step_views in asked)
    cost = source.cost()
    if isinstance(source, StoredSource):
        assert (cost.samples, cost.samples_cached, cost.busy_s) == (0, rows, 0.0)
    else:
        assert (cost.samples, cost.samples_cached) == (rows, 0) and cost.busy_s > 0


def test_a_stream_may_be_left_and_another_begun(
    source: SoftTargetSource, teachers: dict[str, Teacher], tiny_data: Data
) -> None:
    first, second = micro_batches(tiny_data, 6)[:5], micro_batches(tiny_data, 6)[5:]
    left = source.stream(first)
    next(left)
    left.close()  # type: ignore[attr-defined]
    ((_, targets),) = source.stream(second)
    expected = teachers["bert"].logits(second[0]["mood"])
    np.testing.assert_allclose(
        targets["mood"].logits["bert"].astype(np.float32), expected.astype(np.float32), atol=2e-2
    )


def test_reading_ahead_is_bounded(source: SoftTargetSource, tiny_data: Data, config: Config) -> None:
    drawn = 0

    def batches() -> Iterator[StepViews]:
        nonlocal drawn
        for step_views in micro_batches(tiny_data, 10):
            drawn += 1
            yield step_views

    for answered, _ in enumerate(source.stream(batches()), start=1):
        assert answered <= drawn <= answered + max(teacher.window for teacher in config.teachers.values())
    assert drawn == 10


def test_closing_twice_is_fine(source: SoftTargetSource, tiny_data: Data) -> None:
    for _ in source.stream(micro_batches(tiny_data, 1)):
        pass
    cost = source.cost()
    source.close()
    source.close()
    assert source.cost() == cost


def test_a_source_that_owns_its_actors_ends_them_once(config: Config, actors: dict[str, Any]) -> None:
    import ray

    only = config.model_copy(update={"teachers": {"bert": config.teachers["bert"]}})
    own, descriptions = start_teachers(only, tiny.LABELS)
    process = psutil.Process(descriptions["bert"]["pid"])
    source = RemoteSource(own, only.teachers, owned=True)
    source.close()
    source.close()
    process.wait(timeout=60)
    assert ray.get(actors["bert"].describe.remote(), timeout=30)["name"] == "bert"


def test_actors_are_the_teachers_of_this_process_by_fingerprint(
    actors: dict[str, Any], teachers: dict[str, Teacher], tmp_path: Path
) -> None:
    import ray

    for name, actor in actors.items():
        described = ray.get(actor.describe.remote(), timeout=30)
        assert {key: described[key] for key in teachers[name].describe()} == teachers[name].describe()
