"""Which files of a run at a URL its workers write, who share no folder with the command. Imports nothing heavy."""

from __future__ import annotations

LATEST, BEST = "latest.pt", "best.pt"
ARMS = ("checkpoints/alone-seed", "checkpoints/distilled-seed", "tensorboard/")
OF_THE_COMMAND = ("events.jsonl", "failure.txt")  # in an arm's folder, where workers write all else
OF_RAY = "ray_train/"  # stays where it is


def is_of_workers(name: str) -> bool:
    """Whether the command leaves a file to its workers, or to Ray; by its path in the run's folder."""
    return name.startswith(ARMS) and name.rsplit("/", 1)[-1] not in OF_THE_COMMAND
