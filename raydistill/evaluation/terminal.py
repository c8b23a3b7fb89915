"""The report as a table in the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.secrecy import presentable

FIGHT = -0.05  # mean cosine of two tasks' gradients
TEACHER_BOUND = 0.1  # share of its time that a student waits for teachers


def print_report(report: dict[str, Any], console: Console | None = None) -> None:
    """Before and after, by task, and what it cost."""
    # A file or a pipe has no width of its own, and eighty columns would cut the table.
    console = console or Console(width=None if sys.stdout.isatty() else 110)
    report = _presentable(report)
    console.print(before_after(report))
    console.print(model_table(report))
    for line in remarks(report):
        console.print(line, highlight=False, markup=False)


def _presentable(content: Any) -> Any:
    """Another person's report may hold anything."""
    if isinstance(content, dict):
        return {_presentable(key): _presentable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_presentable(value) for value in content]
    return presentable(content) if isinstance(content, str) else content


def before_after(report: dict[str, Any]) -> Table:
    """A row a task: teachers, the student alone, the student distilled."""
    many = len(report["seeds"]) > 1
    title = escape(f"{report['name']}: before and after")
    if many:
        title += f" (mean ± standard deviation of {len(report['seeds'])} seeds)"
    table = Table(title=title, title_justify="left")
    words = {"task", "teachers", "distilling is"}
    for heading in ("task", "teachers", "student alone", "distilled", "gain", "retention", "distilling is"):
        table.add_column(heading, justify="left" if heading in words else "right")
    for name, task in report["tasks"].items():
        teachers = [f"{teacher} {value:.3f}" for teacher, value in task["teachers"].items()]
        if len(teachers) > 1:
            teachers.append(f"together {task['ensemble']:.3f}")
        table.add_row(
            escape(f"{name}\n({task['metric']})"),
            escape("\n".join(teachers)),
            with_spread(task, "student_alone", many),
            with_spread(task, "student_distilled", many),
            f"{task['gain']['mean']:+.3f}",
            f"{task['retention']:.3f}",
            task["gain"]["verdict"],
        )
    return table


def with_spread(task: dict[str, Any], student: str, many: bool) -> str:
    """`0.812`, or `0.812 ± 0.004` over several seeds."""
    return f"{task[student]:.3f} ± {task['spread'][student]:.3f}" if many else f"{task[student]:.3f}"


def model_table(report: dict[str, Any]) -> Table:
    """A row a model: size and speed."""
    table = Table(title="models", title_justify="left")
    for heading in ("model", "parameters", "MB", "ms a sample, batch 1", "batch 32", "on"):
        table.add_column(heading, justify="left" if heading in ("model", "on") else "right")
    for name, model in report["models"].items():
        table.add_row(
            escape(name), f"{model['parameters']:,}", f"{model['bytes'] / 1e6:.1f}", f"{model['latency_ms']:.2f}",
            f"{model['latency_ms_batch_32']:.2f}", escape(model.get("device", "")),
        )  # fmt: skip
    return table


def together(report: dict[str, Any]) -> list[str]:
    """Which tasks fight, and what fusing teachers is worth."""
    lines = []
    for name, task in report["tasks"].items():
        fusion = task.get("fusion")
        if fusion:
            by_strategy = ", ".join(f"{strategy} {value:.3f}" for strategy, value in fusion["by_strategy"].items())
            lines.append(f"Teachers of {name}, fused by {fusion['strategy']}; ensembles on test: {by_strategy}")
    cosines = report.get("balancing", {}).get("cosine", {})
    against = [f"{pair.replace('~', ' and ')} ({value:+.2f})" for pair, value in cosines.items() if value < FIGHT]
    if against:
        lines.append(
            f"On the trunk the gradients of {', '.join(against)} pull against each other (mean cosine): another "
            "distill.balancing may help"
        )
    elif cosines:
        lowest = min(cosines, key=lambda pair: cosines[pair])
        pair = lowest.replace("~", " and ")
        lines.append(f"No two tasks fight over the trunk: lowest mean cosine {cosines[lowest]:+.2f} ({pair})")
    return lines


def remarks(report: dict[str, Any]) -> list[str]:
    """What the numbers say, in sentences."""
    retention, settings, cost = report["mean_retention"], report["settings"], report["cost"]
    teachers = sum(model["parameters"] for name, model in report["models"].items() if name != "student")
    ratio = teachers / report["models"]["student"]["parameters"]
    lines = [
        f"Mean retention {retention['distilled']:.3f} distilled, {retention['alone']:.3f} alone; "
        f"the teachers together have {ratio:.1f} times the student's parameters"
    ]
    if settings["label_fraction"] < 1:
        lines.append(
            f"Labels are scarce here: both students see the labels of {settings['label_fraction']:.0%} of the labelled "
            "training rows, the same ones; the teachers speak on all rows"
        )
    lines += together(report)
    unclear = [name for name, task in report["tasks"].items() if task["gain"]["verdict"] != "better"]
    if unclear:
        lines.append(f"Distilling is not clearly better than training alone on {', '.join(unclear)}")
    lines.append(
        f"{cost['wall_s']:.0f} s in all; teachers computed {cost['teacher_samples']:,} rows in "
        f"{cost['teacher_busy_s']:.0f} s, {cost['teacher_samples_cached']:,} came from the store; "
        f"peak memory {cost['peak_rss_bytes'] / 2**30:.1f} GiB"
    )
    waiting = {name: teacher["waiting_share"] for name, teacher in report["teachers"].items()}
    if sum(waiting.values()) >= TEACHER_BOUND:
        slowest = max(waiting, key=lambda name: waiting[name])
        lines.append(
            f"The distilled students waited {sum(waiting.values()):.0%} of their time for teachers, most for "
            f"{slowest}: more replicas (teachers.{slowest}.max_replicas) or stored soft labels would train them sooner"
        )
    failovers = sum(teacher["failovers"] for teacher in report["teachers"].values())
    if failovers:
        gap = max(teacher["worst_gap_s"] for teacher in report["teachers"].values())
        lines.append(f"{failovers} requests were answered by another replica after a failure; longest gap {gap:.2f} s")
    return lines
