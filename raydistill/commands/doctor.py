"""`raydistill doctor`: whether this machine and the cluster are fit for a run, and how to mend what is not."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from raydistill.commands.checks import node_script
from raydistill.commands.checks.findings import Finding, Level, Told, bad, checked, good, run_script
from raydistill.commands.checks.gpus import driver_gpus, judge_gpus, visible_devices
from raydistill.commands.checks.nodes import judge_clocks, judge_node_versions, judge_places, judge_space
from raydistill.commands.checks.reaching import (
    OWN,
    ask_dashboard,
    find_address,
    judge_dashboard,
    judge_openness,
    judge_ray,
    judge_refusal,
    judge_token,
    name_of,
    read_token,
)
from raydistill.commands.checks.versions import check_versions, judge_imports, look_at_imports
from raydistill.commands.in_job import RUNS
from raydistill.commands.run_folder import run_path
from raydistill.config.loader import load_config
from raydistill.config.models import Config, RayConfig
from raydistill.config.text import expand
from raydistill.errors import ConfigError
from raydistill.remote import is_relative, is_url

QUICK_S, IMPORTS_S, REACH_S, NODE_S, ALL_S = 30.0, 180.0, 30.0, 60.0, 300.0  # limits of the checks
ON_NODES = ("raydistill", "torch", "transformers", "ray")
STYLES = {Level.GOOD: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}

NO_RUN: dict[str, Any] = {
    "name": "none",
    "tasks": {"none": {"domain": "text", "data": {"source": "csv", "path": "none"}}},
}

Source = Config | str | Path | Mapping[str, Any] | None


@dataclass(frozen=True)
class Asked:
    """What of a config the doctor looks at."""

    ray: RayConfig
    places: dict[str, str]


def doctor(source: Source = None, overrides: Iterable[str] = (), out: str | Path | None = None) -> list[Finding]:
    """Look at versions, Ray, GPUs, storage, clocks and space, and print a line for each; nothing is changed.

    Args:
        source: a config (whatever `raydistill.distill` takes); None: the defaults.
        overrides: `key=value` words, for a config.
        out: run folder; default: the config's name in $RAYDISTILL_RUNS, or in runs/.

    Returns:
        All findings; a run would fail of those at `Level.ERROR`.

    Raises:
        ConfigError: the config cannot be read.
    """
    asked = _asked(source, overrides, out)
    printer, found = _Printer(), []

    def add(findings: list[Finding]) -> None:
        found.extend(findings)
        for finding in findings:
            printer.show(finding)

    add(checked("versions", check_versions, QUICK_S))
    loaded, ended = look_at_imports(IMPORTS_S)
    add(checked("imports", lambda: judge_imports(loaded, ended), QUICK_S))
    add(checked("GPUs", lambda: judge_gpus(loaded.get("gpus"), driver_gpus(), visible_devices()), QUICK_S))
    add(checked("token", lambda: judge_token(read_token()), QUICK_S))
    addresses: list[str] = []

    def find() -> list[Finding]:
        address = find_address(asked.ray)
        if address is None:
            return [good("Ray", OWN)]
        addresses.append(address)
        return []

    add(checked("Ray", find, REACH_S))
    address = addresses[0] if addresses else None
    told, ended = _look(asked.places, address)
    add(checked("cluster", lambda: _judge(asked.places, address, told, ended), QUICK_S))
    counts = {level: sum(finding.level is level for finding in found) for level in Level}
    printer.say(
        f"{counts[Level.GOOD]} well, {counts[Level.WARNING]} to look at, {counts[Level.ERROR]} to mend"
        if counts[Level.WARNING] + counts[Level.ERROR] else "all is well"
    )  # fmt: skip
    return found


def _asked(source: Source, overrides: Iterable[str], out: str | Path | None) -> Asked:
    if source is None:
        bare = load_config(NO_RUN, overrides)
        cache, store, ray = bare.cache_dir, bare.store.path, bare.ray
        if out is None:
            out = os.environ.get(RUNS) or "runs"
        run: str | Path = out if is_url(out) else expand(out)
    else:
        # Not `as_config`, which loads torch.
        config = load_config(source.model_dump(mode="json") if isinstance(source, Config) else source, overrides)
        cache, store, ray, run = config.cache_dir, config.store.path, config.ray, run_path(config, out)
    # `~` stays: on another node it may be another folder.
    places = {"cache_dir": cache, "store.path": store, "run folder": str(run)}
    for name, place in places.items():
        if place is not None and is_relative(place):
            raise ConfigError(f"{name} {place} is relative; write the whole path, with three strokes: file:///…")
    return Asked(ray, {name: _absolute(place) for name, place in places.items() if place is not None})


def _absolute(place: str) -> str:
    return place if "://" in place or place.startswith("~") else str(Path(place).absolute())


def _look(places: Mapping[str, str], address: str | None) -> tuple[Told, str]:
    """Everything that is seen by writing to the places, here and on every node: see `node_script`."""
    request = {
        "places": places, "address": address, "word": secrets.token_hex(8), "packages": ON_NODES,
        "where": str(Path.cwd()), "connect_s": REACH_S, "limit_s": NODE_S,
    }  # fmt: skip
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1"}
    told, ended = run_script(Path(node_script.__file__), request, ALL_S if address else REACH_S, quiet)
    if ended:  # it may have had no time to tidy up
        for place in places.values():
            if "://" not in place:
                with contextlib.suppress(OSError):
                    mark = f"{node_script.MARK}-{request['word']}-{node_script.DRIVER}"
                    (Path(place).expanduser() / mark).unlink(missing_ok=True)
    return told, ended


def _judge(places: Mapping[str, str], address: str | None, told: Told, ended: str) -> list[Finding]:
    found = []
    nodes = told.get("nodes", [])
    names = {node_script.DRIVER: "this machine", **{node["id"]: name_of(node) for node in nodes}}
    if "refused" in told:
        found.append(judge_refusal(told["refused"], _version("ray"), platform.python_version()))
    if "ray" in told:
        url = told["ray"]["dashboard"]
        found += judge_ray(told["ray"], nodes, platform.python_version())
        found += judge_openness(told.get("asks_for_token"), nodes, told["ray"]["address"])
        found += judge_dashboard(url, ask_dashboard(url) if url else None)
    if ended:
        where = "storage" if not address else "cluster" if "ray" in told else "Ray"
        fix = "see `ray status`" if address else "is a folder gone that was mounted here?"
        found.append(bad(where, f"looking at it: {ended}", fix))
    if "looks" in told:
        stores = {node["id"]: node["resources"].get("object_store_memory", 0.0) for node in nodes}
        looks = told["looks"]
        of_nodes = {node: look for node, look in looks.items() if node != node_script.DRIVER or len(looks) == 1}
        found += judge_node_versions(looks, names) + judge_clocks(told.get("clocks", {}), names)
        found += judge_space(of_nodes, stores, names)
    if "written" in told and "seen" in told:
        writers = {who: about for who, about in told["written"].items() if who in told["seen"]}
        found += judge_places(places, writers, told["seen"], names)
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


class _Printer:
    """Lines with marks; colours only for a terminal."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)
        try:
            "".join(level.value for level in Level).encode(sys.stdout.encoding or "ascii")
            self._marks = {level: level.value for level in Level}
        except UnicodeEncodeError:
            self._marks = {Level.GOOD: "+", Level.WARNING: "!", Level.ERROR: "x"}

    def show(self, finding: Finding) -> None:
        """A line, and one for the fix."""
        mark, style = self._marks[finding.level], STYLES[finding.level]
        self._console.print(Text.assemble((mark, style), f" {finding.name}: {finding.text}"), soft_wrap=True)
        if finding.fix:
            self.say(f"    fix: {finding.fix}")

    def say(self, line: str) -> None:
        """As it is."""
        self._console.print(Text(line), soft_wrap=True)
