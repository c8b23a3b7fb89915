"""One suite for every place that soft labels come from: the student must not be able to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny

from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.auto import AutoSource
from raydistill.soft_labels.source import SoftTargetSource, StepViews, total_cost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.labelling import LabelJob, label_split, training_views
from raydistill.teachers.local import LocalTeachers
from raydistill.teachers.pool.opening import Pools, open_pools
from raydistill.teachers.teacher import Teacher, load_teacher

Data = dict[str, TaskData]
TEACHERS = {"vit": "bands", "other-vit": "bands", "bert": "mood"}  # tones: a task without teacher
KINDS = ("local", "remote", "stored", "filling", "auto")


@pytest.fixture(scope="module")
def config(make_config: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("teachers")
    sections = {
        name: tiny.teacher_section(
            task, tiny.save_transformers(task, root / name, seed), window=3, placement={"num_cpus": 0.25}
        )
        for seed, (name, task) in enumerate(TEACHERS.items())
    }
    return make_config(teachers=sections, store={"path": str(tmp_path_factory.mktemp("labels"))})


@pytest.fixture(scope="module")
def teachers(config: Config) -> dict[str, Teacher]:
    return {name: load_teacher(config, name, tiny.LABELS[task]) for name, task in TEACHERS.items()}


@pytest.fixture(scope="module")
def pools(config: Config) -> Iterator[Pools]:
    """Ray, started once for this module and stopped after it."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with open_pools(config, tiny.LABELS, lambda line: None) as opened:
            yield opened
    finally:
        ray.shutdown()


def jobs(config: Config, teachers: dict[str, Teacher], data: Data) -> dict[str, LabelJob]:
    return {
        name: LabelJob(
            name, teachers[name].fingerprint, task, data[task].train, len(tiny.LABELS[task]),
            training_views(config.tasks[task]),
        )
        for name, task in TEACHERS.items()
    }  # fmt: skip


def tables_in(config: Config, folder: Path, teachers: dict[str, Teacher], data: Data) -> RunTables:
    """Of a store of one's own."""
    own = config.model_copy(update={"store": config.store.model_copy(update={"path": str(folder)})})
    return RunTables(own, {name: job.taught for name, job in jobs(config, teachers, data).items()})


@pytest.fixture(scope="module")
def stored(config: Config, teachers: dict[str, Teacher], tiny_data: Data) -> RunTables:
    """Every view that a student draws, labelled by the teachers in this process, through a store on disk."""
    made = jobs(config, teachers, tiny_data)
    for name, job in made.items():
        label_split(config, job, LocalTeachers({name: teachers[name]}), print, lambda line: None)
        cost = label_split(config, job, None, print, lambda line: None)
        assert cost.samples_cached == len(job.split) * len(job.views)
    return RunTables(config, {name: job.taught for name, job in made.items()})


@pytest.fixture(params=KINDS)
def source(
    request: pytest.FixtureRequest, config: Config, teachers: dict[str, Teacher], tiny_data: Data, tmp_path: Path
) -> Iterator[SoftTargetSource]:
    kind = request.param
    if kind == "local":
        made: SoftTargetSource = LabelStream(config, config.teachers, LocalTeachers(teachers))
    elif kind == "remote":
        made = LabelStream(config, config.teachers, request.getfixturevalue("pools").client())
    elif kind == "stored":
        made = LabelStream(config, config.teachers, None, request.getfixturevalue("stored"))
    else:
        tables = tables_in(config, tmp_path, teachers, tiny_data)
        made = LabelStream(config, config.teachers, LocalTeachers(teachers), tables)
        if kind == "auto":
            ways = {"remote": request.getfixturevalue("pools").client, "local": lambda: LocalTeachers(teachers)}
            made = AutoSource(made, ways)
    yield made
    made.close()


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
    cost = total_cost(source.cost().values())
    assert (cost.samples, cost.samples_cached, cost.busy_s) == (0, 0, 0.0)


def test_cost_counts_every_row_once_a_teacher(
    source: SoftTargetSource, tiny_data: Data, request: pytest.FixtureRequest
) -> None:
    asked = micro_batches(tiny_data, 6)
    for _ in source.stream(asked):
        pass
    rows = sum(2 * len(step_views["bands"]) + len(step_views["mood"]) for step_views in asked)
    cost = total_cost(source.cost().values())
    assert cost.samples + cost.samples_cached == rows
    if source.way == "stored":
        assert (cost.samples, cost.busy_s) == (0, 0.0)
    else:
        assert cost.samples > 0 and cost.busy_s > 0
        if isinstance(source, LabelStream) and source.tables is None:
            assert cost.samples_cached == 0


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


def test_actors_are_the_teachers_of_this_process_by_fingerprint(pools: Pools, teachers: dict[str, Teacher]) -> None:
    for name, described in pools.descriptions.items():
        assert {key: described[key] for key in teachers[name].describe()} == teachers[name].describe()
