"""What the supervisor decides, on a clock of the test's and with replicas that a list stands for."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pool_teachers
import pytest

from raydistill.config.models import PlacementConfig
from raydistill.teachers.pool.launcher import Outcome
from raydistill.teachers.pool.messages import LeaseReport, Loaded, PoolSpec, PoolView, ReplicaStats
from raydistill.teachers.pool.names import replica_prefix
from raydistill.teachers.pool.placement import fits
from raydistill.teachers.pool.scaling import Scaler, ScalingRules
from raydistill.teachers.pool.supervisor import ORPHAN_S, Supervisor

TTL_S = 10.0
CANARY = np.ones((4, 3), np.float16)


@dataclass
class Actor:
    """An actor as the launcher of these tests has it: what it would answer."""

    name: str
    alive: bool = True
    answers: bool = True
    placed: bool = True
    loaded: Outcome | None = field(default_factory=lambda: Outcome(Loaded({"fingerprint": "f"}, CANARY)))
    rows: int = 0
    busy_s: float = 0.0
    idle_s: float = 60.0


class Actors:
    """Stands for Ray."""

    def __init__(self) -> None:
        self.all: list[Actor] = []
        self.room = True
        self.free: dict[str, float] = {"CPU": 100.0}
        self.started: list[PoolSpec] = []
        self.refuses: str | None = None
        self.breaks: str | None = None
        self.next: dict[str, Any] = {}

    def start(self, spec: PoolSpec, name: str) -> Actor:
        if self.refuses == spec.id:
            raise ValueError("Use the 'num_cpus' keyword instead of 'CPU' in 'resources'")
        self.started.append(spec)
        self.all.append(Actor(name, **self.next))
        return self.all[-1]

    def find(self, prefix: str, known: tuple[str, ...] = ()) -> dict[str, Actor]:
        if self.breaks is not None and self.breaks.startswith(prefix):
            raise RuntimeError("Ray's head is away")
        names = {actor.name: actor for actor in self.all if actor.alive and actor.name.startswith(prefix)}
        return {name: actor for name, actor in names.items() if not (known and name.startswith(known))}

    def call(self, handle: Actor, method: str) -> tuple[Actor, str]:
        return handle, method

    def poll(self, reference: tuple[Actor, str]) -> Outcome | None:
        actor, method = reference
        if not actor.alive:
            return Outcome(error="its process ended", died=True)
        if not actor.answers or not actor.placed:
            return None
        if method == "ping":
            return Outcome(ReplicaStats(1, actor.rows, 0, actor.busy_s, actor.idle_s))
        if method == "describe" and actor.loaded is None:
            return Outcome()
        return actor.loaded

    def kill(self, handle: Actor) -> None:
        handle.alive = False

    def has_room(self, placement: PlacementConfig, kept: Mapping[str, float]) -> bool:
        return self.room and fits(placement, self.free, kept)

    @property
    def living(self) -> list[Actor]:
        return [actor for actor in self.all if actor.alive]


class World:
    """A supervisor, its actors, and time that passes when told."""

    def __init__(self, spec: PoolSpec) -> None:
        self.now = 1000.0
        self.actors, self.spec = Actors(), spec
        self.restart()

    def restart(self) -> None:
        rules = ScalingRules(grow_after_s=3, shrink_after_s=5)
        self.supervisor = Supervisor(self.actors, lambda: self.now, lambda: self.now, rules)

    def want(self, **settings: Any) -> None:
        teacher = self.spec.settings.model_copy(update=settings)
        config = self.spec.config.model_copy(update={"teachers": {"one": teacher}})
        self.spec = replace(self.spec, config=config)

    def join(self, lease: str = "a") -> PoolView:
        return self.supervisor.join(self.spec, lease, TTL_S)

    def renew(self, lease: str = "a", waiting: float = 0.0) -> PoolView | None:
        return self.supervisor.renew(self.spec.id, lease, LeaseReport(waiting))

    def run(self, seconds: float, waiting: float | None = 0.0, busy: float = 0.0) -> None:
        """Time passes; the lease is renewed unless `waiting` is None."""
        for _ in range(round(seconds / 0.25)):
            self.now += 0.25
            for actor in self.actors.living:
                actor.busy_s += 0.25 * busy
                actor.idle_s = 0.0 if busy > 0.5 else 60.0
            self.supervisor.tick()
            if waiting is not None:
                self.renew(waiting=waiting)

    @property
    def view(self) -> PoolView:
        view = self.renew()
        assert view is not None
        return view

    @property
    def serving(self) -> int:
        return len(self.view.replicas)

    @property
    def events(self) -> list[str]:
        return [line.removeprefix("teacher 'one': ") for _, line in self.view.events]


@pytest.fixture
def world(tmp_path: Path) -> World:
    config = pool_teachers.pool_config(tmp_path, "one")
    canary = pool_teachers.pictures(4)
    return World(PoolSpec("0" * 64, "one", config, pool_teachers.LABELS, canary))


def test_a_pool_begins_with_its_minimum_and_ends_with_its_last_lease(world: World) -> None:
    world.want(min_replicas=2)
    world.join("a")
    world.join("b")
    world.run(1)
    assert world.serving == 2
    world.supervisor.leave(world.spec.id, "a")
    world.run(1, waiting=None)
    assert len(world.actors.living) == 2
    world.supervisor.leave(world.spec.id, "b")
    assert world.actors.living == []
    assert world.renew("b") is None


def test_a_silent_lease_expires_and_frees_the_pool(world: World) -> None:
    world.join()
    world.run(TTL_S + 2)
    assert len(world.actors.living) == 1
    world.run(TTL_S - 1, waiting=None)
    assert len(world.actors.living) == 1
    world.run(2, waiting=None)
    assert world.actors.living == []
    assert world.renew() is None


def test_the_supervisor_ends_when_nobody_needs_it(world: World) -> None:
    world.run(30, waiting=None)
    assert not world.supervisor.is_idle
    world.join()
    world.run(100)
    assert not world.supervisor.is_idle
    world.supervisor.leave(world.spec.id, "a")
    world.run(59, waiting=None)
    assert not world.supervisor.is_idle
    world.run(2, waiting=None)
    assert world.supervisor.is_idle


def test_a_dead_replica_is_replaced_and_both_are_told(world: World) -> None:
    world.want(min_replicas=2)
    world.join()
    world.run(1)
    victim = world.actors.all[0]
    victim.alive = False
    world.supervisor.suspect(world.spec.id, victim.name, None)
    world.run(1)
    assert world.serving == 2
    assert victim.name in world.view.lost
    assert victim.name not in dict(world.view.replicas)
    assert "lost: its process ended" in world.events[0]
    assert "serves in the lost one's place" in world.events[1]


def test_a_false_alarm_costs_nothing(world: World) -> None:
    world.join()
    world.run(1)
    world.supervisor.suspect(world.spec.id, world.actors.all[0].name, None)
    world.supervisor.suspect(world.spec.id, "nobody", 900.0)
    impatient = world.spec.settings.timeout_s / 2  # others would have waited longer
    world.supervisor.suspect(world.spec.id, world.actors.all[0].name, impatient)
    world.run(1)
    assert len(world.actors.all) == 1
    assert world.serving == 1


@pytest.mark.parametrize("told", [True, False])
def test_one_that_hangs_is_ended(world: World, told: bool) -> None:
    world.join()
    world.run(1)
    victim = world.actors.all[0]
    victim.answers = False
    if told:
        world.supervisor.suspect(world.spec.id, victim.name, world.spec.settings.timeout_s)
        world.run(1)
    else:
        world.run(9)
        assert victim.alive
        world.run(4)
    assert not victim.alive
    assert world.serving == 1


def test_an_error_of_ours_while_loading_is_told_at_once(world: World) -> None:
    world.actors.next = {"loaded": Outcome(error="teacher 'one': no weights at x", ours=True)}
    world.join()
    world.run(1)
    assert world.view.failure == "teacher 'one': no weights at x"
    world.run(30)
    assert len(world.actors.all) == 1


def test_any_other_error_is_tried_thrice(world: World) -> None:
    world.actors.next = {"loaded": Outcome(error="RuntimeError: CUDA out of memory")}
    world.join()
    world.run(1)
    assert world.view.failure is None
    world.run(20)
    assert world.view.failure == "teacher 'one': no replica comes up: RuntimeError: CUDA out of memory"
    assert len(world.actors.all) == 3


def test_what_ray_cannot_read_is_said(world: World) -> None:
    world.actors.refuses = world.spec.id
    world.join()
    world.run(20)
    assert world.view.failure == (
        "teacher 'one': no replica comes up: ValueError: Use the 'num_cpus' keyword instead of 'CPU' in 'resources'"
    )


def test_a_new_student_is_a_reason_to_try_again(world: World) -> None:
    world.actors.next = {"loaded": Outcome(error="RuntimeError: CUDA out of memory")}
    world.join("a")
    world.run(20)
    assert world.view.failure is not None
    world.actors.next = {}
    assert world.join("b").failure is None
    world.run(1)
    assert world.serving == 1


def test_the_trouble_of_one_pool_is_not_that_of_another(world: World) -> None:
    broken = replace(world.spec, id="1" * 64)
    world.actors.breaks = replica_prefix(broken.id)
    world.supervisor.join(broken, "b", TTL_S)
    world.join("a")
    for _ in range(2):
        world.now += 0.25
        with contextlib.suppress(RuntimeError):
            world.supervisor.tick()
    assert world.serving == 1


def test_each_student_begins_with_a_part_of_the_replicas(world: World) -> None:
    for lease in ("a", "b", "c", "d"):
        world.join(lease)
    views = [world.supervisor.join(world.spec, lease, TTL_S) for lease in ("a", "b", "c", "d")]
    assert [view.begin for view in views] == [0, 0.25, 0.5, 0.75]


def test_replicas_are_started_as_the_newest_student_asks(world: World) -> None:
    """The first one's files may be gone with it."""
    world.join("a")
    world.run(1)
    world.want(timeout_s=7)
    world.join("b")
    world.supervisor.leave(world.spec.id, "a")
    world.actors.all[0].alive = False
    world.now += 1
    for _ in range(4):
        world.now += 0.25
        world.supervisor.tick()
    assert [spec.settings.timeout_s for spec in world.actors.started] == [60, 7]


