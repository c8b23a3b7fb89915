"""Teachers at work for a moment: how long real micro-batches take on this machine. Nothing of it is kept."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch

from raydistill.config.models import Config, TeachConfig
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.data.preparing import prepared
from raydistill.devices import device_given
from raydistill.planning.measured import MeasuredTeacher, Work
from raydistill.planning.nodes import ACCELERATORS, GPU
from raydistill.precision import autocast, cpu_has_bf16, use_bf16
from raydistill.soft_labels.questions import claim
from raydistill.soft_labels.store import LabelKey, LabelStore
from raydistill.teachers.fit import teaching_device
from raydistill.teachers.labelling import missing_batches
from raydistill.teachers.teacher import Teacher, build_teacher, load_teacher
from raydistill.timing import median_ms
from raydistill.training.batches import plan_rows

META = torch.device("meta")
CALL_S = 0.5  # a teacher that needs longer for its rows is asked about fewer
FEW = 8  # rows of a first look
BATCHES, LEAST = 32, 3  # different micro-batches, for lengths differ: at most and at least
KEPT = 60  # micro-batches that are kept for the moment
OTHER_BYTES = 2**26  # more than a processor's caches hold
SIDE = 1024  # of the matrices that tell how fast a processor is


@dataclass(frozen=True)
class ProbedTeacher:
    """A teacher's times; and the fingerprint that the store knows it by, empty where it is not trained yet."""

    measured: MeasuredTeacher
    fingerprint: str


def probe_teacher(
    config: Config, name: str, data: Mapping[str, TaskData], threads: Mapping[str, int], trained: bool
) -> ProbedTeacher:
    """Ask one teacher a few times; an untrained network is as fast as a trained one.

    Args:
        config: of a regression task with its scales.
        threads: by way (`remote`, `local`) that the student may reach it, torch's threads.
        trained: its checkpoint is there.

    Raises:
        TeacherError: it cannot be built or loaded, or gives no logits.
    """
    settings = config.teachers[name]
    task = data[settings.task]
    device = device_given(settings.placement.num_gpus)
    inputs_on = inputs_timed_on(device, settings.placement.num_gpus)
    if trained:
        teacher = load_teacher(config, name, task.label_names, str(device))
    else:
        network = build_teacher(config, name, task.label_names)
        network.module.to(device)
        columns = np.arange(len(task.label_names), dtype=np.int64)
        teacher = Teacher(name, settings.task, network, columns, use_bf16(settings.precision, device))
    sampler = plan_rows(config, dict(data), "distilled", config.seed)[settings.task].sampler
    drawn = [sampler.micro_batch(number) for number in range(BATCHES)]
    asked = [task.train.views(each.rows, each.view) for each in drawn]
    keeping_s, reading_s = probe_store(len(drawn[0].rows), len(task.label_names))
    chunks = missing_batches(task.train, np.zeros(len(task.train), dtype=bool), settings.batch_size)
    some = np.random.default_rng(0).permutation(len(chunks))[:BATCHES]  # they come by length
    with torch_threads(next(iter(threads.values()))):
        ahead = _answer(teacher, [task.train.views(chunks[each], drawn[0].view) for each in some], inputs_on)
    answers = {}
    for way, count in threads.items():
        with torch_threads(count):
            answers[way] = _answer(teacher, asked, inputs_on)
    if settings.placement.num_gpus and device.type == "cpu":
        ahead, answers = ahead.on_gpu(), {way: each.on_gpu() for way, each in answers.items()}
    lesson = None if trained or settings.train is None else _lesson(teacher, task, settings.train)
    measured = MeasuredTeacher(answers, ahead, keeping_s, reading_s, lesson, teacher.size_bytes)
    return ProbedTeacher(measured, teacher.fingerprint if trained else "")


def probe_store(num_rows: int, num_classes: int) -> tuple[float, float]:
    """Seconds of claiming, keeping and reading so many soft labels, and of reading alone; in a store for the moment."""
    with tempfile.TemporaryDirectory(prefix="raydistill-plan-") as folder:
        table = LabelStore(Path(folder)).table(LabelKey("probe", "rows", 0), num_rows * KEPT, num_classes)
        order = np.random.default_rng(0).permutation(num_rows * KEPT).reshape(KEPT, num_rows)
        logits = np.zeros((num_rows, num_classes), np.float16)
        other = np.ones(OTHER_BYTES, np.uint8)
        keeping, reading = [], []
        try:
            for rows in order:
                other.sum()  # as a student's step does, it leaves none of this in the processor's caches
                began = time.perf_counter()
                table.known(rows)
                claim(table, rows)
                table.write(rows, logits)
                half = time.perf_counter()
                table.known(rows)
                table.read(rows)
                keeping.append(time.perf_counter() - began)
                reading.append(time.perf_counter() - half)
        finally:
            table.close()
    return statistics.fmean(keeping), statistics.fmean(reading)  # now and then a shard is written


