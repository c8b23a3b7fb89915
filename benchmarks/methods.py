"""What each loss, feature loss, way to fuse teachers and way to balance tasks is worth, and what it costs.

The demo's three tasks, where the student sees a tenth of the labels and teachers speak on all rows; two more teachers
of clothes and one more of language, worse ones, make ensembles. Every method trains the same student from the same
start on the same rows, seed by seed; told are test retention (the student's accuracy over that of the teachers' mean
logits, mean of the tasks), the difference to plain distillation (KL, mean of logits, fixed weights) seed by seed, and
the CPU time of a step, also against that of a plain one, taken in turns. Two trainings run side by side, one thread
each; costs are measured afterwards, alone. Prints a page in Markdown. With `--keep FILE` all that is finished is kept
there, and a second call with the same settings does only what is missing.

    python benchmarks/methods.py [--steps 300] [--seeds 4] [--keep FILE]
                                 [--only losses,fusion,balancing,features,labels]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers.methods_page import print_page
from peers.methods_trained import LAYER, Job, begin, cost, train

if TYPE_CHECKING:
    from raydistill.commands.known import KnownTeachers
    from raydistill.config.models import Config

EXTRA = {  # worse teachers, so that there is something to choose
    "resnet-short": {"like": "resnet", "num_epochs": 1.0, "seed": 1},
    "resnet-hasty": {"like": "resnet", "num_epochs": 0.3, "seed": 2},
    "wav2vec2-short": {"like": "wav2vec2", "num_epochs": 2.0, "seed": 1},
}


def methods(only: set[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """By kind and method: what its config says beside the plain one's."""
    kinds: dict[str, dict[str, dict[str, Any]]] = {
        "losses": {
            name: {"loss": name} for name in ("reverse_kl", "js", "skew_kl", "dist", "nkd", "mse")
        } | {"kl, standardize": {"standardize": True, "temperature": 2.0}, "kl, T = 2": {"temperature": 2.0},
               "dkd, β = 1": {"loss": "dkd", "loss_options": {"dkd": {"beta": 1.0}}},
               "dkd, β = 8": {"loss": "dkd", "loss_options": {"dkd": {"beta": 8.0}}}},
        "features": {
            name: {"features": {"deep": {**LAYER, "loss": name, "weight": weight}}, "soft_labels": "local"}
            for name, weight in (("hint", 0.1), ("rkd_distance", 1.0), ("rkd_angle", 1.0), ("similarity", 1.0),
                                 ("cka", 1.0), ("contrastive", 0.1), ("attention", 10.0))
        },
        "fusion": {
            name: {"fusion": name}
            for name in ("mean_probabilities", "best", "entropy", "confidence", "aekd", "gate")
        } | {"mean_logits, scales as they are": {"fusion_options": {"normalize_scales": False}}},
        "balancing": {
            name: {"balancing": name}
            for name in ("uncertainty", "dwa", "rlw", "gls", "famo", "pcgrad", "cagrad", "mgda", "nash_mtl",
                         "aligned_mtl", "upgrad")
        },
    }  # fmt: skip
    return {kind: each for kind, each in kinds.items() if kind in only}


def jobs_of(options: argparse.Namespace) -> list[Job]:
    only = set(options.only.split(","))
    found = []
    for seed in range(options.seeds):
        found += [Job("plain", "alone", seed, "alone", {}, {}), Job("plain", "kl", seed, "distilled", {}, {})]
        if "labels" in only:
            for arm in ("alone", "kl"):
                training = {"label_fraction": 1.0}
                found.append(Job("labels", arm, seed, "distilled" if arm == "kl" else arm, {}, training))
        for kind, each in methods(only).items():
            found += [Job(kind, name, seed, "distilled", changes, {}) for name, changes in each.items()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=6_000, help="training rows of a task, at most")
    parser.add_argument("--only", default="losses,features,fusion,balancing,labels", help="kinds of method")
    parser.add_argument("--keep", type=Path, help="finished trainings, a line each")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    only = set(options.only.split(","))
    with tempfile.TemporaryDirectory() as folder:
        config, known, ensembles = taught(options)
        results, costs = kept(options.keep)
        jobs = [job for job in jobs_of(options) if (job.kind, job.method, job.seed) not in results]
        began = time.monotonic()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, spawn, initializer=begin, initargs=(config, known, folder)) as pool:
            waiting = {pool.submit(train, job, index): job for index, job in enumerate(jobs)}
            for done, future in enumerate(as_completed(waiting), start=1):
                job = waiting[future]
                results[job.kind, job.method, job.seed] = future.result()
                keep(options.keep, job, seed=job.seed, accuracy=future.result())
                left = (time.monotonic() - began) / done * (len(jobs) - done)
                print(f"{done}/{len(jobs)} {job.kind} {job.method} {results[job.kind, job.method, job.seed]}, "
                      f"{left / 60:.0f} min left", file=sys.stderr, flush=True)  # fmt: skip
        begin(config, known, folder)
        for index, job in enumerate(job for job in jobs_of(options) if job.seed == 0):
            if (job.kind, job.method) not in costs:
                costs[job.kind, job.method] = ms, ratio = cost(job, len(jobs) + index)
                keep(options.keep, job, ms=ms, cost=ratio)
                print(f"cost of {job.kind} {job.method}: {ms:.1f} ms, {ratio:.2f}", file=sys.stderr, flush=True)
    print_page(options, {kind: list(each) for kind, each in methods(only).items()}, results, costs, ensembles)