def test_one_that_dies_while_it_loads_is_tried_ten_times(world: World) -> None:
    world.actors.next = {"alive": False}
    world.join()
    world.run(5)
    assert world.view.failure is None
    world.run(60)
    assert len(world.actors.all) == 10
    assert world.view.failure == "teacher 'one': no replica comes up: its process ended"


def test_a_pool_that_once_served_outlives_an_error(world: World) -> None:
    world.join()
    world.run(1)
    world.actors.all[0].alive = False
    world.actors.next = {"loaded": Outcome(error="teacher 'one': no weights at x", ours=True)}
    world.run(2)
    assert world.view.failure is None
    world.actors.next = {}
    world.run(5)
    assert world.serving == 1


@pytest.mark.parametrize(
    ("loaded", "why"),
    [
        (Loaded({"fingerprint": "f"}, CANARY * 2), "its answer to the canary differs from its peers' by 1 "),
        (Loaded({"fingerprint": "g"}, CANARY), "its weights are not those of its peers"),
    ],
)
def test_a_replica_that_says_something_else_never_serves(world: World, loaded: Loaded, why: str) -> None:
    world.want(min_replicas=2, max_replicas=2)
    world.join()
    world.run(1)
    world.actors.all[0].alive = False
    world.actors.next = {"loaded": Outcome(loaded)}
    world.run(3)
    assert world.serving == 1
    assert any("refused: " in event and why in event for event in world.events)
    assert all(actor.loaded is not None and actor.loaded.value is not loaded for actor in world.actors.living)
    world.actors.next = {}
    world.run(15)
    assert world.serving == 2


