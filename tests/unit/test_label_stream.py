"""The stream of soft labels: asked once, kept, shared with other runs, and going on without a lost teacher."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.errors import SoftLabelError, TeacherGone
from raydistill.soft_labels.layers import NO_LAYERS, Layer, Layers, layers_asked, layers_kept
from raydistill.soft_labels.source import Answer, StepViews, total_cost
from raydistill.soft_labels.store import LabelTable
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit

Data = dict[str, TaskData]
LOST_AFTER = 3  # requests


class Counting:
    """A labeller whose answer is a function of the row, and that counts how often it was asked about each."""

    way = "local"

    def __init__(self, num_rows: int, lost_after: int | None = None, seconds: float = 0.0) -> None:
        self.asked, self.seconds = np.zeros(num_rows, dtype=int), seconds
        self.requests, self.lost_after, self.closed = 0, lost_after, False
        self.happened: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Counting.Call:
        return Counting.Call(self, views, layers)

    def events(self) -> list[tuple[float, str]]:
        """Once: something befell a replica."""
        happened, self.happened = self.happened, []
        return happened

    def close(self) -> None:
        self.closed = True

    class Call:
        def __init__(self, labeller: Counting, views: ViewBatch, layers: Layers) -> None:
            self.labeller, self.views, self.layers = labeller, views, layers

        def result(self) -> Answer:
            time.sleep(self.labeller.seconds)
            with self.labeller._lock:
                self.labeller.requests += 1
                if self.labeller.lost_after is not None and self.labeller.requests > self.labeller.lost_after:
                    raise TeacherGone("teacher 'it': no replica is left")
                self.labeller.asked[self.views.sample_ids] += 1
            rows = self.views.sample_ids
            return Answer(said(rows), 0.01, features={layer: inside(rows, layer) for layer in self.layers})


def said(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, -rows, rows % 7], axis=1).astype(np.float16)


def inside(rows: np.ndarray, layer: Layer) -> np.ndarray:
    shape = (2, 3) if layer.positions else (4,)
    return (rows.reshape(-1, *[1] * len(shape)) + np.arange(np.prod(shape)).reshape(shape) / 8).astype(np.float16)


@pytest.fixture
def config_of(make_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    def make(store: dict[str, Any] | None = None, timeout_s: float = 5.0, **distill: Any) -> Config:
        teacher = {"task": "mood", "loader": "python", "model": "nobody:asks", "window": 3, "timeout_s": timeout_s}
        return make_config(
            ("mood",),
            teachers={"it": teacher},
            distill=distill,
            store={"path": str(tmp_path / "labels"), **(store or {})},
        )

    return make


def tables_of(config: Config, data: Data) -> RunTables:
    split = data["mood"].train
    return RunTables(config, {"it": TaughtSplit("f", "mood", "train", split.fingerprint, len(split), 3, (0,))})


def epoch(data: Data, seed: int = 0, size: int = 4) -> list[StepViews]:
    """Every row once, in an order of the seed's."""
    split = data["mood"].train
    order = np.random.default_rng(seed).permutation(len(split))
    return [{"mood": split.views(order[start : start + size])} for start in range(0, len(order), size)]


def claimed_by_another(config: Config, data: Data) -> LabelTable:
    """A run that has claimed every row."""
    table = tables_of(config, data).open("it", 0)
    assert table.claim(np.arange(table.num_rows)).all()
    return table


def hear(stream: LabelStream, batches: list[StepViews]) -> None:
    for step_views, targets in stream.stream(batches):
        rows = step_views["mood"].sample_ids
        np.testing.assert_array_equal(targets["mood"].logits["it"], said(rows))


def test_the_first_epoch_fills_the_store_and_later_ones_ask_nobody(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, num_rows = config_of(), len(tiny_data["mood"].train)
    labeller = Counting(num_rows)
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data))
    for seed in range(3):
        hear(stream, epoch(tiny_data, seed))
    assert (labeller.asked == 1).all()
    cost = total_cost(stream.cost().values())
    assert (cost.samples, cost.samples_cached) == (num_rows, 2 * num_rows)
    assert stream.way == "stored" and labeller.closed
    assert any("let go" in what for _, what in stream.events())
    stream.close()

    later = LabelStream(config, config.teachers, None, tables_of(config, tiny_data))
    hear(later, epoch(tiny_data, 9))
    later.close()


