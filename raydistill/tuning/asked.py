"""How many rows teachers computed for a sweep: counted in files, so that what killed, stopped and failed trials cost
is in the sum."""

from __future__ import annotations

from pathlib import Path

from raydistill.commands.ledger import samples_in
from raydistill.training.costs import COSTS_FILE

ASKED = "asked.json"  # the ledger of what was asked ahead of training, by the sweep or by one of its trials


def teacher_samples(sweep: Path) -> int:
    """Of the whole sweep, up to now."""
    files = [sweep / ASKED, *sweep.glob(f"trials/*/{ASKED}"), *sweep.glob(f"trials/*/checkpoints/{COSTS_FILE}")]
    return sum(samples_in(path) for path in files)