def test_it_grows_while_students_wait_and_shrinks_when_replicas_idle(world: World) -> None:
    world.want(min_replicas=1, max_replicas=3)
    world.join()
    world.run(3, waiting=0.9, busy=1.0)
    assert world.serving == 1
    world.run(4, waiting=0.9, busy=1.0)
    assert world.serving == 2
    world.run(10, waiting=0.9, busy=1.0)
    assert world.serving == 3
    world.run(10, waiting=0.9, busy=1.0)
    assert world.serving == 3
    assert world.events[:2] == ["1 → 2 replicas: students wait", "2 → 3 replicas: students wait"]
    world.run(40, waiting=0.0, busy=0.1)
    assert world.serving == 1
    assert len(world.actors.living) == 1
    assert world.view.lost


def test_a_leaving_replica_ends_what_it_owes(world: World) -> None:
    world.want(min_replicas=2)
    world.join("a")
    world.run(1)
    world.want(min_replicas=1)
    world.join("a")
    world.run(4)  # the limit is one now: the other leaves the membership at once, and its process later
    assert world.serving == 1
    assert len(world.actors.living) == 2
    for actor in world.actors.living:
        actor.idle_s = 0.0
    world.run(20, busy=0.9)
    assert len(world.actors.living) == 2
    world.run(3, busy=0.0)
    assert len(world.actors.living) == 1


