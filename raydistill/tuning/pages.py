"""sweep.html: what a sweep found, in one file that fetches nothing."""

from __future__ import annotations

from html import escape
from typing import Any

from optuna.study import Study

from raydistill.config.text import dump
from raydistill.evaluation.page import bullets, folded, page, table
from raydistill.tuning.comparing import Comparison, Kind
from raydistill.tuning.figures import figures
from raydistill.tuning.leaderboard import short
from raydistill.tuning.records import SweepResult, TrialRecord

KINDS: dict[Kind, str] = {"winner": "setting found", "defaults": "default setting", "alone": "student alone"}


def render_sweep(result: SweepResult, study: Study, lines: list[str]) -> str:
    """The whole page.

    Args:
        lines: the verdict, in sentences.
    """
    sections = [bullets(lines)]
    if result.comparison:
        sections.append(f"<h2>Trained again, {len(result.comparison.seeds)} seeds</h2>{_compared(result.comparison)}")
    for number, (title, figure) in enumerate(figures(study, result.space, result.trials)):
        figure.update_layout(title=None, template="plotly_white", margin={"l": 60, "r": 20, "t": 20, "b": 50})
        # The first one carries the library, 4 MB, for all.
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, default_height=420)
        sections.append(f"<h2>{escape(title)}</h2>{drawn}")
    sections.append(f"<h2>Trials</h2>{_trials(result)}")
    space = dump(result.space.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    sections.append("<h2>Search space</h2>" + folded("what was searched, and how", space))
    return page(f"sweep: {result.space.name}", " ".join(result.space.description.split()), sections, scripts=True)


def _compared(comparison: Comparison) -> str:
    kinds = [kind for kind in KINDS if kind in comparison.retention]
    rows = [
        [escape(name), *(f"{task[kind][0]:.4f} ± {task[kind][1]:.4f}" for kind in kinds)]
        for name, task in comparison.tasks.items()
    ]
    rows.append(["<b>mean retention</b>", *(f"<b>{comparison.retention[kind]:.4f}</b>" for kind in kinds)])
    seeds = ", ".join(map(str, comparison.seeds))
    note = f"Test split, mean ± standard deviation over seeds {seeds}: none of them the search's."
    return table(["", *(KINDS[kind] for kind in kinds)], rows, frozenset({1, 2, 3})) + f'<p class="muted">{note}</p>'


def _trials(result: SweepResult) -> str:
    paths = dict.fromkeys(path for trial in result.trials for path in trial.values)
    measures = dict.fromkeys([*result.space.objective, "retention"])
    heads = ["trial", "", *map(escape, measures), "alone", "gain", *map(escape, paths), "why"]
    (first, goal), *_ = result.space.objective.items()

    def rank(trial: TrialRecord) -> tuple[bool, float]:
        value = trial.measures.get(first, 0.0)
        return trial.state != "whole", -value if goal == "max" else value

    rows = [_row(trial, list(measures), list(paths)) for trial in sorted(result.trials, key=rank)]
    numbers = frozenset({0, *range(2, 4 + len(measures))})
    return f'<div class="wide">{table(heads, rows, numbers)}</div>'


def _row(trial: TrialRecord, measures: list[str], paths: list[str]) -> list[str]:
    figures: list[Any] = [trial.measures.get(name) for name in measures]
    state = '<span class="best">best</span>' if trial.best else "" if trial.state == "whole" else escape(trial.state)
    alone = trial.alone.get("retention")
    return [
        str(trial.number), state,
        *("" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}" for value in figures),
        "" if alone is None else f"{alone:.4f}",
        "" if trial.gain is None else f"{trial.gain:+.4f}",
        *(escape(short(trial.values.get(path, ""))) for path in paths),
        escape(trial.reason or (f"at step {trial.measures['step']:.0f}" if trial.state == "stopped" else "")),
    ]  # fmt: skip
