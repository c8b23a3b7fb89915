"""Notices of nodes about to go are looked for by time, whatever a step takes."""

from __future__ import annotations

import pytest
import torch

from raydistill.training.notices import EVERY_S, MOST_STEPS, Notices


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Asked:
    """How often, and of what is said then."""

    def __init__(self, after: int = 10**9) -> None:
        self.times, self.after = 0, after

    def __call__(self) -> bool:
        self.times += 1
        return self.times > self.after


@pytest.mark.parametrize(("step_s", "looks"), [(0.001, 6), (EVERY_S / 10, 10), (EVERY_S, 100), (60.0, 100)])
def test_slow_steps_are_looked_at_more_often(step_s: float, looks: int) -> None:
    clock, asked = Clock(), Asked()
    notices = Notices(asked, torch.device("cpu"), 0, now=clock)
    for step in range(1, 101):
        clock.seconds += step_s
        assert not notices.look(step)
    assert asked.times == pytest.approx(looks, abs=1)


def test_steps_that_grow_slow_are_seen_after_a_few() -> None:
    clock, asked = Clock(), Asked()
    notices = Notices(asked, torch.device("cpu"), 100, now=clock)
    for step in range(101, 201):
        clock.seconds += 0.001
        notices.look(step)
    before = asked.times
    for step in range(201, 201 + 2 * MOST_STEPS):
        clock.seconds += EVERY_S
        notices.look(step)
    assert asked.times - before >= MOST_STEPS


def test_what_was_heard_is_said_once() -> None:
    asked = Asked(after=2)
    notices = Notices(asked, torch.device("cpu"), 0, now=Clock())
    heard = [step for step in range(1, 201) if notices.look(step)]
    assert heard == [1 + 2 * MOST_STEPS] and asked.times == 3
