"""The report's pictures, as SVG text."""

from __future__ import annotations

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"ensemble": "#9aa5b1", "student_alone": "#e0a458", "student_distilled": "#2a7f9e"}
NAMES = {"ensemble": "teachers", "student_alone": "student alone", "student_distilled": "student distilled"}
STYLE: Any = {
    "font.size": 9.0, "svg.fonttype": "none", "svg.hashsalt": "raydistill", "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def before_after_bars(report: dict[str, Any]) -> str:
    """Teachers, student alone and student distilled, side by side for every task."""
    tasks = report["tasks"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.5, 2.4 * len(tasks)), 3.2), layout="constrained")
        axes = figure.subplots()
        for offset, model in enumerate(COLOURS):
            heights = [task[model] for task in tasks.values()]
            errors = [task["spread"].get(model, 0.0) for task in tasks.values()]
            bars = axes.bar(
                [i + (offset - 1) * 0.27 for i in range(len(tasks))], heights, 0.25, color=COLOURS[model],
                label=NAMES[model], yerr=errors if any(errors) else None, capsize=3,
            )  # fmt: skip
            axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2)
        for i, task in enumerate(tasks.values()):
            axes.hlines(task["chance"], i - 0.42, i + 0.42, colors="#555555", linestyles=":", linewidth=1)
        axes.set_xticks(range(len(tasks)), [f"{name}\n{task['metric']}" for name, task in tasks.items()])
        axes.set_ylim(0, 1.12)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, frameon=False)
        return _svg(figure)


def learning_curves(report: dict[str, Any]) -> str:
    """Validation metric over steps, one panel a task, one line a student."""
    tasks = report["tasks"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(4.5, 3.0 * len(tasks)), 2.8), layout="constrained")
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for panel, name in zip(panels, tasks, strict=True):
            _curves(panel, name, report["curves"])
        panels[0].legend(frameon=False)
        return _svg(figure)


def _curves(panel: Axes, task: str, curves: dict[str, list[dict[str, Any]]]) -> None:
    seen = set()
    for run, curve in curves.items():
        student = f"student_{run.split('-')[0]}"
        panel.plot(
            [point["step"] for point in curve], [point["validation"][task] for point in curve], marker=".",
            color=COLOURS[student], label=None if student in seen else NAMES[student],
        )  # fmt: skip
        seen.add(student)
    panel.set_title(task, fontsize=9)
    panel.set_xlabel("step")
    panel.set_ylabel("validation")


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
