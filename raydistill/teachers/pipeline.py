"""Label whole splits with Ray Data: a stream of rows through a pool of actors that hold the teacher."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.models import Config
from raydistill.data.dataset import Prepared, Split, load_task_data
from raydistill.errors import RaydistillError, TeacherError, first_line
from raydistill.soft_labels.source import TeacherCost
from raydistill.soft_labels.store import LabelTable
from raydistill.teachers.attempts import MOST, Attempts
from raydistill.teachers.labelling import missing_batches
from raydistill.teachers.pool.placement import placement_options

BATCHES_PER_BLOCK = 8  # small blocks keep all actors busy to the end
LOAD_LEAST_S = 60.0  # a process that imports its libraries is not a teacher that hangs
Columns = dict[str, Any]


class LabelWorker:
    """What each actor of the pipeline holds: the teacher, and its task's memory-mapped rows.

    Args:
        name: the teacher's.
        label_names: its task's, in head order.
        attempts: Ray Data itself would retry a batch that ends its actor for ever.
        prepared: the rows as the command has them.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        label_names: tuple[str, ...],
        attempts: Attempts,
        prepared: Prepared | None = None,
    ) -> None:
        import torch

        from raydistill.teachers.local import load_teachers

        settings = config.teachers[name]
        self.name, self.num_classes, self.attempts = name, len(label_names), attempts
        self.teacher = load_teachers(config, {settings.task: label_names}, [name])[name]
        cache_dir = Path(config.cache_dir).expanduser()
        data = load_task_data(settings.task, config.tasks[settings.task], cache_dir, prepared=prepared)
        self.splits: list[Split] = [data.validation, data.test, data.train]
        self.timeout_s, self.error = settings.timeout_s, ""
        # A teacher that hangs is left in its thread. How many threads torch takes is a thread's own matter.
        num_threads = max(1, int(settings.placement.num_cpus))
        self.thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(num_threads,))

    def __call__(self, asked: Columns) -> Columns:
        """Rows of one or more (split, view) in, the same with `logits`, `busy_s` and `error` out.

        An error is an answer too: raised, it would come out of Ray Data as a page of its own, without its cause.
        """
        num_rows = len(asked["row"])
        logits, busy_s = np.zeros((num_rows, self.num_classes), np.float16), np.zeros(num_rows)
        # After the first error the driver ends it all: what comes behind in the same block must not take its time.
        self.error = self.error or self._try(asked, logits, busy_s)
        return {**asked, "logits": logits, "busy_s": busy_s, "error": np.full(num_rows, self.error)}

    def _try(self, asked: Columns, logits: NDArray[np.float16], busy_s: NDArray[np.float64]) -> str:
        """Fill in what is asked; returns what went wrong."""
        num_rows, teacher = len(asked["row"]), f"teacher {self.name!r}"
        batch = "-".join(str(asked[column][0]) for column in ("split", "view", "row"))
        with self.attempts.counted(batch) as died:
            if died >= MOST:
                return (
                    f"{teacher}: {died} processes died in turn of one batch of {num_rows} rows while labelling; see "
                    f"their logs and memory, or lower teachers.{self.name}.batch_size"
                )
            answer = self.thread.submit(self._answer, asked, logits, busy_s)
            if not wait([answer], self.timeout_s).done:
                return (
                    f"{teacher}: no reply to {num_rows} rows within {self.timeout_s:g} s while labelling; raise "
                    f"teachers.{self.name}.timeout_s or give it more CPUs"
                )
            try:
                answer.result()
            except RaydistillError as ours:
                return str(ours)
            except Exception as theirs:  # noqa: BLE001 -- whatever it is, the driver says it
                return f"{teacher} failed while labelling: {first_line(theirs)}"
        return ""

    def _answer(self, asked: Columns, logits: NDArray[np.float16], busy_s: NDArray[np.float64]) -> None:
        for split, view in {(int(s), int(v)) for s, v in zip(asked["split"], asked["view"], strict=True)}:
            here = np.flatnonzero((asked["split"] == split) & (asked["view"] == view))
            views = self.splits[split].views(asked["row"][here], view)
            began = time.perf_counter()
            logits[here] = self.teacher.logits(views)
            busy_s[here] = (time.perf_counter() - began) / len(here)