@pytest.mark.parametrize("kept", [True, False])
def test_features_are_asked_anew_or_kept_where_the_store_is_to_keep_them(
    config_of: Callable[..., Config], tiny_data: Data, kept: bool
) -> None:
    feature = {"teacher": "it", "teacher_layer": "deep", "student_layer": "trunk"}
    features = {"what": {**feature, "loss": "hint"}, "where": {**feature, "loss": "attention"}}
    config = config_of(features=features)
    tables = tables_of(config, tiny_data)
    if kept:
        tables = RunTables(config, tables.taught, layers_kept(config.distill, {"what": (4,), "where": (2, 3)}))
    plain = tables_of(config, tiny_data)
    labeller, layers = Counting(len(tiny_data["mood"].train)), layers_asked(config.distill)
    stream = LabelStream(config, config.teachers, labeller, tables, layers=layers)
    for seed in range(3):
        for step_views, targets in stream.stream(epoch(tiny_data, seed)):
            rows, said_of = step_views["mood"].sample_ids, targets["mood"]
            np.testing.assert_array_equal(said_of.logits["it"], said(rows))
            assert said_of.features["it"].keys() == set(layers["it"])
            for layer, found in said_of.features["it"].items():
                np.testing.assert_array_equal(found, inside(rows, layer))
    assert (labeller.asked == (1 if kept else 3)).all()
    assert (stream.way == "stored" and labeller.closed) is kept
    stream.close()
    assert not plain.open("it", 0).known(np.arange(10)).any()  # rows with features are others than those without


def test_a_row_that_comes_twice_is_asked_once(config_of: Callable[..., Config], tiny_data: Data) -> None:
    config, split = config_of(), tiny_data["mood"].train
    labeller = Counting(len(split))
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data))
    hear(stream, [{"mood": split.views(rows)} for rows in ([3, 1, 3], [1, 2], [2, 2, 5], [3])])
    assert labeller.asked[[1, 2, 3, 5]].tolist() == [1, 1, 1, 1] and labeller.asked.sum() == 4
    stream.close()


def test_runs_in_other_orders_share_the_work_and_never_wait_for_each_other_in_a_circle(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, labeller = config_of(), Counting(len(tiny_data["mood"].train))
    failed: list[BaseException] = []

    def run(seed: int) -> None:
        stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data))
        try:
            hear(stream, epoch(tiny_data, seed))
        except BaseException as error:  # noqa: BLE001 — told to the main thread
            failed.append(error)
        finally:
            stream.close()

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert failed == []
    assert (labeller.asked == 1).all()


