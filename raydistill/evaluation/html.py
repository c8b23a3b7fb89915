"""report.html: one file, pictures inside, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from raydistill.evaluation.pictures import before_after_bars, learning_curves
from raydistill.evaluation.terminal import remarks, with_spread

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2733; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2rem; font-size: 1.1rem }} .muted {{ color: #5b6875 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ padding: .35rem .6rem; border-bottom: 1px solid #dde3e9 }}
th {{ text-align: left; font-weight: 600; background: #f4f6f8 }} td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums }}
.best {{ color: #2a7f9e; font-weight: 600 }} .worse {{ color: #b3452c; font-weight: 600 }} svg {{ max-width: 100%; height: auto }}
</style></head><body>
<h1>{title}</h1><p class="muted">{description}</p>
{body}
</body></html>
"""


def render_html(report: dict[str, Any], config_yaml: str) -> str:
    """The whole page.

    Args:
        report: the content of report.json.
        config_yaml: the resolved config, shown at the end.
    """
    sections = [
        "".join(f"<p>{escape(line)}</p>" for line in remarks(report)),
        before_after_bars(report),
        "<h2>Before and after</h2>" + _before_after(report),
        "<h2>Learning curves</h2>" + learning_curves(report),
        "<h2>Models</h2>" + _models(report),
        "<h2>Cost</h2>" + _cost(report),
        "<h2>Events</h2>" + _events(report),
        "<h2>Config</h2><details><summary>the resolved config; it repeats this run</summary>"
        f"<pre>{escape(config_yaml)}</pre></details>",
        f'<p class="muted">{escape(report["machine"])}. '
        + escape(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
        + "</p>",
    ]
    return PAGE.format(
        title=escape(report["name"]), description=escape(report["description"]), body="\n".join(sections)
    )


def _before_after(report: dict[str, Any]) -> str:
    many = len(report["seeds"]) > 1
    rows = []
    for name, task in report["tasks"].items():
        gain = task["gain"]
        rows += [
            [escape(name), f"teacher {escape(teacher)}", f"{value:.3f}", "", "", "", ""]
            for teacher, value in task["teachers"].items()
        ]
        models = {"student_alone": "student alone", "student_distilled": "student distilled"}
        if len(task["teachers"]) > 1:
            models = {"ensemble": "teachers together", **models}
        for model, words in models.items():
            value = f"{task[model]:.3f}" if model == "ensemble" else with_spread(task, model, many)
            agreement = "" if model == "ensemble" else f"{task['agreement'][model]:.3f}"
            note = ""
            if model == "student_distilled":
                mark = {"better": "best", "worse": "worse"}.get(gain["verdict"], "")
                note = (
                    f'<span class="{mark}">{gain["mean"]:+.3f} ± {2 * gain["standard_error"]:.3f} {gain["verdict"]}</span>, '
                    f"retention {task['retention']:.3f}"
                )
            details = [f"{task[key][model]:.3f}" for key in ("macro_f1", "calibration_error") if key in task]
            rows.append([escape(name), words, value, *details, agreement, note])
        rows.append(
            ["", f'<span class="muted">{task["num_train"]:,} training rows, {task["num_labelled"]:,} with their label '
             f"shown; {task['num_test']:,} test rows</span>", "", "", "", "", ""]
        )  # fmt: skip
    note = '<p class="muted">The gain is distilled minus alone, ± two standard errors (test rows, and seeds where several).'
    if many:
        note += f" Values after ± in the column “metric” are standard deviations over {len(report['seeds'])} seeds."
    heads = [
        "task",
        "model",
        "metric",
        "macro-F1",
        "calibration error",
        "agrees with teachers",
        "distilled against alone",
    ]
    return _table(heads, rows, numbers={2, 3, 4, 5}) + note + "</p>"


def _models(report: dict[str, Any]) -> str:
    rows = [
        [escape(name), f"{model['parameters']:,}", f"{model['bytes'] / 1e6:.1f} MB", f"{model['latency_ms']:.2f}",
         f"{model['latency_ms_batch_32']:.2f}"]
        for name, model in report["models"].items()
    ]  # fmt: skip
    heads = ["model", "parameters", "size", "ms a sample, batch 1", "ms a sample, batch 32"]
    return _table(heads, rows, numbers={1, 2, 3, 4})


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
    return _table(["what", "how much"], rows, numbers={1})


def _events(report: dict[str, Any]) -> str:
    if not report["events"]:
        return '<p class="muted">Nothing happened that should not have.</p>'
    return _table(["at", "what"], [[f"{event['at_s']:.0f} s", escape(event["what"])] for event in report["events"]])


def _table(heads: list[str], rows: Iterable[list[str]], numbers: set[int] = frozenset()) -> str:  # type: ignore[assignment]
    def cells(tag: str, values: list[str]) -> str:
        marks = ['class="n"' if i in numbers else "" for i in range(len(values))]
        return "".join(f"<{tag} {mark}>{value}</{tag}>" for mark, value in zip(marks, values, strict=True))

    lines = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', heads)}</tr></thead><tbody>{lines}</tbody></table>"
