"""The model card that travels with the student."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import yaml

from raydistill.secrecy import presentable


def model_card(report: dict[str, Any]) -> str:
    """README.md of the student's folder, in the Hugging Face form."""
    head = {"library_name": "raydistill", "tags": ["knowledge-distillation", "multi-task"]}
    model = report["models"]["student"]
    teachers = ", ".join(name for name in report["models"] if name != "student")
    first_task = json.dumps(next(iter(report["tasks"])), ensure_ascii=False)  # whatever its name: one string of Python
    lines = [
        "---", yaml.safe_dump(head, sort_keys=False).strip(), "---",
        f"# {report['name']}",
        "",
        f"{report['description']}",
        "",
        f"One student of {model['parameters']:,} parameters, distilled by raydistill "
        f"{report['versions']['raydistill']} from {teachers}.",
        "",
        "```python",
        "from raydistill import Student",
        "",
        'student = Student.from_pretrained("this folder").eval()',
        f"prepare = student.preparer({first_task})  # from views to the keyword tensors of a task",
        "```",
        "",
        "| task | labels | metric | teachers | student alone | this student | test rows |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    index = report["seeds"].index(report["student_seed"])
    for name, task in report["tasks"].items():
        labels = ", ".join(map(_cell, task["label_names"][:12])) + (", …" if len(task["label_names"]) > 12 else "")
        own = {student: values[index] for student, values in task["by_seed"].items()}
        lines.append(
            f"| {_cell(name)} | {labels} | {task['metric']} | {task['ensemble']:.3f} | {own['student_alone']:.3f} "
            f"| {own['student_distilled']:.3f} | {task['num_test']:,} |"
        )
    share = report["settings"]["label_fraction"]
    if share < 1:
        lines += ["", f"Training labels shown to the student: {share:.0%} of the labelled rows."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A name from the data, as a cell of a table: no HTML, and no cell more."""
    return " ".join(escape(presentable(text)).replace("|", "&#124;").split())
