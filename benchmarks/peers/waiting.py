"""A teacher that waits instead of computing, behind the real replica, supervisor and client."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

import raydistill
from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.teachers.pool.canary import canary_views
from raydistill.teachers.pool.client import PoolClient
from raydistill.teachers.pool.launcher import RayLauncher
from raydistill.teachers.pool.messages import Loaded, PoolSpec
from raydistill.teachers.pool.names import NAMESPACE, SUPERVISOR
from raydistill.teachers.pool.placement import placement_options, shared_actor
from raydistill.teachers.pool.replica import CONTROL, TeacherReplica
from raydistill.teachers.pool.supervisor import SupervisorActor

TASK, TEACHER, SIDE, NUM_CLASSES = "pictures", "waiting", 28, 10
STARTED_WITHIN_S = 180.0


def spend(seconds: float, computes: bool = False) -> None:
    """Wait, or keep a core busy for as long."""
    if not computes:
        time.sleep(seconds)
        return
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


class WaitingTeacher:
    """Answers zeros after a while. No torch: a process with it takes four times as much memory."""

    def __init__(self, wait_s: float = 0.0, row_s: float = 0.0, computes: bool = False) -> None:
        self._wait_s, self._row_s, self._computes = wait_s, row_s, computes

    def logits(self, views: ViewBatch) -> NDArray[np.float16]:
        spend(self._wait_s + self._row_s * len(views), self._computes)
        return np.zeros((len(views), NUM_CLASSES), np.float16)

    def answer(self, views: ViewBatch, layers: object = ()) -> tuple[NDArray[np.float16], dict[Any, Any]]:
        return self.logits(views), {}


class WaitingReplica(TeacherReplica):
    def _load(self) -> Loaded:
        teacher: Any = WaitingTeacher(**self._spec.settings.options)
        self._teacher = teacher
        return Loaded({"fingerprint": self._spec.teacher, "pid": os.getpid()}, teacher.logits(self._spec.canary))


class WaitingLauncher(RayLauncher):
    def start(self, spec: PoolSpec, name: str) -> Any:
        replica: Any = ray.remote(concurrency_groups={CONTROL: 1}, max_restarts=0, max_task_retries=0)(WaitingReplica)
        replica.options(**(shared_actor(name) | placement_options(spec.settings.placement))).remote(spec)
        return ray.get_actor(name, namespace=NAMESPACE)


class WaitingSupervisor(SupervisorActor):
    def __init__(self) -> None:
        super().__init__()
        self._launcher = WaitingLauncher()

    def pid(self) -> int:
        return os.getpid()


def start_supervisor() -> Any:
    """Who comes first makes it: all others find this one by its name. On the head, as the real one."""
    actor: Any = ray.remote(WaitingSupervisor)
    head = {"node:__internal_head__": 0.001}
    return actor.options(**shared_actor(SUPERVISOR), num_cpus=0, resources=head, max_concurrency=1).remote()


def waiting_config(wait_s: float, replicas: int) -> Config:
    data = {"source": "disk", "path": "-", "image_size": SIDE, "grayscale": True}
    teacher = {
        "task": TASK, "loader": "python", "model": "none", "options": {"wait_s": wait_s},
        "placement": {"num_cpus": 0}, "min_replicas": replicas,
    }  # fmt: skip
    return raydistill.load_config(
        {"name": "scale-out", "tasks": {TASK: {"domain": "vision", "data": data}}, "teachers": {TEACHER: teacher},
         "ray": {"num_cpus": os.cpu_count() or 1}}
    )  # fmt: skip


def joined(config: Config, replicas: int, within_s: float = STARTED_WITHIN_S) -> PoolClient:
    """A client of the one pool that wants so many replicas, once they serve."""
    labels = tuple(str(number) for number in range(NUM_CLASSES))
    spec = PoolSpec("0" * 64, TEACHER, config, labels, canary_views(config.tasks[TASK]), tuple(sys.path))
    client = PoolClient({TEACHER: spec})
    deadline = time.monotonic() + within_s
    while client.link(TEACHER).num_serving < replicas:
        if time.monotonic() > deadline:
            serving = client.link(TEACHER).num_serving
            sys.exit(f"{serving} of {replicas} replicas serve after {within_s:.0f} s; try fewer")
        time.sleep(0.05)
    return client


def request(num_rows: int) -> ViewBatch:
    """Black pictures."""
    pixels = np.zeros((num_rows, SIDE, SIDE, 1), np.uint8)
    return ViewBatch("vision", pixels, np.full(num_rows, -1, np.int64), np.arange(num_rows, dtype=np.int64), 0)
