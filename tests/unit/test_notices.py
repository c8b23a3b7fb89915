"""Notices of nodes about to go are looked for by time, whatever a step takes."""

from __future__ import annotations

import pytest
import torch

from raydistill.training.notices import EVERY_S, MOST_STEPS, WRITING_S, Notice, Notices


class World:
    """A clock, and the notice that stands."""

    def __init__(self) -> None:
        self.seconds, self.asked, self.notice = 0.0, 0, None

    def now(self) -> float:
        return self.seconds

    def hear(self) -> Notice | None:
        self.asked += 1
        return self.notice

    def watched(self, step: int = 0) -> Notices:
        return Notices(self.hear, torch.device("cpu"), step, now=self.now)

    def steps(self, notices: Notices, steps: range, each_s: float) -> list[int]:
        """Those after which a checkpoint is due."""
        due = []
        for step in steps:
            self.seconds += each_s
            if notices.look(step):
                due.append(step)
        return due


@pytest.mark.parametrize(("step_s", "looks"), [(0.001, 6), (EVERY_S / 10, 11), (EVERY_S, 100), (60.0, 100)])
def test_slow_steps_are_looked_at_more_often(step_s: float, looks: int) -> None:
    world = World()
    assert world.steps(world.watched(), range(1, 101), step_s) == []
    assert world.asked in (looks - 1, looks)


def test_steps_that_grow_slow_are_seen_after_a_few() -> None:
    world = World()
    notices = world.watched(100)
    world.steps(notices, range(101, 201), 0.001)
    before = world.asked
    world.steps(notices, range(201, 201 + 2 * MOST_STEPS), EVERY_S)
    assert world.asked - before >= MOST_STEPS


def test_a_notice_leaves_a_checkpoint_at_once_and_one_just_before_the_node_goes() -> None:
    world = World()
    notices = world.watched()
    world.steps(notices, range(1, 11), 1.0)
    world.notice = Notice(("a",), 130.0)
    due = world.steps(notices, range(11, 130), 1.0)
    assert len(due) == 2 and due[0] <= 10 + EVERY_S + 1
    assert WRITING_S <= 130 - due[1] <= WRITING_S + EVERY_S


def test_steps_that_last_longer_than_the_last_chance_come_before_it() -> None:
    world = World()
    notices = world.watched()
    world.notice = Notice(("a",), 130.0)
    assert world.steps(notices, range(1, 6), 30.0) == [1, 4]  # the next one ends at 150


def test_another_node_is_another_notice_and_the_same_is_none() -> None:
    world = World()
    notices = world.watched()
    world.notice = Notice(("a",), None)
    assert len(world.steps(notices, range(1, 200), 1.0)) == 1
    world.notice = Notice(("a", "b"), None)
    assert len(world.steps(notices, range(200, 400), 1.0)) == 1


def test_a_notice_that_comes_late_is_one_checkpoint() -> None:
    world = World()
    notices = world.watched()
    world.notice = Notice(("a",), 8.0)
    assert world.steps(notices, range(1, 12), 1.0) == [1]


def test_where_no_node_can_go_nothing_is_looked_for() -> None:
    world = World()
    notices = Notices(None, torch.device("cuda"), 0, now=world.now)  # which would not be there to wait for
    assert world.steps(notices, range(1, 100), 60.0) == []
