"""What a search finds: the model-based sampler against random search and against the default setting.

Sweeps over temperature and label weight on the smoke recipe's pictures, one for each sampler and sweep
seed, as many trials each. The teacher is asked once for all of it. Told are the best validation retention of each, and
what the setting found by each is worth on the test split when it is trained again with seeds that no sweep saw, beside
the default setting and the student alone with the same seeds.

    python benchmarks/sweep_found.py [--sweeps 3] [--trials 10] [--steps 150] [--seeds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill import SweepResult

SAMPLERS = ("tpe", "random")
PATHS = {
    "distill.temperature": {"float": [0.5, 8], "log": True},
    "distill.hard_weight": {"float": [0.0, 0.8]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=3, help="of each sampler")
    parser.add_argument("--trials", type=int, default=10, help="of each sweep; the first is the default setting")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3, help="that each best setting is trained again with")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    from raydistill.evaluation.assemble import machine

    found: dict[str, list[SweepResult]] = {sampler: [] for sampler in SAMPLERS}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for seed in range(options.sweeps):
            for sampler in SAMPLERS:
                found[sampler].append(sweep(sampler, seed, options, Path(folder) / f"{sampler}-{seed}"))
    print(f"{datetime.date.today()}, {machine()}; ray {version('ray')}, torch {version('torch')}")
    print(
        f"{options.sweeps} sweeps of {options.trials} trials of {options.steps} steps with each sampler; the "
        f"best of each trained again with {options.seeds} seeds\n"
    )
    print(f"{'':34}{'validation retention':>24}{'test retention, new seeds':>30}")
    default = [result.trials[0].measures["retention"] for result in found[SAMPLERS[0]]]
    again = [tested(result, "defaults") for result in found[SAMPLERS[0]]]
    row("the default setting", default, again)
    for sampler in SAMPLERS:
        best = [result.best[0].measures["retention"] for result in found[sampler]]
        row(f"best of {options.trials}, {sampler}", best, [tested(result, "winner") for result in found[sampler]])
    alone = [result.best[0].alone["retention"] for result in found[SAMPLERS[0]]]
    row("the student alone", alone, [tested(result, "alone") for result in found[SAMPLERS[0]]])
    print()
    for sampler, results in found.items():
        for seed, result in enumerate(results):
            values = {path.partition(".")[2]: f"{value:.2f}" for path, value in result.best[0].values.items()}
            print(f"{sampler}, sweep seed {seed}: trial {result.best[0].number}, {values}")


def sweep(sampler: str, seed: int, options: argparse.Namespace, folder: Path) -> SweepResult:
    """One search, and its best setting trained again."""
    import raydistill

    search = {"sampler": sampler, "seed": seed, "num_trials": options.trials}
    space = {"name": f"{sampler}-{seed}", "config": "demo_smoke", "space": PATHS, "search": search}
    words = [f"training.num_steps={options.steps}", f"training.evaluate_every={options.steps // 3}"]
    return raydistill.tune(space, words, out=folder, num_seeds=options.seeds)


def tested(result: SweepResult, kind: str) -> float:
    comparison = result.comparison
    assert comparison is not None
    return comparison.retention.get(kind, comparison.retention["winner"])  # no defaults: the winner's are the same


def row(name: str, validation: list[float], test: list[float]) -> None:
    print(f"{name:34}{spread(validation):>24}{spread(test):>30}")


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


if __name__ == "__main__":
    main()
