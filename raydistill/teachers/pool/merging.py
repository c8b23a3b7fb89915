"""Small requests of several students, answered in one forward pass."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.data.batch import Inputs, ViewBatch
from raydistill.soft_labels.layers import NO_LAYERS, Features, Layers

Reply = tuple[NDArray[np.float16], float, Features]
Forward = Callable[[ViewBatch, Layers], tuple[NDArray[np.float16], Features]]
Asked = tuple[ViewBatch, Layers, Future[Reply]]


class Merger:
    """Gathers waiting requests up to a number of rows or a time, runs them as one batch, gives each its own rows.

    Args:
        forward: logits float16 [batch, num_classes] of views, and features of layers; only ever called from one
            thread.
        max_rows: of one merged pass. A larger request goes alone, whole.
        max_wait_s: how long the first of a batch waits for others.
        prepare: called once in the thread that computes.
    """

    def __init__(
        self, forward: Forward, max_rows: int, max_wait_s: float, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self._forward, self._max_rows, self._max_wait_s, self._prepare = forward, max_rows, max_wait_s, prepare
        self._waiting: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="merger", daemon=True).start()

    def label(self, views: ViewBatch, layers: Layers = NO_LAYERS) -> Reply:
        """The logits of these rows in their order, their share of the seconds that the pass took, and the features of
        the layers. Thread-safe.

        Raises:
            Exception: what `forward` raised for the batch that this request was part of.
        """
        future: Future[Reply] = Future()
        self._waiting.put((views, layers, future))
        return future.result()

    def _run(self) -> None:
        self._prepare()
        held: Asked | None = None
        while True:
            batch = [held or self._waiting.get()]
            held = self._gather(batch)
            self._answer(batch)

    def _gather(self, batch: list[Asked]) -> Asked | None:
        """Add to a batch of one; returns a request that did not fit, which begins the next batch."""
        ends = time.monotonic() + self._max_wait_s
        rows = len(batch[0][0])
        while rows < self._max_rows:
            try:
                # What already waits comes along even when the time is over.
                request = self._waiting.get(timeout=max(1e-6, ends - time.monotonic()))
            except queue.Empty:
                return None
            if rows + len(request[0]) > self._max_rows or not _alike(batch[0], request):
                return request
            batch.append(request)
            rows += len(request[0])
        return None

    def _answer(self, batch: list[Asked]) -> None:
        began = time.perf_counter()
        try:
            logits, features = self._forward(merged([views for views, _, _ in batch]), batch[0][1])
        except Exception as error:  # noqa: BLE001 -- whatever it is, it belongs to those who asked
            for _, _, future in batch:
                future.set_exception(error)
            return
        busy_s = time.perf_counter() - began
        start = 0
        for views, _, future in batch:
            end = start + len(views)
            # A copy: a slice would keep the whole pass alive, and send it.
            own = {layer: values[start:end].copy() for layer, values in features.items()}
            future.set_result((logits[start:end].copy(), busy_s * len(views) / max(1, len(logits)), own))
            start = end


def merged(batches: list[ViewBatch]) -> ViewBatch:
    """One batch with the rows of all, in order. They have the same domain, rate and picture size."""
    if len(batches) == 1:
        return batches[0]
    inputs: Any
    if isinstance(batches[0].inputs, np.ndarray):
        inputs = np.concatenate([batch.inputs for batch in batches])
    else:
        inputs = [row for batch in batches for row in batch.inputs]
    together: Inputs = inputs
    return replace(
        batches[0],
        inputs=together,
        labels=np.concatenate([batch.labels for batch in batches]),
        sample_ids=np.concatenate([batch.sample_ids for batch in batches]),
    )


def _alike(first: Asked, second: Asked) -> bool:
    (one, layers, _), (other, other_layers, _) = first, second
    if layers != other_layers or any(layer.positions for layer in layers):
        return False  # padded to the longest of all, positions would depend on the others
    shapes = [views.inputs.shape[1:] if isinstance(views.inputs, np.ndarray) else None for views in (one, other)]
    return (one.domain, one.sample_rate, shapes[0]) == (other.domain, other.sample_rate, shapes[1])
