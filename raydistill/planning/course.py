"""How a run goes from beginning to end: its stages, their seconds, and the devices that each holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raydistill.config.models import Config
from raydistill.planning.crews import Cast
from raydistill.planning.demand import STUDENT
from raydistill.planning.rates import Steady, ahead
from raydistill.planning.sizes import Sizes, keeps

POOL_S, WORKERS_S = 4.0, 10.0  # until a replica serves, and until workers train

Pieces = list[tuple[float, Steady]]
"""Micro-steps, and how they go."""


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        samples_per_s: of the student, or rows a second of the teachers together; None where that says nothing.
        bound: who holds it up.
        holds: devices by kind: GPUs, and cores of those without one.
    """

    what: str
    seconds: float
    samples_per_s: float | None = None
    bound: str = ""
    holds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """The whole.

    Attributes:
        asking: while a student asks all teachers that have something to say; None where none does.
        way: that they are asked in: `remote`, `local`, or `stored`.
    """

    stages: tuple[Stage, ...]
    asking: Steady | None
    way: str

    @property
    def wall_s(self) -> float:
        """From the command to its report."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def device_hours(self) -> dict[str, float]:
        """By kind, as long as they are held."""
        hours: dict[str, float] = {}
        for stage in self.stages:
            for kind, amount in stage.holds.items():
                hours[kind] = hours.get(kind, 0.0) + amount * stage.seconds / 3600
        return hours


def course(config: Config, sizes: Sizes, cast: Cast, ways: Sequence[str], at_once: int = 1) -> Course:
    """From the teachers' own training to the last validation.

    Args:
        ways: to the teachers, of which a student takes the faster one; none: it reads from the store alone.
        at_once: students that train side by side; the probe was one of so many.
    """
    stages = _lessons(sizes, cast)
    missing = sizes.missing(config)
    asks = missing if ways else {}
    labels_way = "local" if config.distill.soft_labels == "local" else "remote"
    teachers = cast.held(*config.teachers) if labels_way == "remote" else {}
    if labels_way == "remote":
        stages.append(Stage("teachers start", POOL_S, holds=teachers))
    stages.append(_labels(config, sizes, cast, labels_way, train=not ways))
    way, pieces = _faster(config, sizes, cast, asks, ways)
    # Pools stay open until the store has everything.
    beside = teachers if way == "remote" else {}
    student = cast.held(STUDENT)
    students = 2 * config.num_seeds
    if config.training.num_workers:
        stages.append(Stage("workers start", WORKERS_S * students, holds=added(student, beside)))
    if at_once > 1:
        stages.append(_side_by_side(config, cast, student, min(at_once, students)))
    else:
        stages += _in_turn(config, sizes, cast, asks, pieces, student, beside)
    stages.append(_exams(config, sizes, cast, at_once))
    asking = pieces[0][1] if pieces else None
    return Course(tuple(stage for stage in stages if stage.seconds > 0), asking, way)


def _side_by_side(config: Config, cast: Cast, student: Mapping[str, float], at_once: int) -> Stage:
    """All students, so many at a time, each with its share of the cores."""
    read = cast.steady({}, "stored")
    rounds = -(-2 * config.num_seeds // at_once)
    holds = {kind: amount * at_once for kind, amount in student.items()}
    what = f"students, {at_once} side by side"
    return Stage(what, rounds * _steps(config) / read.steps_per_s, at_once * read.samples_per_s, STUDENT, holds)


def _in_turn(
    config: Config, sizes: Sizes, cast: Cast, asks: Mapping[str, float], pieces: Pieces,
    student: Mapping[str, float], beside: Mapping[str, float],
) -> list[Stage]:  # fmt: skip
    """First those that learn alone, then those that hear teachers, as far as the first of them fills the store."""
    alone, read, seeds = cast.alone(), cast.steady({}, "stored"), config.num_seeds
    together, steps = added(student, beside), seeds * _steps(config)
    stages = [Stage("students alone", steps / alone.steps_per_s, alone.samples_per_s, STUDENT, together)]
    always = not keeps(config) or any(sizes.teachers[name].always for name in asks)
    rounds = seeds if always else 1
    asked = rounds * sum(done for done, _ in pieces)
    if asked:
        seconds = rounds * sum(done / each.steps_per_s for done, each in pieces)
        rate = asked / seconds * alone.samples_per_s / alone.steps_per_s
        stages.append(Stage("distilled, asking teachers", seconds, rate, pieces[0][1].bound, together))
    left = (steps - asked) / read.steps_per_s
    return [*stages, Stage("distilled, from the store", left, read.samples_per_s, STUDENT, student)]


def _steps(config: Config) -> float:
    """Micro-steps of one student."""
    return float(config.training.num_steps * config.training.gradient_accumulation)


def _faster(
    config: Config, sizes: Sizes, cast: Cast, asks: Mapping[str, float], ways: Sequence[str]
) -> tuple[str, Pieces]:
    """Of the ways to the teachers, the one with which the asking part takes less time."""
    found = {way: asking_pieces(config, sizes, cast, asks, way) for way in ways if asks}
    if not found:
        return "stored", []
    best = min(found, key=lambda way: sum(steps / each.steps_per_s for steps, each in found[way]))
    return best, found[best]


def asking_pieces(config: Config, sizes: Sizes, cast: Cast, asks: Mapping[str, float], way: str) -> Pieces:
    """Micro-steps and how they go, until the store has everything: a task whose rows are fewer is through them sooner,
    and its teachers are not asked any more."""
    training, num_workers = config.training, max(1, config.training.num_workers)
    last = _steps(config)
    ends: dict[str, float] = {}
    for name in asks:
        task = config.teachers[name].task
        batch = training.task_batch_size.get(task, training.batch_size) * num_workers
        epoch = max(1, sizes.tasks[task].train // batch)
        always = sizes.teachers[name].always or not keeps(config)
        ends[name] = last if always else min(last, float(epoch * max(1, sizes.tasks[task].views)))
    pieces: Pieces = []
    done = 0.0
    for end in sorted(set(ends.values())):
        pieces.append((end - done, cast.steady({name: asks[name] for name in asks if ends[name] >= end}, way)))
        done = end
    return pieces


def _labels(config: Config, sizes: Sizes, cast: Cast, way: str, train: bool) -> Stage:
    """Validation and test, which every run asks first; the training rows too where that is the way."""
    rows = {}
    for name, size in sizes.teachers.items():
        task = sizes.tasks[config.teachers[name].task]
        rows[name] = max(0, task.validation + task.test - size.known_plain)
        if train:
            rows[name] += max(0, sizes.total(config, name) - size.known)
    windows = {name: teacher.window for name, teacher in config.teachers.items()}
    crews = [cast.ahead(name, way) for name in config.teachers if rows[name]]
    seconds, bound = ahead(crews, rows, windows, cast.cores, way)
    what = "soft labels, all" if train else "soft labels, validation and test"
    rate = sum(rows.values()) / seconds if seconds else None
    return Stage(what, seconds, rate, bound, cast.held(*config.teachers) if way == "remote" else cast.held(STUDENT))


def _lessons(sizes: Sizes, cast: Cast) -> list[Stage]:
    """The teachers' own training: those with a `train.placement` all at once, the others in turn."""
    lessons = {name: _lesson(sizes, cast, name) for name, size in sizes.teachers.items() if size.lessons}
    placed = [stage for name, stage in lessons.items() if name in cast.schools]
    stages = [stage for name, stage in lessons.items() if name not in cast.schools]
    if placed:
        longest = max(placed, key=lambda stage: stage.seconds)
        held = added(*({kind: amount * stage.seconds for kind, amount in stage.holds.items()} for stage in placed))
        holds = {kind: amount / longest.seconds for kind, amount in held.items()}
        names = ", ".join(stage.bound for stage in placed)
        stages.append(Stage(f"training {names}", longest.seconds, None, longest.bound, holds))
    return stages


