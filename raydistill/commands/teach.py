"""`raydistill teach`: train the teachers that have no checkpoint yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from raydistill.commands.cluster import cluster, largest_node
from raydistill.commands.folders import write_atomically
from raydistill.commands.preflight import preflight_teach
from raydistill.commands.preparing import as_config, load_data
from raydistill.commands.progress import Progress
from raydistill.commands.run_folder import folder_for_notes
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.errors import TeacherError
from raydistill.teachers.checkpoints import CARD, teacher_folder
from raydistill.teachers.teach import train_teacher, untrained


def teach(
    config: Config | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    again: bool = False,
) -> dict[str, Path]:
    """Train or fine-tune every teacher without a checkpoint; a stopped training goes on from its last evaluation.

    Args:
        config: a config, a file of one, or the name of a shipped recipe.
        overrides: `key=value` words.
        out: folder of the log and of teachers.json; default runs/NAME. The teachers themselves lie in the cache,
            where every run of the same teachers finds them.
        again: train the cached ones anew.

    Returns:
        The checkpoint folders by teacher.
    """
    config = as_config(config, overrides)
    with folder_for_notes(config, out) as folder, Progress(folder / "log.txt") as progress:
        teach_missing(config, load_data(config, progress), progress, again)
        checkpoints = {name: teacher_folder(config, name) for name in config.teachers}
        cards = {name: {"checkpoint": str(path), **_card(path)} for name, path in checkpoints.items()}
        write_atomically(folder / "teachers.json", json.dumps(cards, indent=1))
        for name, card in cards.items():
            known = f", validation accuracy {card['validation_accuracy']:.3f}" if "validation_accuracy" in card else ""
            progress.say(f"{name}: {card['checkpoint']}{known}")
    return checkpoints


def teach_missing(config: Config, data: dict[str, TaskData], progress: Progress, again: bool = False) -> None:
    """Where there are cores for several at once, or a cluster, they are Ray tasks; else they train here in turn."""
    names = untrained(config, data, again)
    if not names:
        return
    progress.say(f"teachers: training {', '.join(names)}")

    def say(text: str) -> None:
        progress.say(f"teachers: {text}")

    def show(text: str) -> None:
        progress(f"teachers: {text}")

    placed_by_user = any(train is not None and train.placement for train in (config.teachers[n].train for n in names))
    cores = config.ray.num_cpus or os.cpu_count() or 1
    if config.ray.address is None and not placed_by_user and (len(names) == 1 or cores < 4):
        for name in names:
            train_teacher(config, name, data[config.teachers[name].task], show, say, again)
        return
    with cluster(config):
        from raydistill.teachers.side_by_side import placements, train_side_by_side

        placed = placements(config, names, largest_node("CPU"), largest_node("GPU"))
        preflight_teach(placed, config.ray.autoscales)
        prepared = {name: task.prepared for name, task in data.items()}
        nodes = train_side_by_side(config, prepared, placed, show, say, again)
    if missing := untrained(config, data):
        name = missing[0]
        raise TeacherError(
            f"teacher {name!r} was trained on node {nodes.get(name, '?')}, and its checkpoint is not at "
            f"{teacher_folder(config, name)} here; put cache_dir on storage that every node sees"
        )


def _card(path: Path) -> dict[str, Any]:
    card = path / CARD
    content: dict[str, Any] = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return content