def test_it_does_not_grow_without_room_nor_for_idle_replicas(world: World) -> None:
    world.want(min_replicas=1, max_replicas=3)
    world.join()
    world.run(20, waiting=0.9, busy=0.1)
    assert len(world.actors.all) == 1
    world.actors.room = False
    world.run(20, waiting=0.9, busy=1.0)
    assert len(world.actors.all) == 1


def test_it_does_not_grow_into_the_room_of_students_to_come(world: World) -> None:
    world.want(max_replicas=3)
    training = world.spec.config.training.model_copy(update={"num_workers": 2})
    world.spec = replace(world.spec, config=world.spec.config.model_copy(update={"training": training}))
    world.actors.free = {"CPU": 2.0}
    world.join()
    world.run(10, waiting=0.9, busy=1.0)
    assert world.serving == 1
    world.join("one worker")
    world.join("the other")
    world.run(6, waiting=0.9, busy=1.0)
    assert world.serving == 2


def test_one_more_that_ray_cannot_place_is_withdrawn(world: World) -> None:
    world.want(min_replicas=1, max_replicas=2)
    world.join()
    world.run(1)
    world.actors.next = {"placed": False}
    world.run(7, waiting=0.9, busy=1.0)
    assert world.view.unplaced == 1
    world.run(31, waiting=0.9, busy=1.0)
    assert not world.actors.all[1].alive
    assert any("no room for it" in event for event in world.events)


def test_the_minimum_waits_for_room_for_ever(world: World) -> None:
    world.actors.next = {"placed": False}
    world.join()
    world.run(300)
    assert world.view.unplaced == 1
    assert len(world.actors.all) == 1
    world.actors.all[0].placed = True
    world.run(1)
    assert world.serving == 1


def test_the_most_demanding_lease_decides(world: World) -> None:
    world.join("a")
    world.run(1)
    world.want(min_replicas=3)
    world.supervisor.join(world.spec, "b", 5.0)
    world.run(1)
    assert world.serving == 3
    world.run(6)  # b has expired
    assert world.serving == 1


