"""What a sweep found, as files: sweep.json, trials.csv and best.yaml; and as a table in the terminal."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.trial import TrialState
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.commands.run_folder import write_atomically
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.tuning.baseline import baseline_key
from raydistill.tuning.checking import candidate
from raydistill.tuning.space import Space
from raydistill.tuning.study import MEASURES, REASON, VALUES, SweepStudy
from raydistill.tuning.trial import Measures

STATES: dict[TrialState, Literal["whole", "stopped", "failed"]] = {
    TrialState.COMPLETE: "whole", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed",
}  # fmt: skip
SHOWN = 10  # lines of the leaderboard


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        state: whole; stopped early by the scheduler; or failed, with its `reason`.
        values: what it tried, by dotted path.
        measures: what came of it; empty where it failed.
        alone: validation retention of the same student without teachers, where that was trained.
        best: it is among the best.
    """

    number: int
    state: Literal["whole", "stopped", "failed"]
    values: dict[str, Any]
    measures: Measures
    alone: float | None
    best: bool
    reason: str = ""

    @property
    def gain(self) -> float | None:
        """Retention beyond that of the student alone."""
        return None if self.alone is None or not self.measures else self.measures["retention"] - self.alone


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        folder: where it all lies.
        cost: teacher_samples and teacher_samples_cached of the whole sweep, wall_s.
    """

    folder: Path
    space: Space
    trials: list[TrialRecord]
    cost: dict[str, float]

    @property
    def best(self) -> list[TrialRecord]:
        """The best trial, or the Pareto front of several objectives; empty where none was whole."""
        return [trial for trial in self.trials if trial.best]


def records(study: SweepStudy, config: Config, baselines: dict[str, Measures]) -> list[TrialRecord]:
    """Of all trials that ended, in their order."""
    best = {trial.number for trial in study.best}
    found = []
    for trial in study.ended:
        values, measures = trial.user_attrs.get(VALUES, {}), trial.user_attrs.get(MEASURES, {})
        alone = baselines.get(baseline_key(candidate(config, values)), {}).get("retention") if measures else None
        found.append(
            TrialRecord(
                trial.number, STATES[trial.state], values, measures, alone, trial.number in best,
                trial.user_attrs.get(REASON, ""),
            )
        )  # fmt: skip
    return found


def write_results(result: SweepResult, config: Config) -> None:
    """sweep.json, trials.csv, and best.yaml: a config that runs as it is. Of a front, the one that retains most."""
    content = {
        "space": result.space.model_dump(mode="json", by_alias=True),
        "trials": [asdict(trial) | {"gain": trial.gain} for trial in result.trials],
        "cost": result.cost,
    }
    write_atomically(result.folder / "sweep.json", json.dumps(content, indent=1))
    write_atomically(result.folder / "trials.csv", _csv(result.trials))
    if result.best:
        first = max(result.best, key=lambda trial: trial.measures["retention"])
        best = candidate(config, {"name": f"{result.space.name}-best", **first.values})
        write_atomically(result.folder / "best.yaml", dump_config(best))


def _csv(trials: list[TrialRecord]) -> str:
    paths = dict.fromkeys(path for trial in trials for path in trial.values)
    names = dict.fromkeys(name for trial in trials for name in trial.measures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", "best", *paths, *names, "retention_alone", "gain", "reason"])
    for trial in trials:
        values = [trial.values.get(path, "") for path in paths]
        measures = [trial.measures.get(name, "") for name in names]
        alone = ["" if each is None else each for each in (trial.alone, trial.gain)]
        writer.writerow([trial.number, trial.state, int(trial.best), *values, *measures, *alone, trial.reason])
    return text.getvalue()


def print_results(result: SweepResult) -> None:
    """The leaderboard, what the best was against the student alone, and where all of it lies."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    objective = result.space.objective
    (first, goal), *_ = objective.items()
    whole = [trial for trial in result.trials if trial.state == "whole"]
    ranked = sorted(whole, key=lambda trial: trial.measures[first], reverse=goal == "max")
    paths = dict.fromkeys(path for trial in ranked for path in trial.values)
    title = f"{result.space.name}: the best {min(SHOWN, len(ranked))} of {len(result.trials)} trials"
    table = Table(title=title, title_justify="left")
    for heading in ("trial", *objective, "alone", "gain", *(path.removeprefix("distill.") for path in paths)):
        table.add_column(heading, justify="right")
    for trial in ranked[:SHOWN]:
        table.add_row(
            f"{trial.number}{' *' if trial.best else ''}",
            *(f"{trial.measures[name]:.4g}" for name in objective),
            "" if trial.alone is None else f"{trial.alone:.4f}",
            "" if trial.gain is None else f"{trial.gain:+.4f}",
            *(escape(_short(trial.values.get(path, ""))) for path in paths),
        )
    if ranked:
        console.print(table)
    counts = {state: sum(trial.state == state for trial in result.trials) for state in ("whole", "stopped", "failed")}
    _say(console, ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "no trial ended")
    for trial in result.trials:
        if trial.state == "failed":
            _say(console, f"trial {trial.number} failed: {trial.reason}")
    for trial in result.best[:1]:
        _say(console, _verdict(trial))
    _say(
        console,
        f"teachers computed {int(result.cost['teacher_samples']):,} rows for all trials together, "
        f"{result.cost['wall_s']:.0f} s in all; everything is in {result.folder}",
    )


def _verdict(trial: TrialRecord) -> str:
    if trial.gain is None or trial.alone is None:
        return f"the best is trial {trial.number}"
    how = "better than" if trial.gain > 0 else "no better than"
    return (
        f"the best is trial {trial.number}: validation retention {trial.measures['retention']:.4f}, {how} the same "
        f"student alone ({trial.alone:.4f}, {trial.gain:+.4f}); one seed each"
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
