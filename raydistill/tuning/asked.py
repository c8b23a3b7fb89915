"""How many rows teachers computed for a sweep: counted in files, so that what killed, stopped and failed trials cost
is in the sum."""

from __future__ import annotations

import json
from pathlib import Path

from raydistill.commands.run_folder import write_atomically
from raydistill.soft_labels.source import total_cost
from raydistill.training.costs import read_costs

ASKED = "asked.json"


def note_asked(folder: Path, samples: int) -> None:
    """Rows computed ahead of training, on behalf of this folder; added to those of earlier calls."""
    write_atomically(folder / ASKED, json.dumps(_noted(folder) + samples))


def teacher_samples(sweep: Path) -> int:
    """Of the whole sweep, up to now."""
    trials = list(sweep.glob("trials/*"))
    during = sum(total_cost(read_costs(trial / "checkpoints").values()).samples for trial in trials)
    return during + sum(_noted(folder) for folder in (sweep, *trials))


def _noted(folder: Path) -> int:
    try:
        noted: int = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0
    return noted
