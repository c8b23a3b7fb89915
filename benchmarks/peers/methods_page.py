"""The page that benchmarks/methods.py prints."""

from __future__ import annotations

import argparse
import datetime
import itertools
import statistics
from importlib.metadata import version
from typing import Any

from scipy.stats import t

from raydistill.evaluation.assemble import machine

BY_LOSSES = ("uncertainty", "dwa", "rlw", "gls")
BY_GRADIENTS = ("pcgrad", "cagrad", "mgda", "nash_mtl", "aligned_mtl", "upgrad")
SURE = 0.95  # of a difference that is called better or worse, by Student's t


def print_page(
    options: argparse.Namespace, kinds: dict[str, list[str]], results: dict[Any, Any],
    costs: dict[Any, tuple[float, float]], ensembles: dict[str, float],
) -> None:  # fmt: skip
    """All tables.

    Args:
        kinds: names of methods.
        results: by kind, method and seed: test accuracy by task.
        costs: of a step, in milliseconds and against a plain one, by kind and method.
        ensembles: test accuracy of the teachers' mean logits, by task.
    """
    print("## Measured\n")
    print(
        f"{datetime.date.today()}, {machine()}; torch {version('torch')}. The demo's tasks with {options.rows:,} "
        f"training rows each at most and three more teachers, {options.steps} steps, {options.seeds} seeds; two "
        "trainings side by side, one thread each (`python benchmarks/methods.py`).\n"
    )
    seeds = range(options.seeds)

    def retention(kind: str, method: str) -> list[float]:
        return [
            statistics.mean(results[kind, method, seed][task] / ensembles[task] for task in ensembles) for seed in seeds
        ]

    plain = retention("plain", "kl")
    together = ", ".join(f"{task} {value:.3f}" for task, value in ensembles.items())
    print(f"Retention 1 is the teachers' mean logits: {together}.\n")
    if "labels" in options.only.split(","):
        kinds = {"labels": ["alone", "kl"], **kinds}
    head = (
        "| | " + " | ".join(ensembles) + " | retention | against plain distillation | CPU of a step, ms | ÷ plain |\n"
    )
    head += "|---|" + "--:|" * (len(ensembles) + 1) + "---|--:|--:|"
    titles = {
        "losses": "Soft losses",
        "features": "Feature losses on the last layer of `resnet`, which is asked in every step",
        "fusion": "Fusing teachers",
        "balancing": "Balancing tasks",
        "labels": "With all labels instead of a tenth",
    }
    sizes = {kind: len(names) for kind, names in kinds.items() if kind != "labels"}
    helped: dict[str, list[str]] = {"better": [], "worse": [], "no clear difference": []}
    for kind, names in kinds.items():
        print(f"### {titles[kind]}\n\n{head}")
        rows = [("plain", "alone"), ("plain", "kl")] if kind != "labels" else []
        for row_kind, name in itertools.chain(rows, [(kind, name) for name in names]):
            values = retention(row_kind, name)
            accuracy = [spread([results[row_kind, name, seed][task] for seed in seeds]) for task in ensembles]
            verdict = ""
            if (row_kind, name) != ("plain", "kl"):
                differences = [a - b for a, b in zip(values, plain, strict=True)]
                word, verdict = compared(differences)
                if row_kind == kind and kind != "labels":
                    helped[word].append(f"`{name}`")
            label = {"alone": "student alone", "kl": "plain distillation"}.get(name, f"`{name}`")
            ms, ratio = costs[row_kind, name]
            cells = [label, *accuracy, spread(values), verdict, f"{ms:.1f}", f"{ratio:.2f}"]
            print(f"| {' | '.join(cells)} |")
        print()
    for word, names in helped.items():
        text = ", ".join(dict.fromkeys(names)) or "none"
        than = "" if word == "no clear difference" else " than plain distillation"
        print(f"**{word[0].upper()}{word[1:]}**{than}: {text}.\n")
    print(
        f"A difference counts where the t interval of {SURE:.0%} over the seeds' differences leaves out 0. Of "
        f"{sum(sizes.values())} methods that changed nothing {(1 - SURE) * sum(sizes.values()):.1f} would count by "
        "chance.\n"
    )
    print(
        "CPU of a step, on one thread, and against one of plain distillation: two steps of each in turns, 60 in all; "
        "plain against itself shows how exact the ratio is. Between rows compare ratios: the machine's speed drifts."
    )
    if "balancing" in kinds:
        by_losses, by_gradients = (
            statistics.mean(costs["balancing", name][1] for name in names) for names in (BY_LOSSES, BY_GRADIENTS)
        )
        print(
            f"Balancing costs, on average: by losses {by_losses:.2f}, by gradients {by_gradients:.2f}, `famo`, which "
            f"looks twice, {costs['balancing', 'famo'][1]:.2f}."
        )


def compared(differences: list[float]) -> tuple[str, str]:
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("inf")
    clear = float(t.ppf((1 + SURE) / 2, max(1, len(differences) - 1))) * error
    word = "better" if mean > clear else "worse" if mean < -clear else "no clear difference"
    return word, f"{mean:+.3f} ± {error:.3f} {word}"


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"
