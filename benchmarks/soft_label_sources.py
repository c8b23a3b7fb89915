"""What a training step costs with each source of soft labels, against the same step without any teacher.

One process, one student, the same rows and views; teachers in this process, in a pool of one actor, and from a warm
store. Prints seconds a step and their ratio to plain training: medians of several rounds, interleaved.

    python benchmarks/soft_label_sources.py [--rounds 5] [--steps 40]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import raydistill
from raydistill.commands.cluster import cluster
from raydistill.commands.experts import experts
from raydistill.commands.labels import collect_labels, training_jobs
from raydistill.commands.ledger import Ledger
from raydistill.commands.preparing import load_data
from raydistill.commands.progress import Progress
from raydistill.commands.students import make_student
from raydistill.commands.teach import teach_missing
from raydistill.evaluation.assemble import machine
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.tables import RunTables
from raydistill.teachers.sources import SourcePlan
from raydistill.training.loop import train_student
from raydistill.training.plan import TrainingPlan

# The demo's picture task; the teacher is trained for a moment only: its answers take as long as a good one's.
OVERRIDES = [
    "teachers.resnet.train.num_epochs=0.05", "teachers.resnet.allow_chance_level=true",
    "tasks.clothes.data.max_train=4000", "tasks.clothes.data.max_validation=200", "tasks.clothes.data.max_test=200",
    "tasks.clothes.data.num_views=1", "training.evaluate_every=1000000",
]  # fmt: skip


TARGET = 1.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    whole = raydistill.load_config("demo").model_dump(mode="json")
    only = {
        **whole, "name": "bench", "tasks": {"clothes": whole["tasks"]["clothes"]},
        "teachers": {"resnet": whole["teachers"]["resnet"]}, "student": {**whole["student"], "embeddings_from": None},
    }  # fmt: skip
    only["training"]["task_batch_size"] = {}
    words = [*OVERRIDES, f"training.num_steps={options.steps}"]
    remote, local = (
        raydistill.load_config(only, [*words, f"distill.soft_labels={kind}"]) for kind in ("remote", "local")
    )
    with Progress() as progress, cluster(remote), tempfile.TemporaryDirectory() as folder:
        data = load_data(remote, progress)
        teach_missing(remote, data, progress)
        names = {name: task.label_names for name, task in data.items()}
        make_student(remote, data, 0, Path(folder) / "initial")
        with experts(remote, names, progress) as pool, experts(local, names, progress) as here:
            collect_labels(remote, data, here, progress, Ledger(), with_train=True)
            taught = {job.teacher: job.taught for job in training_jobs(remote, data, here.descriptions)}
            ways: dict[str, SourcePlan | None] = {
                "alone": None,
                "stored": SourcePlan(remote, {}, RunTables(remote, taught)),
                "local": SourcePlan(local, here.ways, None),
                "remote": SourcePlan(remote, {"remote": pool.ways["remote"]}, None),
            }
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for round_ in range(options.rounds + 1):
                for way, open_source in ways.items():
                    run = Path(folder) / f"{way}-{round_}"
                    plan = TrainingPlan(
                        config=remote, arm="distilled", seed=0, initial_student=Path(folder) / "initial", folder=run,
                        tensorboard=run, ensemble_accuracy={"clothes": 1.0},
                        standings={"clothes": tuple(Standing(name, 1.0, 1.0) for name in remote.teachers)},
                        open_source=open_source,
                    )  # fmt: skip
                    began = time.perf_counter()
                    train_student(plan, data)
                    if round_:  # the first one warms up
                        seconds[way].append((time.perf_counter() - began) / options.steps)
    print(f"\n{date.today()}, {machine()}; torch {version('torch')}; {options.rounds} rounds of {options.steps} steps")
    print(f"{'source':10}{'ms a step':>12}{'spread':>18}{'÷ no teacher':>16}")
    for way, times in seconds.items():
        spread = f"{min(times) * 1e3:.1f}…{max(times) * 1e3:.1f}"
        # Of each round by itself: its runs shared the machine's mood.
        ratio = statistics.median(time / alone for time, alone in zip(times, seconds["alone"], strict=True))
        print(f"{way:10}{statistics.median(times) * 1e3:12.1f}{spread:>18}{ratio:16.3f}")
    print(f"target for stored: {TARGET} at most")


if __name__ == "__main__":
    main()
