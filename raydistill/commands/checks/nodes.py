"""What the nodes said, judged: places that are shared or not, clocks, memory and disks, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydistill.commands.checks.findings import Finding, bad, good, warning
from raydistill.commands.checks.node_script import DRIVER

CLOCK_WARNS_S, CLOCK_FAILS_S = 1.0, 5.0
SPILL_LIMIT = 0.95  # of a disk: Ray spills to none that is fuller
FULL_BYTES, SCARCE_BYTES = 2**28, 2**31
PROCESS_BYTES = 2**30  # of a worker, roughly, before its model
GIB = 2**30

Names = Mapping[str, str]
"""By writer (a node's id, or `DRIVER`): its name for people."""


def judge_places(
    places: Names, written: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Mapping[str, Any]], names: Names
) -> list[Finding]:
    """Whether every place can be written by all, and is one and the same place.

    A word that a reader finds where another one wrote it tells one shared folder from two of the same name.

    Args:
        places: by name in the config, as it stands there.
        written: by writer and place, as `write_word` gives it, or an `error` alone.
        seen: by reader and place, as `read_words` gives it, or an `error` alone.
    """
    found = []
    for place, where in places.items():
        problems = _unwritten(place, written, names) or _unshared(place, where, written, seen, names)
        path = written[DRIVER][place]["path"]
        many = f", one and the same for {len(written)} writers" if len(written) > 1 else ""
        found += problems or [good(place, f"{path} can be written{many}")]
    return found


def _unwritten(place: str, written: Mapping[str, Mapping[str, Any]], names: Names) -> list[Finding]:
    found, missing = [], []
    for writer, of_places in written.items():
        about = of_places[place]
        if writer != DRIVER and "FileNotFound" in about["error"]:  # the driver makes what is missing
            missing.append(names[writer])
        elif about["error"]:
            where = about.get("path", place)
            fix = f"give this user the right to write there, or set {_setting(place)} to another place"
            if "Protocol not known" in about["error"]:
                fix = f"set {_setting(place)} to a path, or to a URL such as s3://bucket/{place.replace(' ', '-')}"
            found.append(bad(place, f"{where} cannot be written by {names[writer]} ({about['error']})", fix))
    if missing:
        path = written[DRIVER][place].get("path", place)
        found.append(bad(place, f"{path} is not there on {', '.join(missing)}", _share(place)))
    return found