def test_what_a_stream_that_was_left_had_asked_can_be_asked_by_others(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, batches = config_of(), epoch(tiny_data)
    left = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    started = left.stream(batches)
    next(started)
    started.close()  # type: ignore[attr-defined]
    other = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    hear(other, batches)  # with a time-out of 5 s for rows whose owner does nothing, this would be slow, not wrong
    left.close()
    other.close()


def test_top_k_labels_are_the_same_in_the_epoch_that_fills_and_in_later_ones(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config = config_of(store={"top_k": 1})
    stream = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    batches = epoch(tiny_data)
    first = [targets["mood"].logits["it"] for _, targets in stream.stream(batches)]
    second = [targets["mood"].logits["it"] for _, targets in stream.stream(batches)]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    stream.close()


def test_a_missing_label_without_anyone_to_ask_names_the_command(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config = config_of()
    stream = LabelStream(config, config.teachers, None, tables_of(config, tiny_data))
    with pytest.raises(SoftLabelError, match=r"'it'.*no stored soft labels for 4 rows.*raydistill label"):
        next(stream.stream(epoch(tiny_data)))


def after_the_loss(stream: LabelStream, data: Data) -> Iterator[tuple[StepViews, Any]]:
    """Twice the same epoch; the teacher is lost in the first."""
    yield from stream.stream([*epoch(data), *epoch(data)])


@pytest.mark.parametrize("policy", ["wait", "fail"])
def test_a_lost_teacher_ends_the_stream_where_that_is_wanted(
    config_of: Callable[..., Config], tiny_data: Data, policy: str
) -> None:
    config = config_of(on_teacher_loss=policy)
    stream = LabelStream(config, config.teachers, Counting(100, LOST_AFTER), tables_of(config, tiny_data))
    with pytest.raises(TeacherGone, match="no replica is left"):
        list(after_the_loss(stream, tiny_data))
    stream.close()


def test_without_a_lost_teacher_what_it_said_goes_on_to_count(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config = config_of(on_teacher_loss="stored")
    stream = LabelStream(config, config.teachers, Counting(100, LOST_AFTER), tables_of(config, tiny_data))
    heard = [targets for _, targets in after_the_loss(stream, tiny_data)]
    num_batches = len(heard) // 2
    for epoch_number in range(2):
        for number, (step_views, targets) in enumerate(
            zip(epoch(tiny_data), heard[epoch_number * num_batches :], strict=False)
        ):
            if number < LOST_AFTER:
                np.testing.assert_array_equal(targets["mood"].logits["it"], said(step_views["mood"].sample_ids))
            else:
                assert targets == {}
    (event,) = [what for _, what in stream.events()]
    assert "no replica is left" in event and "stored soft labels only" in event
    stream.close()


def test_of_a_batch_that_a_lost_teacher_knows_in_part_the_rest_is_nan(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, split = config_of(on_teacher_loss="stored"), tiny_data["mood"].train
    stream = LabelStream(config, config.teachers, Counting(100, 1), tables_of(config, tiny_data))
    asked = [{"mood": split.views(rows)} for rows in ([0, 1], [2, 3], [1, 4])]
    *_, (_, targets) = stream.stream(asked)
    logits = targets["mood"].logits["it"]
    np.testing.assert_array_equal(logits[0], said(np.array([1]))[0])
    assert np.isnan(logits[1]).all()
    stream.close()


def test_a_teacher_of_features_that_is_lost_leaves_what_the_store_has_of_it(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, split = config_of(on_teacher_loss="stored"), tiny_data["mood"].train
    asked = [{"mood": split.views(rows)} for rows in ([0, 1], [2, 3], [4, 5])]
    filling = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    assert len(list(filling.stream(asked))) == 3
    filling.close()
    labeller = Counting(100, 1)
    layers = {"it": (Layer("deep"),)}
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data), layers=layers)
    assert not stream.complete()  # it is asked about every row, whatever the store has
    answered = [targets["mood"].logits["it"] for _, targets in stream.stream(asked)]
    for step_views, logits in zip(asked, answered, strict=True):
        np.testing.assert_array_equal(logits, said(step_views["mood"].sample_ids))
    assert any("stored soft labels only" in what for _, what in stream.events())
    stream.close()


@pytest.mark.parametrize("kept", [True, False])
def test_labels_only_after_a_loss(config_of: Callable[..., Config], tiny_data: Data, kept: bool) -> None:
    config = config_of(on_teacher_loss="hard_labels")
    tables = tables_of(config, tiny_data) if kept else None
    labeller = Counting(100, LOST_AFTER)
    stream = LabelStream(config, config.teachers, labeller, tables)
    heard = [targets for _, targets in after_the_loss(stream, tiny_data)]
    assert all(targets for targets in heard[:LOST_AFTER]) and not any(heard[LOST_AFTER:])
    assert labeller.requests <= LOST_AFTER + 3  # those that were on their way
    assert len(stream.events()) == 1
    stream.close()


def test_a_run_that_claims_more_than_it_answers_holds_nobody_up(
    config_of: Callable[..., Config], tiny_data: Data
) -> None:
    config, labeller = config_of(timeout_s=0.4), Counting(100)
    hoarder = claimed_by_another(config, tiny_data)  # as `raydistill label` does at its start
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data), lets_go=False)
    batches = epoch(tiny_data, size=3)
    assert len(batches) > 10
    hear(stream, batches)
    assert total_cost(stream.cost().values()).waited_s < 1.5  # 0.4 s, then half as long each time
    assert sum("another run has claimed rows" in what for _, what in stream.events()) == 1
    hoarder.close()
    stream.close()


def test_time_is_waited_once(config_of: Callable[..., Config], tiny_data: Data) -> None:
    config = config_of()
    others = claimed_by_another(config, tiny_data)
    others.release(np.arange(4, others.num_rows))
    answer = threading.Timer(0.3, lambda: (others.write(np.arange(4), said(np.arange(4))), others.flush()))
    stream = LabelStream(config, config.teachers, Counting(100, seconds=0.1), tables_of(config, tiny_data))
    split, began = tiny_data["mood"].train, time.monotonic()
    answer.start()
    hear(stream, [{"mood": split.views(range(start, start + 4))} for start in (0, 4, 8, 12)])
    cost = total_cost(stream.cost().values())
    assert 0.3 <= cost.waited_s <= time.monotonic() - began
    assert (cost.samples, cost.samples_cached) == (12, 4)
    others.close()
    stream.close()


def test_what_befell_a_teacher_that_is_let_go_is_told(config_of: Callable[..., Config], tiny_data: Data) -> None:
    config, labeller = config_of(), Counting(100)
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data))
    labeller.happened = [(1.0, "a replica died")]
    hear(stream, epoch(tiny_data))
    assert stream.way == "stored"
    assert (1.0, "a replica died") in stream.events()
    stream.close()


def test_after_a_flush_others_know_what_was_heard(config_of: Callable[..., Config], tiny_data: Data) -> None:
    config = config_of()
    stream = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    answers = stream.stream(epoch(tiny_data))
    heard = np.concatenate([next(answers)[0]["mood"].sample_ids for _ in range(3)])
    stream.flush()
    table = tables_of(config, tiny_data).open("it", 0)
    assert table.known(heard).all() and table.num_known == len(heard)
    stream.close()


def test_damage_that_is_found_first_by_asking_whether_all_is_there_is_told(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    config = config_of()
    filling = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    hear(filling, epoch(tiny_data))
    filling.close()
    (shard,) = (tmp_path / "labels").rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1])
    stream = LabelStream(config, config.teachers, Counting(100), tables_of(config, tiny_data))
    assert not stream.complete()
    assert any(shard.name in what for _, what in stream.events())
    stream.close()


def test_a_store_that_cannot_be_written_keeps_no_teacher(
    config_of: Callable[..., Config], tiny_data: Data, tmp_path: Path
) -> None:
    config, labeller = config_of(), Counting(100)
    stream = LabelStream(config, config.teachers, labeller, tables_of(config, tiny_data))
    next(answers := stream.stream(epoch(tiny_data)))
    shutil.rmtree(tmp_path / "labels")
    (tmp_path / "labels").write_text("")
    with pytest.raises(SoftLabelError, match="cannot write soft labels"):
        stream.close()
    assert labeller.closed
    del answers
