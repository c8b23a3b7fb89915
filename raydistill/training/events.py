"""What happened while a student trained: lines with their time, kept beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

EVENTS_FILE = "events.jsonl"

Event = tuple[float, str]
"""Seconds since the epoch, and a line."""


def append_events(folder: Path, events: list[Event]) -> None:
    """Each is written in one go, so that several workers may write."""
    if events:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps({"at": at, "what": what}) + "\n" for at, what in events))


def read_events(folder: Path) -> list[Event]:
    """In order of time; what several workers saw alike is told once, a line cut short by a kill not at all."""
    path = folder / EVENTS_FILE
    events: dict[str, Event] = {}
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            events.setdefault(line["what"], (line["at"], line["what"]))
    return sorted(events.values())