def test_after_a_restart_living_replicas_are_adopted(world: World) -> None:
    world.want(min_replicas=2)
    world.join()
    world.run(1)
    before = set(dict(world.view.replicas))
    world.restart()
    assert world.renew() is None
    view = world.join()
    assert not view.settled
    assert view.lost == ()
    world.run(0.5)
    assert world.view.settled
    assert set(dict(world.view.replicas)) == before
    assert len(world.actors.all) == 2


def test_a_restart_does_not_shrink_a_pool_that_had_grown(world: World) -> None:
    world.want(min_replicas=1, max_replicas=3)
    world.join()
    world.run(20, waiting=0.9, busy=1.0)
    assert world.serving == 3
    world.restart()
    world.join()
    world.run(4, waiting=0.9, busy=1.0)
    assert world.serving == 3
    assert len(world.actors.all) == 3


def test_a_replica_that_was_loading_at_the_restart_is_waited_for(world: World) -> None:
    world.actors.next = {"loaded": None}
    world.join()
    world.run(1)
    world.restart()
    world.join()
    world.run(2)
    assert world.serving == 0
    assert len(world.actors.all) == 1
    world.actors.all[0].loaded = Outcome(Loaded({"fingerprint": "f"}, CANARY))
    world.run(1)
    assert world.serving == 1


def test_one_that_hangs_at_the_restart_is_not_waited_for(world: World) -> None:
    world.want(min_replicas=2)
    world.join()
    world.run(1)
    world.actors.all[0].answers = False
    world.restart()
    world.join()
    world.run(1)
    assert world.serving == 1
    world.run(12)
    assert world.view.settled
    assert world.serving == 2
    assert not world.actors.all[0].alive


def test_orphans_of_a_pool_that_nobody_joins_are_ended(world: World) -> None:
    world.join()
    world.run(1)
    world.restart()
    world.run(ORPHAN_S - 5, waiting=None)
    assert world.actors.living
    assert not world.supervisor.is_idle
    world.run(20, waiting=None)
    assert world.actors.living == []
    world.run(15, waiting=None)
    assert world.supervisor.is_idle


def test_stop_ends_everything_and_tells_those_who_hold_leases(world: World) -> None:
    world.join()
    world.run(1)
    (ended,) = world.supervisor.stop()
    assert ended.teacher == "one"
    assert world.actors.living == []
    assert not world.supervisor.is_idle
    view = world.renew()
    assert view is not None
    assert view.stopped
    assert "raydistill teachers --stop" in (view.failure or "")
    world.run(1, waiting=None)
    assert world.supervisor.is_idle
    assert len(world.actors.all) == 1


def test_status_counts_rows_across_replicas_and_their_deaths(world: World) -> None:
    world.join("someone@somewhere")
    world.run(1)
    world.actors.all[0].rows = 500
    world.run(2)
    world.actors.all[0].alive = False
    world.run(2)
    world.actors.all[1].rows = 100
    world.run(2)
    (status,) = world.supervisor.status()
    assert status.rows == 600
    assert status.fingerprint == "f"
    assert status.leases[0].holder == "someone@somewhere"


def test_short_waits_change_nothing() -> None:
    scaler = Scaler(ScalingRules(grow_after_s=3))
    for now in range(20):
        waiting = 0.9 if now % 3 else 0.1
        assert scaler.decide(now, 1, 1, 4, waiting, 1.0) == 0
    assert [scaler.decide(now, 1, 1, 4, 0.9, 1.0) for now in (20, 21, 22, 23)] == [0, 0, 1, 0]


def test_it_does_not_shrink_what_the_others_could_not_carry() -> None:
    scaler = Scaler(ScalingRules(shrink_after_s=5))
    assert all(scaler.decide(now, 2, 1, 4, 0.0, busy=0.6) == 0 for now in range(60))
    assert scaler.decide(60, 2, 1, 4, 0.0, busy=0.2) == 0
    assert scaler.decide(66, 2, 1, 4, 0.0, busy=0.2) == -1
    assert all(scaler.decide(now, 1, 1, 4, 0.0, busy=0.0) == 0 for now in range(70, 99))