def _unshared(
    place: str,
    where: str,
    written: Mapping[str, Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    names: Names,
) -> list[Finding]:
    blind: dict[str, list[str]] = {}
    for reader, of_places in seen.items():
        answers = of_places.get(place, {})
        for writer in written:
            if answers.get(writer, answers.get("error", "no answer")):
                blind.setdefault(reader, []).append(writer)
    if not blind:
        return []
    if len(written) == 1:
        why = seen[DRIVER][place][DRIVER]
        return [bad(place, f"{where} does not give back what was written ({why})", f"check {_setting(place)}")]
    reader = next(iter(blind))
    paths = {names[who]: of_places[place].get("path", "") for who, of_places in written.items()}
    path = f"{where} (" + ", ".join(f"{path} for {name}" for name, path in paths.items()) + ")"
    pair = f"{names[reader]} does not see what {names[blind[reader][0]]} writes"
    shown = path if len(set(paths.values())) > 1 else next(iter(paths.values()))
    return [bad(place, f"{shown} is not one place: {pair}", _share(place))]


def _setting(place: str) -> str:
    return "--out" if place == "run folder" else place


def _share(place: str) -> str:
    return f"set {_setting(place)} to a folder on storage that every node mounts under the same path"


def judge_clocks(clocks: Mapping[str, Mapping[str, Any]], names: Names) -> list[Finding]:
    """Those that are certainly off: what a slow answer leaves open counts for the clock."""
    found, furthest = [], 0.0
    for node, reading in clocks.items():
        if "error" in reading:
            found.append(warning("clock", f"{names[node]}: {reading['error']}"))
            continue
        off = max(0.0, abs(reading["ahead_s"]) - reading["within_s"])
        furthest = max(furthest, off)
        if off > CLOCK_WARNS_S:
            kind = bad if off > CLOCK_FAILS_S else warning
            where = "ahead of" if reading["ahead_s"] > 0 else "behind"
            text = f"{names[node]} is {abs(reading['ahead_s']):.1f} s {where} this machine"
            found.append(kind("clock", text, "let every node keep its time with NTP (chrony, systemd-timesyncd)"))
    return found or ([good("clock", f"all nodes within {max(0.1, furthest):.1f} s")] if clocks else [])


def judge_space(
    looks: Mapping[str, Mapping[str, Any]], object_stores: Mapping[str, float], names: Names
) -> list[Finding]:
    """Memory, shared memory and disks.

    Args:
        looks: by node, as `look` gives it, or an `error` alone.
        object_stores: by node, the size of Ray's object store in bytes.
    """
    found = []
    for node, seen in looks.items():
        if "error" in seen:
            fix = "see `ray status`, and the node's own logs in /tmp/ray/session_latest/logs"
            found.append(bad("node", f"{names[node]}: {seen['error']}", fix))
            continue
        problems = _memory(names[node], seen["memory"])
        for folder, disk in seen["disks"].items():
            if folder == "/dev/shm":
                problems += _shared_memory(names[node], disk, object_stores.get(node, 0.0))
            else:
                problems += _disk(names[node], folder, disk, spills=folder == seen["session"])
        memory, free = seen["memory"], [disk["free"] for folder, disk in seen["disks"].items() if folder != "/dev/shm"]
        text = f"{names[node]}: {memory['free'] / GIB:.1f} of {memory['total'] / GIB:.1f} GiB of memory free"
        text += f", {min(free) / GIB:.0f} GiB or more on each disk" if free else ""
        found += problems or [good("space", text)]
    return found


def _memory(name: str, memory: Mapping[str, int]) -> list[Finding]:
    if memory["free"] >= PROCESS_BYTES:
        return []
    text = f"{name}: {memory['free'] / GIB:.1f} of {memory['total'] / GIB:.1f} GiB of memory free; a worker takes 1"
    kind = bad if memory["free"] < (1 - SPILL_LIMIT) * memory["total"] else warning
    return [kind("space", text, "end what runs there: Ray kills workers where memory is 95% full")]


def _shared_memory(name: str, disk: Mapping[str, int], object_store: float) -> list[Finding]:
    if not object_store or object_store <= disk["total"] * 1.01:
        return []
    text = f"{name}: /dev/shm has {disk['total'] / GIB:.1f} GiB, Ray's object store wants {object_store / GIB:.1f}"
    return [warning("space", text, "enlarge it (docker run --shm-size=…): Ray uses a disk instead, which is slow")]


def _disk(name: str, folder: str, disk: Mapping[str, int], spills: bool) -> list[Finding]:
    used = 1 - disk["free"] / max(1, disk["total"])
    text = f"{name}: the disk of {folder} is {used:.0%} full, {disk['free'] / GIB:.1f} GiB free"
    if spills and used > SPILL_LIMIT:
        return [bad("space", f"{text}; Ray spills to none that is fuller than 95%", "free some space there")]
    if disk["free"] < SCARCE_BYTES:
        kind = bad if disk["free"] < FULL_BYTES else warning
        return [kind("space", text, "free some space there, or choose another place")]
    return []


def judge_node_versions(looks: Mapping[str, Mapping[str, Any]], names: Names) -> list[Finding]:
    """What nodes have against what the driver has; an empty version is one that is imported and not installed."""
    found = []
    ours = looks[DRIVER]["versions"]
    for node, seen in looks.items():
        theirs = seen.get("versions", ours)
        for package, version in ours.items():
            there = theirs.get(package)
            if there is None:
                text = f"{names[node]} has no {package}"
                exactly = f"{package}=={version}" if version else package
                fix = f"pip install {exactly} on that node, with the Python that its Ray runs on"
                found.append(bad("versions", text, fix))
            elif version and there and there != version:
                text = f"{names[node]} has {package} {there}, this machine {version}"
                kind = bad if package == "raydistill" else warning
                found.append(kind("versions", text, "install the same versions everywhere"))
    return found
