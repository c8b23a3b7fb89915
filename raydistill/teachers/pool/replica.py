"""A teacher behind a Ray actor: a thin shell round the plain class. Importing this needs no torch."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from numpy.typing import NDArray

from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.layers import NO_LAYERS, Features, Layers
from raydistill.teachers.pool.merging import Merger
from raydistill.teachers.pool.messages import Loaded, PoolSpec, ReplicaStats
from raydistill.teachers.pool.metrics import ReplicaMetrics

if TYPE_CHECKING:
    from raydistill.teachers.teacher import Teacher

CONTROL = "control"
# With merging: this many requests can wait inside at one time.
MERGED_REQUESTS = 32
ORPHAN_AFTER_S = 60.0


class TeacherReplica:
    """Loads its teacher on the device that Ray gave it and answers whole micro-batches.

    Replies are NumPy arrays: Ray reads those zero-copy, torch tensors ten times slower. The methods of the control
    group answer at once, whatever the others do.

    Args:
        orphan_after_s: without a supervisor's ping or a request for this long, the process ends itself.
    """

    def __init__(self, spec: PoolSpec, orphan_after_s: float | None = None) -> None:
        self._spec = spec
        self._teacher: Teacher | None = None
        self._merger: Merger | None = None
        self._loaded: Loaded | None = None
        self._metrics = ReplicaMetrics(spec.teacher)
        self._count = threading.Lock()
        self._rows = self._requests = self._under_way = 0
        self._busy_s = 0.0
        self._began_s = 0.0
        self._asked = self._pinged = time.monotonic()
        # First: what this process has so far is the path of whichever driver began the supervisor.
        sys.path[:0] = spec.import_path
        patience_s = orphan_after_s or max(ORPHAN_AFTER_S, 3 * spec.config.ray.lease_s)
        threading.Thread(target=self._end_as_orphan, args=(patience_s,), name="orphan-watch", daemon=True).start()

    def load(self) -> Loaded:
        """Load the teacher and answer the canary; the second time only tell of it.

        Apart from the constructor, so that a ping tells a replica that loads from one that Ray finds no room for,
        and an error of ours arrives as it was raised.

        Raises:
            TeacherError: see `load_teacher`.
        """
        if self._loaded is None:
            self._begin()
            try:
                self._loaded = self._load()
            finally:
                self._done()
        return self._loaded

    def _load(self) -> Loaded:
        from raydistill.devices import device_given
        from raydistill.teachers.teacher import load_teacher

        settings = self._spec.settings
        device = str(device_given(settings.placement.num_gpus))
        self._limit_threads()
        # What Ray hands over is read-only, and we only read it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self._teacher = load_teacher(self._spec.config, self._spec.teacher, self._spec.label_names, device)
        if settings.max_batch_size is not None:
            self._merger = Merger(
                self._teacher.answer, settings.max_batch_size, settings.max_wait_ms / 1e3, self._limit_threads
            )
        context = ray.get_runtime_context()
        description = {
            **self._teacher.describe(),
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "gpu_ids": context.get_accelerator_ids().get("GPU", []),
        }
        return Loaded(description, self._teacher.logits(self._spec.canary))

    def label(self, views: ViewBatch, layers: Layers = NO_LAYERS) -> tuple[NDArray[np.float16], float, Features]:
        """Raw logits [batch, num_classes] in the task's label order, the seconds that they took, and features."""
        teacher = self._at_work()
        began = time.perf_counter()
        try:
            if self._merger is not None:
                logits, busy_s, features = self._merger.label(views, layers)
            else:
                logits, features = teacher.answer(views, layers)
                busy_s = time.perf_counter() - began
        finally:
            self._done()
        with self._count:
            self._rows += len(views)
            self._busy_s += busy_s
        self._metrics.answered(len(views), time.perf_counter() - began)
        return logits, busy_s, features

    def latency_ms(self, views: ViewBatch) -> float:
        """See `Teacher.latency_ms`; without the way here and back."""
        teacher = self._at_work()
        try:
            return teacher.latency_ms(views)
        finally:
            self._done()

    @ray.method(concurrency_group=CONTROL)
    def ping(self) -> ReplicaStats:
        """A sign of life, at once."""
        self._pinged = time.monotonic()
        with self._count:
            computing_s = time.monotonic() - self._began_s if self._under_way and self._merger is None else 0.0
            idle_s = 0.0 if self._under_way else time.monotonic() - self._asked
            return ReplicaStats(os.getpid(), self._rows, self._requests, self._busy_s + computing_s, idle_s)

    @ray.method(concurrency_group=CONTROL)
    def describe(self) -> Loaded | None:
        """What `load` gave, at once; None where it has not ended."""
        self._pinged = time.monotonic()
        return self._loaded

    def _at_work(self) -> Teacher:
        assert self._teacher is not None, "asked before it was loaded"
        self._begin()
        return self._teacher

    def _begin(self) -> None:
        with self._count:
            self._under_way += 1
            self._began_s = self._asked = time.monotonic()

    def _done(self) -> None:
        with self._count:
            self._under_way -= 1
            self._requests += 1
            self._asked = time.monotonic()

    def _limit_threads(self) -> None:
        """Ray promises cores and limits nothing. More threads than cores wait for each other most of the time."""
        import torch

        torch.set_num_threads(max(1, int(self._spec.settings.placement.num_cpus)))

    def _end_as_orphan(self, patience_s: float) -> None:
        """Nothing may be left running for ever, even where supervisor and students all died at once."""
        while True:
            time.sleep(min(5.0, patience_s / 4))
            # A request under way has its time limit, after which nobody waits for it any more.
            limit_s = patience_s + (self._spec.settings.timeout_s if self._under_way else 0.0)
            if time.monotonic() - max(self._pinged, self._asked) > limit_s:
                os._exit(0)


def replica_actor(spec: PoolSpec) -> Any:
    """The Ray actor class for a pool's replicas."""
    return _actor_class(merges=spec.settings.max_batch_size is not None)


# Made once: Ray keeps a copy of every actor class that it is given, for as long as the cluster lives.
@cache
def _actor_class(merges: bool) -> Any:
    # max_restarts=0: the supervisor replaces what died, without Ray's pause.
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}
    if merges:
        options["max_concurrency"] = MERGED_REQUESTS
    remote: Any = ray.remote
    return remote(concurrency_groups={CONTROL: 1}, **options)(TeacherReplica)
