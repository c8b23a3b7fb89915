"""`auto`: each way is tried, the faster one stays, and a full store does without."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.auto import PROBED, WARM_UP, AutoSource
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.soft_labels.source import Answer, StepViews
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit

Data = dict[str, TaskData]


class Way:
    """A labeller that takes its time, and to which something happens once."""

    def __init__(self, way: str, seconds: float) -> None:
        self.way, self.seconds, self.asked, self.closed = way, seconds, 0, False
        self._events = [(1.0, f"{way}: something happened")]

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Way.Call:
        self.asked += 1
        return Way.Call(self, views)

    def events(self) -> list[tuple[float, str]]:
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        self.closed = True

    class Call:
        def __init__(self, way: Way, views: ViewBatch) -> None:
            self.way, self.views = way, views

        def result(self) -> Answer:
            time.sleep(self.way.seconds)
            return Answer(np.tile(self.views.sample_ids[:, None], 2).astype(np.float16), 0.0)


@pytest.fixture
def config(make_config: Callable[..., Config], tmp_path: Path) -> Config:
    teacher = {"task": "mood", "loader": "python", "model": "nobody:asks", "window": 3}
    return make_config(("mood",), teachers={"it": teacher}, store={"path": str(tmp_path / "labels")})


@pytest.fixture
def ways() -> dict[str, Way]:
    return {"remote": Way("remote", 0.02), "local": Way("local", 0.0)}


def source_of(config: Config, ways: dict[str, Way], tables: RunTables | None, why: str = "") -> AutoSource:
    stream = LabelStream(config, config.teachers, None, tables)
    return AutoSource(stream, {name: lambda way=way: way for name, way in ways.items()}, why)


def batches(data: Data, count: int) -> list[StepViews]:
    split = data["mood"].train
    return [{"mood": split.views([number % len(split), (number + 1) % len(split)])} for number in range(count)]


def hear(source: AutoSource, asked: list[StepViews]) -> None:
    answered = list(source.stream(asked))
    assert [views for views, _ in answered] == asked
    for views, targets in answered:
        np.testing.assert_array_equal(targets["mood"].logits["it"][:, 0], views["mood"].sample_ids)


def test_the_faster_way_stays_and_the_log_says_by_how_much(
    config: Config, ways: dict[str, Way], tiny_data: Data
) -> None:
    source = source_of(config, ways, None)
    hear(source, batches(tiny_data, 50))
    assert source.way == "local"
    assert (ways["remote"].asked, ways["local"].asked) == (WARM_UP + PROBED, 50 - WARM_UP - PROBED)
    assert ways["remote"].closed and not ways["local"].closed
    told = [what for _, what in source.events()]
    assert any(what.startswith("soft labels: auto: remote 2") and what.endswith(": local") for what in told)
    assert {"remote: something happened", "local: something happened"} <= set(told)
    assert source.events() == []
    source.close()
    assert ways["local"].closed


def test_a_training_that_is_over_before_all_was_tried_leaves_nothing_open(
    config: Config, ways: dict[str, Way], tiny_data: Data
) -> None:
    source = source_of(config, ways, None)
    hear(source, batches(tiny_data, 5))
    source.close()
    assert ways["remote"].closed and not ways["local"].asked


def test_one_way_is_taken_and_the_log_says_why(config: Config, ways: dict[str, Way], tiny_data: Data) -> None:
    source = source_of(config, {"remote": ways["remote"]}, None, "teachers have devices of their own")
    hear(source, batches(tiny_data, 5))
    assert "soft labels: auto: remote: teachers have devices of their own" in [what for _, what in source.events()]
    source.close()
    assert ways["remote"].closed


def test_a_store_that_fills_up_while_ways_are_tried_ends_the_trying(
    config: Config, ways: dict[str, Way], tiny_data: Data
) -> None:
    split = tiny_data["mood"].train
    tables = RunTables(config, {"it": TaughtSplit("f", "mood", "train", split.fingerprint, len(split), 2, (0,))})
    every = {"mood": split.views(range(len(split)))}
    source = source_of(config, ways, tables)
    hear(source, [every, *batches(tiny_data, 50)])
    assert (ways["remote"].asked, ways["local"].asked) == (1, 0)
    assert source.way == "stored" and ways["remote"].closed
    source.close()

    later = source_of(config, ways, tables)
    hear(later, batches(tiny_data, 3))
    assert [what for _, what in later.events()] == [
        "soft labels: auto: the store has every soft label of this run: stored"
    ]
    assert ways["remote"].asked == 1
    later.close()