def kept(
    file: Path | None,
) -> tuple[dict[tuple[str, str, int], dict[str, float]], dict[tuple[str, str], tuple[float, float]]]:
    """What earlier calls have finished: accuracies and costs."""
    lines = file.read_text(encoding="utf-8").splitlines() if file and file.is_file() else []
    found = [json.loads(line) for line in lines]
    results = {(each["kind"], each["method"], each["seed"]): each["accuracy"] for each in found if "accuracy" in each}
    return results, {(each["kind"], each["method"]): (each["ms"], each["cost"]) for each in found if "ms" in each}


def keep(file: Path | None, job: Job, **found: object) -> None:
    if file:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"kind": job.kind, "method": job.method, **found}) + "\n")


def taught(options: argparse.Namespace) -> tuple[Config, KnownTeachers, dict[str, float]]:
    """The config with its teachers trained and all that they say in the store."""
    from raydistill.commands.experts import experts
    from raydistill.commands.known import known_teachers
    from raydistill.commands.labels import collect_labels
    from raydistill.commands.ledger import Ledger
    from raydistill.commands.preparing import load_data
    from raydistill.commands.progress import Progress
    from raydistill.commands.teach import teach_missing
    from raydistill.config.loader import load_config
    from raydistill.teachers.checkpoints import teacher_folder

    demo = load_config("demo")
    with Progress() as progress:
        teach_missing(demo, load_data(demo, progress), progress)
    content = demo.model_dump(mode="json")
    for name, extra in EXTRA.items():
        like = content["teachers"][extra["like"]]
        train = {**like["train"], "num_epochs": extra["num_epochs"], "seed": extra["seed"]}
        content["teachers"][name] = {**like, "train": train}
    for name in demo.teachers:
        content["teachers"][name]["checkpoint"] = str(teacher_folder(demo, name))
    for task in content["tasks"].values():
        task["data"].update(max_train=options.rows, num_views=1, max_validation=600, max_test=2_000)
    # Smaller than the demo's, so that all methods can be tried in under an hour.
    content["student"].update(width=64, depth=2)
    content["training"].update(
        num_steps=options.steps, evaluate_every=options.steps // 2, batch_size=24, task_batch_size={}
    )
    content["distill"].update(soft_labels="stored")
    config = load_config(content)
    with Progress() as progress:
        data = load_data(config, progress)
        teach_missing(config, data, progress)
        label_names = {name: task.label_names for name, task in data.items()}
        # Features of a layer are asked for in every run that wants them; all else comes from the store.
        asking = {name: {**LAYER, "loss": name} for name in ("hint", "attention")}
        probing = load_config(
            config.model_dump(mode="json"), ["distill.soft_labels=local", f"distill.features={asking}"]
        )
        with experts(probing, label_names, progress) as at_hand:
            labels = collect_labels(config, data, at_hand, progress, Ledger(), with_train=True)
            known = known_teachers(probing, at_hand, labels, data)
        ensembles = labels.ensemble_accuracy(data, "test")
    # The teachers themselves stay here: whoever wants features loads his own.
    return config, replace(known, ways={}), ensembles


if __name__ == "__main__":
    main()