def _lesson(sizes: Sizes, cast: Cast, name: str) -> Stage:
    size, measured = sizes.teachers[name], cast.measured.teachers[name]
    assert measured.lesson is not None
    speed, holds = cast.lesson(name)
    seconds = size.lessons * measured.lesson.seconds(speed)
    seconds += measured.ahead.of_rows(size.exams) * measured.ahead.seconds(speed)
    return Stage(f"training {name}", seconds, size.lessons * measured.lesson.rows / seconds, name, holds)


def _exams(config: Config, sizes: Sizes, cast: Cast, at_once: int) -> Stage:
    """Validation of every student, and both kinds on the test rows."""
    training = config.training
    times = -(-training.num_steps // training.evaluate_every)
    validation = sum(task.validation for task in sizes.tasks.values())
    test = sum(task.test for task in sizes.tasks.values())
    students = -(-2 * config.num_seeds // at_once)
    exam = cast.measured.exam
    rows = students * times * validation + 2 * config.num_seeds * test
    seconds = exam.of_rows(rows) * exam.seconds(cast.student.servers[0].speed)
    return Stage("validation and test", seconds, rows / seconds if seconds else None, STUDENT, cast.held(STUDENT))


def added(*held: Mapping[str, float]) -> dict[str, float]:
    """Devices by kind, of all together."""
    together: dict[str, float] = {}
    for each in held:
        for kind, amount in each.items():
            together[kind] = together.get(kind, 0.0) + amount
    return together
