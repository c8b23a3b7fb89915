"""A sweep of 16 trials three ways, and 16 trainings without any teacher: wall clock and what teachers compute.

- private: every trial has the teachers in its own process and asks them at every step, as one writes it with Ray Tune;
- pool: the trials share one pool of actors, and ask it at every step;
- pool and store: what `raydistill tune` does unless told otherwise;
- plain: the students alone, with 16 seeds, as the sweep trains its baseline.

All of it real sweeps of the demo's three tasks over temperature and label weight, in one run, one trial to a core.
Counted from the first request to a teacher to the end of the last trial; training the teachers comes before. One
labelling: every training row in its view, and the rows of validation and test.

    python benchmarks/sweep_sharing.py [--trials 16] [--steps 200] [--rows 1280] [--ways plain private …]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CORES = os.cpu_count() or 1  # so many trials at a time; Ray is told of twice as many, to hold the pool beside them
WAYS: dict[str, list[str]] = {
    "private": ["distill.soft_labels=local", "store.fill=false"],
    "pool": ["distill.soft_labels=remote", "store.fill=false"],
    "pool and store": ["distill.soft_labels=remote"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=1280, help="training rows of each task")
    parser.add_argument("--ways", nargs="+", choices=["plain", *WAYS], default=["plain", *WAYS])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    from raydistill.evaluation.assemble import machine

    print(f"{datetime.date.today()}, {machine()}; ray {version('ray')}, torch {version('torch')}")
    print(f"{options.trials} trials of {options.steps} steps, {options.rows} rows of each of three tasks\n")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        words = config_words(options)
        warm_up(words, Path(folder))
        seconds: dict[str, float] = {}
        samples: dict[str, float] = {}
        for way in options.ways:
            if way == "plain":
                seconds[way], samples[way] = plain(words, options.trials, Path(folder) / "plain"), 0
            else:
                seconds[way], samples[way] = sweep(way, words, options.trials, Path(folder) / way.replace(" ", "-"))
    one_labelling = samples.get("pool and store", float("nan"))
    plain_s = seconds.get("plain", float("nan"))
    print(f"{'':16}{'seconds':>10}{'÷ plain':>10}{'teacher samples':>18}{'÷ one labelling':>18}")
    for way, each in seconds.items():
        print(f"{way:16}{each:10.1f}{each / plain_s:10.2f}{samples[way]:18,.0f}{samples[way] / one_labelling:18.2f}")


def config_words(options: argparse.Namespace) -> list[str]:
    """The demo, smaller."""
    tasks = [
        word
        for task in ("clothes", "sentiment", "language")
        for word in (
            f"tasks.{task}.data.max_train={options.rows}", f"tasks.{task}.data.num_views=1",
            f"tasks.{task}.data.max_validation=200", f"tasks.{task}.data.max_test=100",
        )
    ]  # fmt: skip
    return [
        *tasks, f"training.num_steps={options.steps}", f"training.evaluate_every={options.steps}",
        f"ray.num_cpus={2 * CORES}", "training.label_fraction=1.0",
        *(f"teachers.{name}.allow_chance_level=true" for name in ("resnet", "minilm", "wav2vec2")),
        *(f"teachers.{name}.train.num_epochs=0.3" for name in ("resnet", "minilm", "wav2vec2")),
    ]  # fmt: skip


def space(trials: int) -> dict[str, Any]:
    paths = {"distill.temperature": {"float": [1, 6], "log": True}, "distill.hard_weight": {"float": [0.0, 0.8]}}
    search = {"sampler": "random", "num_trials": trials, "max_concurrent_trials": CORES}
    return {"name": "sharing", "config": "demo", "space": paths, "search": search}


def warm_up(words: list[str], folder: Path) -> None:
    """Data and teachers, which every way needs once."""
    import raydistill

    raydistill.teach("demo", words, out=folder / "teach")


def sweep(way: str, words: list[str], trials: int, folder: Path) -> tuple[float, float]:
    import raydistill

    store = f"store.path={folder}-store"
    cost = raydistill.tune(space(trials), [*words, *WAYS[way], store], out=folder).cost
    return cost["labelling_s"] + cost["trials_s"], cost["teacher_samples"]


def plain(words: list[str], trials: int, folder: Path) -> float:
    """Seconds of as many students alone."""
    from raydistill.commands.cluster import cluster
    from raydistill.commands.known import KnownTeachers
    from raydistill.commands.progress import Progress
    from raydistill.config.loader import load_config
    from raydistill.tuning.baseline import run_baselines
    from raydistill.tuning.trial import Setting

    config = load_config("demo", [*words, f"store.path={folder}-store"])
    known = KnownTeachers({}, dict.fromkeys(config.tasks, 1.0), {}, {})
    setting = Setting(config, known, folder, num_threads=1)
    config = config.model_copy(update={"ray": config.ray.model_copy(update={"num_cpus": CORES})})
    with cluster(config), Progress() as progress:
        began = time.perf_counter()
        run_baselines(setting, [config.model_copy(update={"seed": seed}) for seed in range(trials)], progress)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
