"""The report's tables of teachers, tasks and experts that have to get on with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from raydistill.evaluation.page import table

MOST_CLASSES = 40  # that a table shows


def teachers_together(report: dict[str, Any]) -> str:
    """By task with several teachers: what each strategy's ensemble is worth, and who was trusted on what."""
    parts = []
    for name, task in report["tasks"].items():
        fusion = task.get("fusion")
        if not fusion:
            continue
        rows = [
            [f"<b>{escape(strategy)}</b>" if strategy == fusion["strategy"] else escape(strategy), f"{value:.3f}"]
            for strategy, value in fusion["by_strategy"].items()
        ]
        used = f"<h3>{escape(name)}: fused by {escape(fusion['strategy'])}</h3>"
        parts.append(used + table(["strategy", f"{escape(task['metric'])} on test"], rows, numbers=frozenset({1})))
        if fusion["trust"]:
            parts.append(_trust(task["label_names"], fusion["trust"]))
    return "".join(parts)


def tasks_together(report: dict[str, Any]) -> str:
    """How far the tasks' gradients on the trunk agree, what each weighs, and how much of the loss is its own."""
    balancing = report.get("balancing", {})
    if not balancing.get("measured"):
        return ""
    names = list(balancing["weight"])
    rows = []
    for name in names:
        cosines = [_cosine(balancing["cosine"], name, other) for other in names]
        figures = [balancing[kind][name] for kind in ("weight", "loss_share", "gradient_norm")]
        rows.append([escape(name), *cosines, *(f"{value:.3g}" for value in figures)])
    heads = ["task", *map(escape, names), "weight", "share of the loss", "gradient's length"]
    note = (
        f"Balancing: {escape(balancing['method'])}. Means over {balancing['measured']:,} steps of the distilled "
        "students. Under the tasks' names the cosine of their gradients on the trunk: below 0 they pull against each "
        "other."
    )
    return table(heads, rows, numbers=frozenset(range(1, len(heads)))) + f'<p class="muted">{note}</p>'


def experts_by_task(report: dict[str, Any]) -> str:
    """Which share of a task's tokens each expert of the trunk got: whose experts are whose."""
    routing: Mapping[str, Sequence[float]] = report.get("routing") or {}
    if not routing:
        return ""
    num_experts = len(next(iter(routing.values())))
    rows = [[escape(name), *(_shaded(share, share) for share in shares)] for name, shares in routing.items()]
    heads = ["task", *(f"expert {number}" for number in range(num_experts))]
    note = "Shares of each task's tokens in the last block that has experts; columns that are dark twice are shared."
    return table(heads, rows, numbers=frozenset(range(1, len(heads)))) + f'<p class="muted">{note}</p>'


def _trust(label_names: Sequence[str], trust: Mapping[str, Sequence[float | None]]) -> str:
    shown = list(label_names[:MOST_CLASSES])
    rows = [
        [escape(teacher), *("" if value is None else _shaded(value, value) for value in values[: len(shown)])]
        for teacher, values in trust.items()
    ]
    note = "Mean weight of each teacher on training rows of a class, as the fused teachers see it; blank: no row."
    left_out = f" {len(label_names) - len(shown)} more classes are in report.json." * (len(label_names) > len(shown))
    heads = ["trusted on", *map(escape, shown)]
    inner = table(heads, rows, numbers=frozenset(range(1, len(heads))))
    return f'<div class="wide">{inner}</div><p class="muted">{note}{left_out}</p>'


def _cosine(cosines: Mapping[str, float], one: str, other: str) -> str:
    if one == other:
        return ""
    value = cosines.get(f"{one}~{other}", cosines.get(f"{other}~{one}", 0.0))
    text = f"{value:+.2f}"
    return f'<span class="worse">{text}</span>' if value < -0.05 else text


def _shaded(value: float, strength: float) -> str:
    alpha = max(0.0, min(1.0, strength)) * 0.6
    return f'<span style="background: rgba(42,127,158,{alpha:.2f}); padding: .1rem .4rem">{value:.2f}</span>'
