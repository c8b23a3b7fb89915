"""The best setting, the default one and the student alone, each trained with several seeds that the search never saw.

The search kept the best of many trials on the validation split with one seed: that figure flatters. These are whole
runs of `raydistill distill`, told on the test split.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raydistill.commands.distill import distill
from raydistill.commands.folders import write_atomically
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import RunFolder
from raydistill.config.loader import dump_config
from raydistill.config.models import Config
from raydistill.tuning.baseline import baseline_key
from raydistill.tuning.trial import digest

Kind = Literal["winner", "defaults", "alone"]
FOLDER = "compared"


@dataclass(frozen=True)
class Comparison:
    """Test accuracy over seeds.

    Attributes:
        seeds: none of them the search's.
        tasks: by task, by kind: mean and standard deviation. `alone` is the winner's student without teachers.
        retention: by kind: the mean over tasks and seeds.
        folders: run folders by name, each with a report of its own.
        same: the winner's setting is the default one.
    """

    seeds: list[int]
    tasks: dict[str, dict[Kind, tuple[float, float]]]
    retention: dict[Kind, float]
    folders: dict[str, str]
    same: bool

    def lines(self) -> list[str]:
        """What it says, in sentences."""
        names: dict[Kind, str] = {"winner": "with the setting found", "defaults": "by default", "alone": "alone"}
        figures = ", ".join(
            f"{self.retention[kind]:.4f} {name}" for kind, name in names.items() if kind in self.retention
        )
        many = len(self.seeds) > 1
        lines = [f"mean retention on the test split, {len(self.seeds)} new seed{'s' if many else ''}: {figures}"]
        if self.same:
            return [*lines, "the setting found is the default one: searching brought nothing"]
        word = "better" if self.retention["winner"] > self.retention["defaults"] else "no better"
        unclear = [name for name, task in self.tasks.items() if not _clear(task)]
        how_sure = f"; within twice the seeds' spread on {', '.join(unclear)}" if unclear else ", clearly on every task"
        return [*lines, f"the setting found is {word} than the default one{how_sure if many else ' (one seed each)'}"]


def compare(config: Config, winner: Config, folder: Path, num_seeds: int, progress: Progress) -> Comparison:
    """Train and measure them; what an earlier call has finished is read.

    Args:
        config: the default setting.
        folder: of the sweep.

    Raises:
        RaydistillError: as `distill`.
    """
    seeds = {"seed": config.seed + 1, "num_seeds": num_seeds}
    winner = winner.model_copy(update={**seeds, "name": "winner"})
    defaults = config.model_copy(update={**seeds, "name": "defaults"})
    same = _setting(winner) == _setting(defaults)
    those = "the setting found" + ("" if same else ", the default one")
    progress.say(f"comparing: {those} and the student alone, new seeds: {num_seeds}")
    found = {"winner": _report(winner, folder)}
    if not same:
        if baseline_key(winner) == baseline_key(defaults):
            _hand_on_alone(_path(winner, folder), defaults, _path(defaults, folder))
        found["defaults"] = _report(defaults, folder)
    return _comparison(found, {"winner": str(_path(winner, folder)), "defaults": str(_path(defaults, folder))}, same)


def _path(config: Config, folder: Path) -> Path:
    return folder / FOLDER / f"{config.name}-{digest(_setting(config))[:8]}"


def _setting(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"name", "ray", "cache_dir", "num_seeds"})


def _report(config: Config, folder: Path) -> dict[str, Any]:
    run = RunFolder(_path(config, folder))
    if run.report.is_file():
        report = run.read_report()
        if len(report["seeds"]) >= config.num_seeds:
            return report
    return distill(config, out=run.path).report


def _hand_on_alone(done: Path, config: Config, path: Path) -> None:
    """The students alone are the same ones, from the same weights: they are not trained twice."""
    source, target = RunFolder(done), RunFolder(path)
    for seed in config.seeds:
        for folder in (source.initial(seed), source.arm("alone", seed)):
            there = target.checkpoints / folder.name
            if folder.is_dir() and not there.exists():
                shutil.copytree(folder, there)
    if not target.config.is_file():
        write_atomically(target.config, dump_config(config))


def _comparison(reports: dict[str, dict[str, Any]], folders: dict[str, str], same: bool) -> Comparison:
    places: dict[Kind, tuple[str, str]] = {
        "winner": ("winner", "student_distilled"), "defaults": ("defaults", "student_distilled"),
        "alone": ("winner", "student_alone"),
    }  # fmt: skip
    tasks: dict[str, dict[Kind, tuple[float, float]]] = {}
    retention: dict[Kind, float] = {}
    for kind, (run, student) in places.items():
        if run not in reports:
            continue
        report = reports[run]
        retention[kind] = report["mean_retention"][student.removeprefix("student_")]
        for name, task in report["tasks"].items():
            tasks.setdefault(name, {})[kind] = task[student], task["spread"].get(student, 0.0)
    return Comparison(reports["winner"]["seeds"], tasks, retention, {run: folders[run] for run in reports}, same)


def _clear(task: dict[Kind, tuple[float, float]]) -> bool:
    (best, spread), (default, other_spread) = task["winner"], task["defaults"]
    return abs(best - default) > 2 * max(spread, other_spread)
