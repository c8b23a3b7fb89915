"""Who holds a run up, what would balance it, and the sentence that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydistill.config.models import Config
from raydistill.planning.course import Course
from raydistill.planning.crews import Cast
from raydistill.planning.demand import STUDENT, Party
from raydistill.planning.fit import Fit
from raydistill.planning.rates import CORES, DEVICE, REPLICA_S, SAME, TURNS, WINDOW, Steady, to_balance
from raydistill.planning.sizes import Sizes

MOST_TRIED = 1_000  # replicas that are looked for room for


@dataclass(frozen=True)
class Balance:
    """Of one teacher that is asked while a student trains.

    Attributes:
        replicas: that it has.
        needed: so many, as fast as these on average, would keep up with the student.
        room: for so many more beside all others; of those that are needed.
        takes: by resource, what one takes.
        allowed: `max_replicas`.
    """

    replicas: int
    needed: int
    room: int
    takes: Mapping[str, float]
    allowed: int

    @property
    def more(self) -> int:
        """That are missing; negative where it has more than it needs."""
        return self.needed - self.replicas


def balances(
    cast: Cast, fitted: Fit, parties: Sequence[Party], asking: Steady, missing: Mapping[str, float]
) -> dict[str, Balance]:
    """By teacher that is asked through a pool."""
    found = {}
    rows = asking.samples_per_s / asking.steps_per_s
    for party in parties:
        if party.role != "teacher" or party.name not in missing:
            continue
        crew = cast.teacher(party.name, "remote")
        replicas = len(crew.servers)
        needed = to_balance(cast.student, crew, missing[party.name], asking.bounds[STUDENT] / rows)
        room = 0
        while room < min(needed - replicas, MOST_TRIED) and fitted.room[party.name].take(party) is not None:
            room += 1
        takes = {key: amount for key, amount in party.needs.items() if ":" not in key}
        found[party.name] = Balance(replicas, needed, room, takes, party.most)
    return found


def verdict(config: Config, cast: Cast, sizes: Sizes, found: Course, balance: Mapping[str, Balance]) -> str:
    """One sentence: who is the bound, and what would mend it."""
    asking = found.asking
    if asking is None:
        return _without_asking(config, sizes, found)
    if asking.bound == STUDENT:
        spare = [f"{name} would do with {each.needed} of its {each.replicas} replicas"
                 for name, each in balance.items() if each.more < 0]  # fmt: skip
        others = [rate for name, rate in asking.bounds.items() if name not in (STUDENT, CORES, DEVICE, TURNS)]
        times = min(others, default=math.inf) / asking.bounds[STUDENT]
        first = f"student-bound: teachers could answer {times:.2g} times as fast as it learns"
        return "; ".join([first, *spare])
    reach = f"{asking.bounds[STUDENT]:,.0f} samples/s"
    if asking.bound == TURNS:
        return (
            f"teachers and student take turns in one process; the student alone would reach {reach}: teachers on "
            "devices of their own (distill.soft_labels=remote, teachers.*.placement) would let it"
        )
    if asking.bound in (CORES, DEVICE):
        what = "cores" if asking.bound == CORES else "GPU"
        return (
            f"student and teachers share the same {what} and fill it up: more replicas bring nothing; on devices of "
            f"its own the student would reach {reach}"
        )
    if asking.bound.startswith(WINDOW):
        name = asking.bound.removeprefix(WINDOW)
        narrow = min(config.teachers, key=lambda each: config.teachers[each].window)
        return (
            f"bound by the window: {cast.window} micro-batches are asked ahead, too few to keep {name} and the student "
            f"busy; teachers.{narrow}.window={window_for(cast, name, asking, sizes.missing(config)[name])} would"
        )
    return _teacher_bound(cast, sizes.missing(config), asking, balance)


def _teacher_bound(cast: Cast, missing: Mapping[str, float], asking: Steady, balance: Mapping[str, Balance]) -> str:
    slow = {name: each for name, each in balance.items() if each.more > 0}
    words: list[str] = []
    for name, each in sorted(slow.items(), key=lambda item: asking.bounds[item[0]]):
        takes = ", ".join(f"{each.more * amount:g} {resource}" for resource, amount in each.takes.items())
        hints = [f"{each.needed} in all"]
        hints += [f"{'they need' if each.more > 1 else 'it needs'} {takes}"] if takes else []
        hints += [f"there is room for {each.room}"] if each.room < each.more else []
        hints += [f"teachers.{name}.max_replicas is {each.allowed}"] if each.allowed < each.needed else []
        wide = window_for(cast, name, asking, missing[name])
        hints += [f"and teachers.*.window={wide} at least"] if wide > cast.window else []
        plural = "s" if each.more > 1 else ""
        verb = f"more replica{plural} of {name} ({'; '.join(hints)})" if words or len(slow) > 1 else (
            f"more replica{plural} would balance it ({'; '.join(hints)})"
        )  # fmt: skip
        words.append(f"{each.more} {verb}")
    if not words:
        return f"teacher-bound by {asking.bound}, by a little: more replicas bring next to nothing"
    together = " and ".join(words) + (" would balance it" if len(slow) > 1 else "")
    return f"teacher-bound by {asking.bound}: {together}"


def window_for(cast: Cast, name: str, asking: Steady, share: float) -> int:
    """Micro-batches ahead with which a teacher and the student both stay busy: 1 + (an answer ÷ a step)."""
    crew, student = cast.teacher(name, "remote"), cast.student
    calls = [REPLICA_S + crew.work.seconds(server.speed, share) for server in crew.servers]
    usual = len(calls) / sum(1 / call for call in calls)
    rows = asking.samples_per_s / asking.steps_per_s
    return math.ceil((1 + usual * student.parts * asking.bounds[STUDENT] / rows) / SAME)


def _without_asking(config: Config, sizes: Sizes, found: Course) -> str:
    if not sizes.missing(config):
        return "student-bound: the store has every soft label that the students ask for"
    labels = next((stage for stage in found.stages if stage.what.startswith("soft labels")), None)
    if labels is None or not labels.bound:
        return "student-bound"
    who = {CORES: "the cores that they share", DEVICE: "the GPU that they share"}.get(labels.bound, labels.bound)
    return (
        f"teachers are asked first, bound by {who}, for {labels.seconds / max(1e-9, found.wall_s):.0%} of the time; "
        "then students train from the store, student-bound"
    )
