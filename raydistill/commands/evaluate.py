"""`raydistill evaluate`: a finished student again, on the same data or on new."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.commands.folders import write_atomically
from raydistill.commands.preparing import as_config, load_data
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import RunFolder, read_run
from raydistill.config.models import Config
from raydistill.config.text import expand
from raydistill.data.dataset import Split, TaskData
from raydistill.devices import own_device
from raydistill.errors import ConfigError, DataError
from raydistill.student.model import Student
from raydistill.student.predicting import own_task, predict_split
from raydistill.tasks import Task
from raydistill.tasks.regression import Regression

EVALUATION = "evaluation.json"


def evaluate(
    run: str | Path, overrides: Iterable[str] = (), split: str = "test", out: str | Path | None = None
) -> dict[str, dict[str, Any]]:
    """Measure a run's student and write evaluation.json.

    Args:
        run: folder of a finished run, or its URL.
        overrides: `key=value` words that change where the data comes from, such as `tasks.NAME.data.path=…`.
        split: train, validation or test.
        out: folder of evaluation.json; default: the run's.

    Returns:
        By task: metric, value, num_rows, and the task's details.

    Raises:
        ConfigError: no finished run there. DataError: the new data has labels that the student does not know.
    """
    with read_run(run) as (folder, changed):
        results = _measure(folder, overrides, split)
        where = (expand(out) if out is not None else folder.path).absolute()
        where.mkdir(parents=True, exist_ok=True)
        write_atomically(where / EVALUATION, json.dumps(results, indent=1))
        if out is None:
            changed(EVALUATION)
    _print(results)
    return results


def _measure(folder: RunFolder, overrides: Iterable[str], split: str) -> dict[str, dict[str, Any]]:
    config = as_config(folder.read_config(), overrides)
    if not (folder.student / "model.safetensors").is_file():
        raise ConfigError(f"the run {folder.called} has no student yet; run `raydistill distill` on its config.yaml")
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split is {split!r}; choose train, validation or test")
    student = Student.from_pretrained(str(folder.student)).eval().to(own_device())
    strangers = sorted(set(config.tasks) ^ set(student.tasks))
    if strangers:
        raise ConfigError(f"tasks {strangers} differ from those of the student {sorted(student.tasks)}")
    with Progress() as progress:
        tasks = {name: own_task(student, name) for name in student.tasks}
        data = load_data(_in_the_students_units(config, tasks), progress)
        results = {}
        for name, task in tasks.items():
            progress.say(f"evaluating {name} on {split}")
            rows: Split = getattr(data[name], split)
            labels = _in_the_students_order(data[name], rows, task)
            logits = predict_split(student, name, rows)
            results[name] = {
                "split": split,
                "metric": task.metric_name,
                "value": task.metric(logits, labels),
                "num_rows": task.count_labelled(labels),
                **task.details(logits, labels),
            }
    return results


def _in_the_students_units(config: Config, tasks: dict[str, Task]) -> Config:
    """New numbers are standardised as those were that the student learned from."""
    content = config.model_dump(mode="json")
    for name, task in tasks.items():
        if isinstance(task, Regression):
            content["tasks"][name]["data"]["label_scales"] = dict(zip(task.label_names, task.scales, strict=True))
    return Config.model_validate(content)


def _in_the_students_order(data: TaskData, rows: Split, task: Task) -> NDArray[Any]:
    """The rows' labels in the order of the student's head; new data may have fewer names, in any order."""
    unknown = [label for label in data.label_names if label not in task.label_names]
    if unknown:
        raise DataError(
            f"task {task.name!r}: the data has labels {unknown} that the student does not know; it knows "
            f"{list(task.label_names)}"
        )
    return task.relabel(rows.labels, data.label_names)


def _print(results: dict[str, dict[str, Any]]) -> None:
    table = Table()
    common = ("split", "metric", "value", "num_rows")
    # Kinds of task have details of their own.
    details = list(dict.fromkeys(key for result in results.values() for key in result if key not in common))
    for heading in ("task", "split", "rows", "metric", "value", *details):
        table.add_column(heading.replace("_", " "))
    for name, result in results.items():
        table.add_row(
            escape(name), result["split"], f"{result['num_rows']:,}", result["metric"], f"{result['value']:.3f}",
            *(f"{result[key]:.3f}" if key in result else "" for key in details),
        )  # fmt: skip
    Console().print(table)