def inputs_timed_on(device: torch.device, num_gpus: float) -> torch.device:
    """Where inputs are sent to while the host's part of their preparation is timed.

    Args:
        device: that is probed.
        num_gpus: of whoever will do it. Of somebody who will be on a GPU, and is probed without one, all that is
            computed there counts as the device's: `meta` computes nothing.
    """
    return META if num_gpus and device.type == "cpu" else device


def _answer(teacher: Teacher, batches: list[ViewBatch], inputs_on: torch.device) -> Work:
    """A request of as many rows as the largest of these."""
    rows = max(len(each) for each in batches)
    few = batches[0].take(np.arange(min(FEW, len(batches[0]))))
    teacher.logits(few)
    began = time.perf_counter()
    teacher.logits(few)
    most = max(FEW, int(CALL_S * len(few) / (time.perf_counter() - began)))
    fewer = [each.take(np.arange(min(len(each), most))) for each in batches]
    answered = timed([(len(each), partial(teacher.logits, each)) for each in fewer])
    host = timed(
        [(len(each), partial(prepared, teacher.network.prepare, each, inputs_on)) for each in fewer], budget_s=0.3
    )
    return work(rows, rows * answered.row_s, rows * host.row_s, answered.cores)


def _lesson(teacher: Teacher, task: TaskData, settings: TeachConfig) -> Work:
    """A step of its own training, on whatever `teach` would train it; the weights are nobody's."""
    device = teaching_device(settings)
    module = teacher.network.module.to(device).train()
    bf16 = use_bf16(settings.precision, device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)
    views = task.train.views(np.arange(min(settings.batch_size, len(task.train))), 1 if task.settings.augment else 0)

    def step() -> None:
        inputs = prepared(teacher.network.prepare, views, device)
        with autocast(device, bf16):
            loss = teacher.network.logits(inputs).float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    rows = len(views)
    answered = timed([(rows, step)] * LEAST)
    inputs_on = inputs_timed_on(device, settings.placement.num_gpus if settings.placement else 0.0)
    host = timed([(rows, partial(prepared, teacher.network.prepare, views, inputs_on))] * LEAST)
    return work(rows, rows * answered.row_s, rows * host.row_s, answered.cores)


@dataclass(frozen=True)
class Timed:
    """Seconds of a row, and the cores that it kept busy."""

    row_s: float
    cores: float


def timed(calls: Sequence[tuple[int, Callable[[], object]]], budget_s: float = 1.5) -> Timed:
    """The mean over calls of so many rows that are not alike, each once, as far as the time goes; three at least."""
    calls[0][1]()
    began, busy, rows = time.perf_counter(), time.process_time(), 0
    for number, (count, call) in enumerate(calls):
        if number >= LEAST and time.perf_counter() - began > budget_s:
            break
        call()
        rows += count
    seconds = time.perf_counter() - began
    return Timed(seconds / rows, (time.process_time() - busy) / seconds)


def work(rows: int, seconds: float, host_s: float, cores: float) -> Work:
    """A call whose inputs take `host_s` of its seconds, as far as both can be told apart."""
    host_s = min(host_s, 0.9 * seconds)
    return Work(rows, host_s, seconds - host_s, cores, torch.get_num_threads())


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many, for as long as the block lasts; no more than torch takes by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(count, before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Neighbours:
    """Watches, from when it is made, whether other processes take part of the machine."""

    def __init__(self) -> None:
        self._began = self._look()

    def share(self) -> float:
        """Of all cores, the part that others took since then."""
        now_s, busy_s, own_s = self._look()
        passed_s = max(1e-9, now_s - self._began[0]) * (os.cpu_count() or 1)
        return max(0.0, busy_s - self._began[1] - (own_s - self._began[2])) / passed_s

    def _look(self) -> tuple[float, float, float]:
        times = psutil.cpu_times()._asdict()
        # A guest's time is in the user's already.
        idle = ("idle", "iowait", "guest", "guest_nice", "steal")
        return time.perf_counter(), sum(s for name, s in times.items() if name not in idle), time.process_time()


def matmul_tflops() -> float:
    """10¹² operations a second of a matrix product on this processor, all threads."""
    kind = torch.bfloat16 if cpu_has_bf16() else torch.float32
    one = torch.ones(SIDE, SIDE, dtype=kind)
    return 2 * SIDE**3 / (median_ms(lambda: one @ one, budget_s=0.3) / 1e3) / 1e12


def gpu_here() -> str:
    """The kind of this machine's GPU, `GPU` where its name is not known; empty without one."""
    if not torch.cuda.is_available():
        return ""
    words = torch.cuda.get_device_name().upper().replace("-", " ").split()
    return next((kind for kind in ACCELERATORS if kind in words), GPU)
