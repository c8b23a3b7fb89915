"""What a sweep leaves: sweep.json, trials.csv, best.yaml and sweep.html, and its verdict in the terminal."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import asdict

from optuna.study import Study
from rich.console import Console

from raydistill.commands.folders import write_atomically
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.tuning.checking import candidate
from raydistill.tuning.leaderboard import leaderboard
from raydistill.tuning.pages import render_sweep
from raydistill.tuning.records import SweepResult, TrialRecord

JSON, CSV, BEST, PAGE = "sweep.json", "trials.csv", "best.yaml", "sweep.html"


def best_config(result: SweepResult, config: Config) -> Config | None:
    """The winner's, which runs as it is."""
    if result.winner is None:
        return None
    return candidate(config, {"name": f"{result.space.name}-best", **result.winner.values})


def write_results(result: SweepResult, config: Config, study: Study) -> None:
    """All files; each appears whole or not at all."""
    content = {
        "space": result.space.model_dump(mode="json", by_alias=True),
        "trials": [asdict(trial) | {"gain": trial.gain} for trial in result.trials],
        "cost": result.cost,
        "comparison": asdict(result.comparison) if result.comparison else None,
    }
    write_atomically(result.folder / JSON, json.dumps(content, indent=1))
    write_atomically(result.folder / CSV, _csv(result.trials))
    best = best_config(result, config)
    if best is not None:
        write_atomically(result.folder / BEST, dump_config(best))
    write_atomically(result.folder / PAGE, render_sweep(result, study, verdict(result)))


def _csv(trials: list[TrialRecord]) -> str:
    paths = dict.fromkeys(path for trial in trials for path in trial.values)
    names = dict.fromkeys(name for trial in trials for name in trial.measures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", "best", *paths, *names, "retention_alone", "gain", "reason"])
    for trial in trials:
        values = [trial.values.get(path, "") for path in paths]
        measures = [trial.measures.get(name, "") for name in names]
        gain = "" if trial.gain is None else trial.gain
        alone = trial.alone.get("retention", "")
        writer.writerow([trial.number, trial.state, int(trial.best), *values, *measures, alone, gain, trial.reason])
    return text.getvalue()


def print_results(result: SweepResult) -> None:
    """The leaderboard, what the best was against the student alone, and where all of it lies."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if any(trial.state == "whole" for trial in result.trials):
        console.print(leaderboard(result.space, result.trials))
    for line in verdict(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"everything is in {result.folder}: {PAGE}", highlight=False, markup=False, soft_wrap=True)


def verdict(result: SweepResult) -> list[str]:
    """What the sweep says, in sentences."""
    counts = {state: sum(trial.state == state for trial in result.trials) for state in ("whole", "stopped", "failed")}
    told = {"whole": "of full length", "stopped": "stopped early", "failed": "failed"}
    ended = ", ".join(f"{count} {told[state]}" for state, count in counts.items() if count)
    lines = [f"{len(result.trials)} trials: {ended}" if ended else "no trial ended"]
    lines += [f"trial {trial.number} failed: {trial.reason}" for trial in result.trials if trial.state == "failed"]
    if counts["whole"] and result.winner is None:
        lines.append("none of them keeps to the constraints: no best.yaml")
    if result.winner is not None:
        lines.append(_of_the_winner(result.winner, len(result.best)))
    if result.comparison:
        lines += result.comparison.lines()
    lines.append(
        f"teachers computed {int(result.cost['teacher_samples']):,} rows for all of it, {result.cost['wall_s']:.0f} s"
    )
    return lines


def _of_the_winner(trial: TrialRecord, num_best: int) -> str:
    retains = f"validation retention {trial.measures['retention']:.4f}"
    which = "the best is trial" if num_best == 1 else f"{num_best} trials that no other one beats in all; of them trial"
    if trial.gain is None:
        return f"{which} {trial.number}: {retains}"
    how = "better than" if trial.gain > 0 else "no better than"
    return (
        f"{which} {trial.number}: {retains}, {how} the same student alone ({trial.alone['retention']:.4f}, "
        f"{trial.gain:+.4f}); one seed each"
    )
