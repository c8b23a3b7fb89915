"""What a probe found: how long one micro-batch takes, of whom, on what. And how fast another device would be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from raydistill.errors import ConfigError
from raydistill.planning.nodes import ACCELERATORS, CPU, GPU, named

REACHED = 0.3  # of a data sheet's throughput, by models that fill the device; small ones reach less


@dataclass(frozen=True)
class Work:
    """One call: a micro-batch of the student, or a request to a teacher.

    Attributes:
        rows: of it.
        host_s: seconds that the host takes to prepare its inputs, which another device does not change.
        device_s: seconds of all else.
        cores: kept busy meanwhile, on average.
        threads: of torch, while it was measured.
    """

    rows: int
    host_s: float
    device_s: float
    cores: float = 1.0
    threads: int = 1

    def seconds(self, speed: float = 1.0, share: float = 1.0) -> float:
        """On a device `speed` times as fast, for a `share` of the rows."""
        return share * (self.host_s + self.device_s / speed)

    def on_gpu(self) -> Work:
        """The same of somebody who was measured on a processor and will be on a GPU, which one thread keeps busy."""
        return replace(self, cores=min(1.0, self.cores))

    def of_rows(self, rows: float) -> float:
        """How many of these calls so many rows are."""
        return rows / self.rows


@dataclass(frozen=True)
class MeasuredTeacher:
    """One teacher.

    Attributes:
        asked: by way (`remote`: in an actor, `local`: in the student's process), its answer to a student's micro-batch.
        ahead: its answer to `batch_size` rows, as it is asked ahead of the training.
        keeping_s: of the student's own time, to claim a micro-batch's rows, to keep the answer and to read it.
        reading_s: the same, to read it where the store has all of it.
        lesson: a step of its own training; None where it is trained.
        size_bytes: of its weights.
    """

    asked: Mapping[str, Work]
    ahead: Work
    keeping_s: float = 0.0
    reading_s: float = 0.0
    lesson: Work | None = None
    size_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """All of a run.

    Attributes:
        device: that was probed: `CPU`, or a kind of GPU.
        student: a micro-batch of its training, one optimizer step's share included.
        exam: the rows of a validation, which it answers without learning.
    """

    device: str
    student: Work
    exam: Work
    teachers: Mapping[str, MeasuredTeacher]


@dataclass(frozen=True)
class Speeds:
    """How fast other devices are beside the one that was probed.

    Args:
        probed: `CPU` or a kind of GPU.
        tflops: that a matrix product reached on the probed CPU, 10¹² operations a second; 0: not measured.
        given: by kind, times as fast as the probed one: the user's own figures.
    """

    probed: str
    tflops: float = 0.0
    given: Mapping[str, float] = field(default_factory=dict)

    def of(self, kind: str) -> float:
        """Of a kind of GPU, or of a CPU for those that ask for no GPU."""
        if kind in self.given:
            return self.given[kind]
        if kind in (self.probed, CPU) or kind not in ACCELERATORS:
            return 1.0
        if self.probed in ACCELERATORS:
            return ACCELERATORS[kind].tflops / ACCELERATORS[self.probed].tflops
        return max(1.0, REACHED * ACCELERATORS[kind].tflops / self.tflops) if self.tflops else 1.0

    def remarks(self, kinds: Iterable[str]) -> list[str]:
        """How sure these are, in words."""
        lines = []
        for kind in dict.fromkeys(kinds):
            if kind in (self.probed, CPU):
                continue
            speed = f"{kind} is taken as {self.of(kind):,.3g} times the probed {self.probed}"
            if kind in self.given:
                lines.append(f"{speed}, as --speed says")
            elif kind == GPU or kind not in ACCELERATORS:
                lines.append(f"nobody says how fast {kind} is: taken as the probed {self.probed}; say --speed {kind}=N")
            elif self.probed in ACCELERATORS:
                lines.append(f"{speed}, by the tensor throughput of their data sheets")
            else:
                lines.append(
                    f"rough: {speed}, which is {REACHED:.0%} of its data sheet beside a matrix product here; small "
                    f"models and batches gain far less. Run this on a machine with one, or say --speed {kind}=N"
                )
        return lines


def parse_speeds(words: Iterable[str], there: Collection[str] = ()) -> dict[str, float]:
    """From `L4=3.5`: by kind, times as fast as the device that is probed.

    Args:
        there: kinds of the nodes, which may be none that are known here.

    Raises:
        ConfigError: no such pair, no such kind, or no number above zero.
    """
    speeds = {}
    for word in words:
        kind, _, text = word.partition("=")
        try:
            speed = float(text)
        except ValueError:
            speed = 0.0
        if not 0 < speed < float("inf"):
            raise ConfigError(f"--speed: {word!r} is no KIND=TIMES; write L4=3.5 for 3.5 times the probed device")
        speeds[kind if kind in there else kind.upper() if kind.upper() == GPU else named(kind, "--speed")] = speed
    return speeds