def describe_teacher(config: Config, name: str, label_names: tuple[str, ...]) -> dict[str, Any]:
    """Name and fingerprint of the teacher, as it answers where it is placed.

    Raises:
        TeacherError: it cannot be loaded, or not in time.
    """
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    def load() -> dict[str, Any]:
        from raydistill.teachers.local import load_teachers

        return load_teachers(config, {settings.task: label_names}, [name])[name].describe()

    settings = config.teachers[name]
    limit_s = max(LOAD_LEAST_S, settings.timeout_s)
    reference = ray.remote(load).options(max_retries=0, **placement_options(settings.placement)).remote()
    try:
        described: dict[str, Any] = ray.get(reference, timeout=limit_s)
    except GetTimeoutError as error:
        ray.cancel(reference, force=True)
        raise TeacherError(
            f"teacher {name!r} was not loaded within {limit_s:.0f} s; free what it takes (`raydistill teachers` lists "
            f"what runs), or raise teachers.{name}.timeout_s if it only needs longer"
        ) from error
    except RayError as error:
        raise _own_error(name, error) from error
    return described


def blocks(
    tables: dict[tuple[int, int], LabelTable], splits: list[Split], batch_size: int
) -> tuple[list[pa.Table], int]:
    """The rows that nobody knows or computes, claimed: in blocks of a few batches, those of like length together.

    Args:
        tables: by (split, view).
        splits: validation, test, train.
    """
    made, num_rows = [], 0
    for (split, view), table in tables.items():
        table.refresh()
        missing = np.flatnonzero(~table.known(np.arange(table.num_rows)))
        ours = missing[table.claim(missing)] if len(missing) else missing
        known = np.ones(table.num_rows, dtype=bool)
        known[ours] = False
        chunks = missing_batches(splits[split], known, batch_size * BATCHES_PER_BLOCK)
        for rows in chunks:
            made.append(pa.table({"split": np.full(len(rows), split), "view": np.full(len(rows), view), "row": rows}))
        num_rows += len(ours)
    return made, num_rows


def stream_labels(
    config: Config,
    name: str,
    label_names: tuple[str, ...],
    tables: dict[tuple[int, int], LabelTable],
    splits: list[Split],
    on_written: Callable[[int, int], None],
    num_actors: int,
    prepared: Prepared | None = None,
) -> TeacherCost:
    """Fill the tables with what they do not have, as answers come; a kill loses the last few seconds.

    Args:
        name: the teacher's.
        label_names: its task's, in head order.
        tables: by (0 = validation, 1 = test, 2 = train; view).
        splits: those three.
        on_written: hears (rows done, rows to do) after each block; what it raises ends the pipeline.
        num_actors: at most.
        prepared: the task's data as the command has it.

    Raises:
        TeacherError: the teacher cannot be loaded, or failed. SoftLabelError: the store cannot be written.
    """
    import ray

    settings = config.teachers[name]
    made, of = blocks(tables, splits, settings.batch_size)
    if not made:
        return TeacherCost()
    # Our own line says how far it is; what goes wrong is raised.
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    options = placement_options(settings.placement)
    attempts = Attempts(Path(config.cache_dir).expanduser() / f"labelling-{uuid.uuid4().hex[:12]}")
    labelled = ray.data.from_arrow(made).map_batches(
        LabelWorker,
        fn_constructor_args=(config, name, label_names, attempts, prepared),
        batch_size=settings.batch_size,
        compute=ray.data.ActorPoolStrategy(
            min_size=min(settings.min_replicas, num_actors),
            max_size=max(settings.min_replicas, num_actors),
            max_tasks_in_flight_per_actor=2,  # enough, of so many batches, and all that a dead one has to do again
        ),
        **options,
    )
    cost = TeacherCost()
    # Closed here, which ends the pipeline's own thread, and not when the error is forgotten: by then Ray has been shut
    # down, and the thread that finds it so ends the process before the user has read why.
    with contextlib.ExitStack() as ending:
        ending.callback(shutil.rmtree, attempts.folder, ignore_errors=True)
        for answered in ending.enter_context(contextlib.closing(_batches(name, labelled))):
            errors = answered["error"][answered["error"] != ""]
            if len(errors):
                raise TeacherError(str(errors[0]))
            for split, view in {(int(s), int(v)) for s, v in zip(answered["split"], answered["view"], strict=True)}:
                here = (answered["split"] == split) & (answered["view"] == view)
                tables[split, view].write(answered["row"][here], answered["logits"][here])
            cost += TeacherCost(samples=len(answered["row"]), busy_s=float(answered["busy_s"].sum()))
            on_written(cost.samples, of)
    return cost


def _batches(name: str, labelled: Any) -> Generator[Columns, None, None]:
    from ray.exceptions import RayError

    try:
        # Fetching ahead would hold back what has come until more has: a kill would cost it.
        yield from labelled.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
    except RayError as error:
        raise _own_error(name, error) from error


def _own_error(name: str, error: BaseException) -> RaydistillError:
    """Ray wraps a worker's error in its own; the user wants ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RaydistillError):
            return type(cause)(str(cause))
        cause = getattr(cause, "cause", None) or cause.__cause__
    return TeacherError(f"teacher {name!r} failed while labelling: {first_line(error)}")
