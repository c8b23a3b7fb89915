"""Students that join a pool of teachers, ask for a while, and leave: threads of this process, and processes.

`soak.py` starts them; run as a script, this is one of the processes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import raydistill
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit
from raydistill.teachers.pool.opening import open_pools

TASK, TEACHER, LABELS, SIDE = "pictures", "resnet", tuple("0123456789"), 28
ROWS, BATCH, STEP_S = 8192, 32, 0.05  # a split's; a student's, which takes 50 ms for its own step
LEASE_S = 5


def make_config(folder: Path) -> Config:
    """A small convolutional teacher of random pictures."""
    data = {"source": "imagefolder", "path": str(folder), "image_size": SIDE, "grayscale": True}
    teacher = {
        "task": TASK, "loader": "torchvision", "model": "resnet", "checkpoint": str(folder / "teacher"),
        "options": {"layers": [1, 1, 1, 1], "small_images": True}, "min_replicas": 1, "max_replicas": 2,
        "precision": "fp32",
    }  # fmt: skip
    return raydistill.load_config({
        "name": "soak", "cache_dir": str(folder / "cache"), "tasks": {TASK: {"domain": "vision", "data": data}},
        "teachers": {TEACHER: teacher}, "distill": {"soft_labels": "remote"}, "ray": {"lease_s": LEASE_S},
    })  # fmt: skip


def save_random_teacher(config: Config) -> None:
    """Its answers take as long as a trained one's."""
    from raydistill.teachers.checkpoints import save_teacher, teacher_folder
    from raydistill.teachers.models import build

    network = build(TEACHER, config.teachers[TEACHER], "vision", config.tasks[TASK].data, len(LABELS), None)
    save_teacher(network, teacher_folder(config, TEACHER), {"label_names": LABELS})


def study(config: Config, seconds: float, split: str, seed: int) -> None:
    """A student's life: join, ask about random rows of a split that others ask about too, leave.

    Args:
        seconds: that it asks for; waiting for a teacher to load comes on top.

    Raises:
        TeacherError, SoftLabelError: what would end a training.
    """
    draw = np.random.default_rng(seed)

    def batches() -> Iterator[dict[str, ViewBatch]]:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            rows = draw.choice(ROWS, BATCH, replace=False)
            pixels = draw.integers(0, 256, (BATCH, SIDE, SIDE, 1), dtype=np.uint8)
            yield {TASK: ViewBatch("vision", pixels, np.full(BATCH, -1, np.int64), rows, 0)}

    with open_pools(config, {TASK: LABELS}, lambda _: None) as pools:
        fingerprint = str(pools.descriptions[TEACHER]["fingerprint"])
        taught = TaughtSplit(fingerprint, TASK, "train", split, ROWS, len(LABELS), (0,))
        stream = LabelStream(config, config.teachers, pools.client(), RunTables(config, {TEACHER: taught}))
        try:
            for _, targets in stream.stream(batches()):
                assert not any(np.isnan(logits).any() for logits in targets[TASK].logits.values()), (
                    "a row without a soft label"
                )
                time.sleep(STEP_S)
        finally:
            stream.close()


class ThreadStudent:
    """In this process, which lives on: what it leaves behind here would add up."""

    def __init__(self, config: Config, seconds: float, split: str, seed: int) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._life = self._thread.submit(study, config, seconds, split, seed)
        self.error = ""

    def over(self) -> bool:
        """Whether it has left; `error` then says why, unless all went well."""
        if not self._life.done():
            return False
        self._thread.shutdown()
        error = self._life.exception()
        self.error = f"{type(error).__name__}: {error}" if error else ""
        return True


class ProcessStudent:
    """In a process of its own, which may be killed."""

    def __init__(self, folder: Path, address: str, seconds: float, split: str, seed: int) -> None:
        self._log = (folder / f"student-{seed}.txt").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder), address, str(seconds), split, str(seed)],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.error = ""

    def over(self) -> bool:
        """Whether it has left or was killed; `error` then says why, unless all went well."""
        code = self.process.poll()
        if code is None:
            return False
        if code not in (0, -signal.SIGKILL):
            self._log.seek(0)
            self.error = f"exit code {code}: {self._log.read()[-1000:]}"
        self._log.close()
        Path(self._log.name).unlink()
        return True


def main() -> None:
    import ray

    folder, address, seconds, split, seed = sys.argv[1:]
    ray.init(address, log_to_driver=False, logging_level="ERROR")
    study(make_config(Path(folder)), float(seconds), split, int(seed))


if __name__ == "__main__":
    main()
