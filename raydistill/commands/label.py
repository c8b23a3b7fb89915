"""`raydistill label`: write every teacher's soft labels ahead of time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raydistill.commands.cluster import cluster
from raydistill.commands.experts import experts
from raydistill.commands.labels import Labels, collect_labels, label_job
from raydistill.commands.ledger import Ledger
from raydistill.commands.preflight import how_many_fit, preflight_label
from raydistill.commands.preparing import as_config, check_store, load_data, with_scales
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import folder_for_notes
from raydistill.commands.teach import teach_missing
from raydistill.config.loader import check_complete
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.source import TeacherCost, total_cost
from raydistill.soft_labels.tables import RunTables
from raydistill.tasks import task_of
from raydistill.teachers.labelling import check_teacher

SPLITS = ("validation", "test", "train")
POLL_S = 0.5  # between two looks at rows that another run is computing


def label(
    config: Config | str | Path | Mapping[str, Any], overrides: Iterable[str] = (), out: str | Path | None = None
) -> Labels:
    """Ask every teacher about every view that a distilled student will see, and keep the answers in the store.

    Rows stream through a Ray Data pipeline with as many actors as the cluster holds (`max_replicas` bounds them);
    what was written before a kill is not asked again. With `distill.soft_labels=local` the teachers are asked in this
    process, without Ray. Args as in `teach`; teachers that are not there yet are trained first.
    """
    config = as_config(config, overrides)
    check_complete(config)
    check_store(config)
    with folder_for_notes(config, out) as folder, Progress(folder / "log.txt") as progress:
        if config.distill.soft_labels == "local":
            labels = _in_this_process(config, progress)
        else:
            with cluster(config):
                preflight_label(config)
                labels = _with_ray_data(config, progress)
        cost = total_cost(labels.costs.values())
        progress.say(
            f"soft labels: {cost.samples:,} computed in {cost.busy_s:.0f} s of teacher time, "
            f"{cost.samples_cached:,} were there"
        )
    return labels


def _in_this_process(config: Config, progress: Progress) -> Labels:
    data = load_data(config, progress)
    teach_missing(config, data, progress)
    label_names = {name: task.label_names for name, task in data.items()}
    with experts(with_scales(config, data), label_names, progress) as at_hand:
        return collect_labels(config, data, at_hand, progress, Ledger(), with_train=True)


def _with_ray_data(config: Config, progress: Progress) -> Labels:
    data = load_data(config, progress)
    teach_missing(config, data, progress)
    labels, config = Labels(config.distill), with_scales(config, data)
    for name, teacher in config.teachers.items():
        _label_one(config, name, data[teacher.task], labels, progress)
    return labels


def _label_one(config: Config, name: str, data: TaskData, labels: Labels, progress: Progress) -> None:
    """One teacher's rows; validation first, so that a teacher that knows nothing is found before the long part."""
    from raydistill.teachers.pipeline import describe_teacher, stream_labels

    teacher = config.teachers[name]
    progress.say(f"teachers: loading {name}")
    fingerprint = str(describe_teacher(config, name, data.label_names)["fingerprint"])
    jobs = {split: label_job(config, {teacher.task: data}, name, fingerprint, split) for split in SPLITS}
    opened = {split: RunTables(config, {name: job.taught}) for split, job in jobs.items()}
    tables = {
        (number, view): opened[split].open(name, view, progress.event)
        for number, split in enumerate(SPLITS)
        for view in jobs[split].views
    }
    validation, began, checked = tables[0, 0], time.monotonic(), False

    def check() -> None:
        nonlocal checked
        if not checked and validation.complete:
            logits = validation.read(np.arange(validation.num_rows))
            score = check_teacher(name, data, logits, teacher.allow_chance_level)
            progress.say(f"teachers: {name}: own {task_of(data).metric_name} on validation {score:.3f}")
            checked = True

    def on_written(done: int, of: int) -> None:
        check()
        rate = done / max(1e-9, time.monotonic() - began)
        left = f"{rate:,.0f} samples/s, {(of - done) / rate:.0f} s left"
        progress(f"soft labels: {name}: {done:,}/{of:,} rows, {left}")

    try:
        for table in tables.values():
            table.check()
        splits = [jobs[split].split for split in SPLITS]
        alone = teacher.placement.model_copy(update={"num_cpus": max(1.0, teacher.placement.num_cpus)})
        fitting = max(1, how_many_fit(alone))
        actors = min(fitting, teacher.max_replicas or fitting)
        while True:
            cost = stream_labels(config, name, data.label_names, tables, splits, on_written, actors, data.prepared)
            labels.add(name, cost)
            if all(table.complete for table in tables.values()):
                break
            missing = sum(table.num_rows - table.num_known for table in tables.values())
            progress(f"soft labels: {name}: {missing:,} rows are left, which another run has claimed; waiting for them")
            time.sleep(POLL_S)  # it computes them, or dies and leaves them to us
        check()
        total = sum(table.num_rows for table in tables.values())
        labels.add(name, TeacherCost(samples_cached=max(0, total - labels.costs[name].samples)))
        for number, split in ((0, "validation"), (1, "test")):
            known = tables[number, 0].read(np.arange(tables[number, 0].num_rows))
            labels.plain[split].setdefault(teacher.task, {})[name] = known
    finally:
        for each in opened.values():
            each.close()
