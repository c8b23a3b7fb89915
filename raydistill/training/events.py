"""What happened while a student trained: lines with their time, kept beside its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

EVENTS_FILE = "events.jsonl"
ALIKE_S = 60.0  # between what workers say of the same event

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
    """In order of time; what several workers saw alike is told once, a line cut short by a kill not at all.

    The same line a minute later is another event.
    """
    found: list[Event] = []
    for path in folder.glob("events*.jsonl"):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found.append((line["at"], line["what"]))
    events: list[Event] = []
    last: dict[str, float] = {}
    for at, what in sorted(found):
        if at - last.get(what, float("-inf")) > ALIKE_S:
            events.append((at, what))
        last[what] = at
    return events
