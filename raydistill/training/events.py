"""What happened while a student trained: lines with their time, kept beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

EVENTS_FILE = "events.jsonl"

Event = tuple[float, str]
"""Seconds since the epoch, and a line."""


def append_events(folder: Path, events: list[Event], file: str = EVENTS_FILE) -> None:
    """Each is written in one go, so that several workers may write.

    Args:
        file: its name; workers that share no folder have one each.
    """
    if events:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("a", encoding="utf-8") as opened:
            opened.write("".join(json.dumps({"at": at, "what": what}) + "\n" for at, what in events))


def read_events(folder: Path) -> list[Event]:
    """In order of time; what several workers saw alike is told once, a line cut short by a kill not at all."""
    found: list[Event] = []
    for path in folder.glob("events*.jsonl"):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found.append((line["at"], line["what"]))
    events: dict[str, Event] = {}
    for at, what in sorted(found):
        events.setdefault(what, (at, what))
    return sorted(events.values())
