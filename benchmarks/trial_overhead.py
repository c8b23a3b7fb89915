"""What a trial costs beyond its training steps, in local mode.

A real sweep of short trials on the demo's pictures. Of each trial: the seconds from its start to its first step and
from its last step to its end (data, student, latency, files), and what is left of the sweep's wall clock, shared among
the trials (Ray Tune's and Optuna's part, and cores that idle at the end).

    python benchmarks/trial_overhead.py [--trials 12] [--steps 60]
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

TARGET_S = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    import raydistill
    from raydistill.evaluation.assemble import machine

    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        words = [
            f"training.num_steps={options.steps}",
            f"training.evaluate_every={options.steps}",
            f"ray.num_cpus={cores}",
        ]
        result = raydistill.tune("smoke", words, out=Path(folder) / "sweep", num_trials=options.trials)
    own = [trial.measures["overhead_s"] for trial in result.trials]
    training = [trial.measures["training_s"] for trial in result.trials]
    rest = (result.cost["trials_s"] * cores - sum(own) - sum(training)) / len(own)
    print(f"{datetime.date.today()}, {machine()}; ray {version('ray')}, torch {version('torch')}")
    print(f"{options.trials} trials of {options.steps} steps, {cores} at a time\n")
    print("seconds a trial")
    for what, seconds in {"training": training, "start to first step, last to end": own}.items():
        print(f"{what:40}{statistics.median(seconds):8.2f} ({min(seconds):.2f}…{max(seconds):.2f})")
    print(f"{'share of all else, the first start too':40}{rest:8.2f}")
    print(f"longest {max(own):.2f} s, target under {TARGET_S:.0f} s: {'met' if max(own) < TARGET_S else 'MISSED'}")


if __name__ == "__main__":
    main()
