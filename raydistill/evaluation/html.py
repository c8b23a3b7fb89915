"""report.html: one file, pictures inside, nothing fetched."""

from __future__ import annotations

from html import escape
from typing import Any

from raydistill.evaluation.html_together import experts_by_task, tasks_together, teachers_together
from raydistill.evaluation.page import bullets, cells, folded, page, table
from raydistill.evaluation.pictures import before_after_bars, learning_curves
from raydistill.evaluation.terminal import remarks, with_spread

MEASURES = {
    "macro_f1": "macro-F1",
    "calibration_error": "calibration error",
    "label_accuracy": "labels right",
    "rmse": "RMSE",
    "spearman": "Spearman",
}
NUMBERS = frozenset({1, 2, 3, 4})  # columns that hold numbers, in most tables here
LEFT_NUMBERS = frozenset({1, 2})  # of before and after


def render_html(report: dict[str, Any], config_yaml: str) -> str:
    """The whole page.

    Args:
        report: the content of report.json.
        config_yaml: the resolved config, shown at the end.
    """
    sections = [
        bullets(remarks(report)),
        before_after_bars(report),
        "<h2>Before and after</h2>" + _before_after(report),
        "<h2>Learning curves</h2>" + learning_curves(report),
        *_together(report),
        "<h2>Models</h2>" + _models(report),
        "<h2>Cost</h2>" + _cost(report),
        "<h2>Soft labels</h2>" + _soft_labels(report),
        "<h2>Events</h2>" + _events(report),
        "<h2>Config</h2>" + folded("the resolved config; it repeats this run", config_yaml),
        f'<p class="muted">{escape(report["machine"])}. '
        + escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
        + "</p>",
    ]
    return page(report["name"], report["description"], sections)


def _together(report: dict[str, Any]) -> list[str]:
    """What there is of it: most runs have one teacher a task, or no experts."""
    found = {
        "Teachers together": teachers_together(report),
        "Tasks together": tasks_together(report),
        "Experts of the trunk": experts_by_task(report),
    }
    return [f"<h2>{title}</h2>{content}" for title, content in found.items() if content]


def _before_after(report: dict[str, Any]) -> str:
    many = len(report["seeds"]) > 1
    heads = ["", "", "agrees with teachers", "other measures", "distilled against alone"]
    body = [f"<tr>{cells('th', heads, LEFT_NUMBERS)}</tr>"]
    for name, task in report["tasks"].items():
        about = (
            f"{task['num_train']:,} training rows, {task['num_labelled']:,} with their label shown; "
            f"{task['num_test']:,} test rows"
        )
        title = f'<b>{escape(name)}</b> <span class="muted">{escape(task["metric"])}; {about}</span>'
        body.append(f'<tr><td colspan="{len(heads)}">{title}</td></tr>')
        body += [f"<tr>{cells('td', row, LEFT_NUMBERS)}</tr>" for row in _task_rows(task, many)]
    note = "The gain is distilled minus alone, ± two standard errors (test rows, and seeds where several)."
    if many:
        note += f" Values after ± beside an accuracy are standard deviations over {len(report['seeds'])} seeds."
    return f'<table><tbody>{"".join(body)}</tbody></table><p class="muted">{note}</p>'


def _task_rows(task: dict[str, Any], many: bool) -> list[list[str]]:
    gain, verdict = task["gain"], escape(task["gain"]["verdict"])
    mark = {"better": "best", "worse": "worse"}.get(verdict, "")
    remark = (
        f'<span class="{mark}">{gain["mean"]:+.3f} ± {2 * gain["standard_error"]:.3f} {verdict}</span>, '
        f"retention {task['retention']:.3f}"
    )
    one = len(task["teachers"]) == 1
    rows = []
    for teacher, value in task["teachers"].items():
        rows.append([f"teacher {escape(teacher)}", f"{value:.3f}", "", _details(task, "ensemble") if one else "", ""])
    if not one:
        rows.append(["teachers together", f"{task['ensemble']:.3f}", "", _details(task, "ensemble"), ""])
    for model, words, last in (
        ("student_alone", "student alone", ""), ("student_distilled", "student distilled", remark)
    ):  # fmt: skip
        agreement = f"{task['agreement'][model]:.3f}"
        rows.append([words, with_spread(task, model, many), agreement, _details(task, model), last])
    return rows


def _details(task: dict[str, Any], model: str) -> str:
    """Those that its kind of task has."""
    return ", ".join(f"{words} {task[key][model]:.3f}" for key, words in MEASURES.items() if key in task)


def _models(report: dict[str, Any]) -> str:
    rows = [
        [escape(name), f"{model['parameters']:,}", f"{model['bytes'] / 1e6:.1f} MB", f"{model['latency_ms']:.2f}",
         f"{model['latency_ms_batch_32']:.2f}", escape(model.get("device", ""))]
        for name, model in report["models"].items()
    ]  # fmt: skip
    heads = ["model", "parameters", "size", "ms a sample, batch 1", "ms a sample, batch 32", "on"]
    return table(heads, rows, numbers=NUMBERS)


def _cost(report: dict[str, Any]) -> str:
    cost = report["cost"]
    rows = [
        ["wall clock", f"{cost['wall_s']:.0f} s"],
        ["student alone, training", f"{cost['training_s']['alone']:.0f} s"],
        ["student distilled, training", f"{cost['training_s']['distilled']:.0f} s"],
        ["rows that teachers computed", f"{cost['teacher_samples']:,} in {cost['teacher_busy_s']:.0f} s"],
        ["rows answered from the store", f"{cost['teacher_samples_cached']:,}"],
        ["rows that students saw", f"{cost['student_samples']:,}"],
        ["peak memory, all processes", f"{cost['peak_rss_bytes'] / 2**30:.1f} GiB"],
    ]
    return table(["what", "how much"], rows, numbers=NUMBERS)


def _soft_labels(report: dict[str, Any]) -> str:
    heads = [
        "teacher", "rows computed", "from the store", "computing, s", "rows a second", "students waited, s",
        "of training", "fail-overs", "sent twice", "longest gap, s",
    ]  # fmt: skip
    rows = [
        [escape(name), f"{each['samples']:,}", f"{each['samples_cached']:,}", f"{each['busy_s']:.1f}",
         f"{each['samples'] / each['busy_s']:,.0f}" if each["busy_s"] else "", f"{each['waited_s']:.1f}",
         f"{each['waiting_share']:.0%}", f"{each['failovers']:,}", f"{each['hedges']:,}", f"{each['worst_gap_s']:.2f}"]
        for name, each in report["teachers"].items()
    ]  # fmt: skip
    note = "Computing is time on the teachers' own devices; sent twice: a slow replica's request, to another one too."
    return table(heads, rows, numbers=frozenset(range(1, len(heads)))) + f'<p class="muted">{note}</p>'


def _events(report: dict[str, Any]) -> str:
    if not report["events"]:
        return '<p class="muted">Nothing happened that should not have.</p>'
    return table(["at", "what"], [[_when(event["at_s"]), escape(event["what"])] for event in report["events"]])


def _when(at_s: float) -> str:
    """An earlier process of a run that was stopped and went on has its events before this one's start."""
    return f"{at_s:.0f} s" if at_s >= 0 else f"{-at_s:.0f} s before this process began"
