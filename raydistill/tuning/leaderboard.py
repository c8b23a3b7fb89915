"""The trials as a table in the terminal: the best ones, and those that run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from raydistill.tuning.records import TrialRecord
from raydistill.tuning.space import Space

SHOWN = 10  # of those that ended


@dataclass(frozen=True)
class Running:
    """A trial under way.

    Attributes:
        measures: of its last validation; empty before the first.
    """

    number: int
    values: Mapping[str, Any]
    measures: Mapping[str, float]


def ranked(space: Space, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those of full length, by the first objective, the best first."""
    (first, goal), *_ = space.objective.items()
    whole = [trial for trial in trials if trial.state == "whole"]
    return sorted(whole, key=lambda trial: trial.measures[first], reverse=goal == "max")


def leaderboard(space: Space, trials: list[TrialRecord], running: Iterable[Running] = (), num_steps: int = 0) -> Table:
    """The best of `trials`, then those that run, with the step of `num_steps` that they have reached."""
    best, under_way = ranked(space, trials)[:SHOWN], list(running)
    compared = any(trial.alone for trial in best)
    tried: list[Mapping[str, Any]] = [*(trial.values for trial in best), *(each.values for each in under_way)]
    paths = dict.fromkeys(path for values in tried for path in values)
    counts = {state: sum(trial.state == state for trial in trials) for state in ("whole", "stopped", "failed")}
    ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none ended"
    table = Table(
        title=f"{space.name}: the best of {len(trials)} trials ({ended})" if best else f"{space.name}: {ended}",
        title_justify="left",
    )
    headings = ["trial", *space.objective, *(("alone", "gain") if compared else ()), *map(short_path, paths)]
    for heading in headings:
        table.add_column(escape(heading), justify="right")
    for trial in best:
        gain = "" if trial.gain is None else f"{trial.gain:+.4f}"
        table.add_row(
            f"{trial.number}{' *' if trial.best else ''}",
            *(_figure(trial.measures.get(name)) for name in space.objective),
            *((_figure(trial.alone.get("retention")), gain) if compared else ()),
            *(escape(short(trial.values.get(path, ""))) for path in paths),
        )
    for each in under_way:
        table.add_row(
            f"{each.number} at {int(each.measures.get('step', 0))}/{num_steps}",
            *(_figure(each.measures.get(name)) for name in space.objective),
            *(("", "") if compared else ()),
            *(escape(short(each.values.get(path, ""))) for path in paths),
            style="dim",
        )
    return table


def short(value: Any) -> str:
    """A value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_path(path: str) -> str:
    """`distill.task_weights.clothes` -> `task_weights.clothes`: what comes first says little."""
    return path.partition(".")[2] or path


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"
