"""Whether what is installed fits together, and whether it loads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raydistill.commands.checks import import_script
from raydistill.commands.checks.findings import Finding, Told, bad, good, run_script, warning

TOLD = ("torch", "torchvision", "torchaudio", "ray", "transformers", "optuna", "raydistill")
LOADED = ("torch", "torchvision", "torchaudio", "transformers", "ray", "optuna")
REINSTALL = "pip install --force-reinstall torch torchvision torchaudio (from one index, so that they are of one build)"


def check_versions() -> list[Finding]:
    """Every dependency against our bounds, and against the bounds of each other."""
    try:
        ours = importlib.metadata.requires("raydistill") or []
        (python,) = importlib.metadata.metadata("raydistill").get_all("Requires-Python") or [""]
    except importlib.metadata.PackageNotFoundError:
        return [warning("versions", "raydistill is not installed, only imported", "pip install -e . in its folder")]
    installed: dict[str, str | None] = {}
    wants: dict[str, list[str]] = {"raydistill": ours}
    for requirement in needed(ours):
        installed[requirement.name] = _version(requirement.name)
        if installed[requirement.name] is not None:
            wants[requirement.name] = importlib.metadata.requires(requirement.name) or []
            for inner in needed(wants[requirement.name]):
                installed.setdefault(inner.name, _version(inner.name))
    found = judge_python(platform.python_version(), python) + judge_bounds(wants, installed)
    if found:
        return found
    versions = ", ".join(f"{name} {_version(name)}" for name in TOLD)
    return [good("versions", f"Python {platform.python_version()}, {versions}")]


def needed(requirements: list[str]) -> list[Requirement]:
    """Those of this machine, without extras."""
    parsed = [Requirement(text) for text in requirements]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def judge_python(version: str, bounds: str) -> list[Finding]:
    """Ours against what raydistill wants."""
    if SpecifierSet(bounds).contains(version, prereleases=True):
        return []
    return [bad("versions", f"Python is {version}, raydistill wants {bounds}", f"use a Python {bounds}")]


def judge_bounds(wants: Mapping[str, list[str]], installed: Mapping[str, str | None]) -> list[Finding]:
    """What is missing or outside somebody's bounds.

    Args:
        wants: by package, its requirements.
        installed: by package, its version; None: it is not there.
    """
    found = []
    for package, requirements in wants.items():
        for requirement in needed(requirements):
            version = installed.get(requirement.name)
            fix = f"pip install '{requirement.name}{requirement.specifier}'"
            if version is None:
                found.append(bad("versions", f"{requirement.name} is not installed, {package} needs it", fix))
            elif not requirement.specifier.contains(version, prereleases=True):
                text = f"{requirement.name} is {version}, {package} wants {requirement.specifier}"
                # Bounds of others are often narrower than what works.
                kind = bad if package in ("raydistill", "torchvision", "torchaudio") else warning
                torches = {"torch", "torchvision", "torchaudio"}
                found.append(kind("versions", text, REINSTALL if {package, requirement.name} <= torches else fix))
    return found


def look_at_imports(limit_s: float) -> tuple[Told, str]:
    """What the libraries say when they are loaded: see `import_script`."""
    return run_script(Path(import_script.__file__), {"modules": LOADED}, limit_s)


def judge_imports(told: Mapping[str, Any], ended: str) -> list[Finding]:
    """Libraries that do not load, and builds that do not belong together.

    Args:
        told: by library, its version and error.
        ended: why the looking ended early; empty: it did not.
    """
    found = []
    for name in LOADED:
        if name not in told:  # the one that took the process with it, or that was being loaded
            found.append(
                bad("imports", f"loading {name}: {ended or 'no answer'}", f"pip install --force-reinstall {name}")
            )
            break
        error = told[name]["error"]
        if "operator torchvision::" in error or "undefined symbol" in error:
            of = told["torch"]["version"]
            text = f"import {name} fails ({error}): torch {of} is of another build, such as the CPU-only one"
            found.append(bad("imports", text, REINSTALL))
        elif error:
            found.append(bad("imports", f"import {name} fails ({error})", _mend(name, error)))
    builds = {name: _build(told[name]["version"]) for name in ("torch", "torchvision", "torchaudio") if name in told}
    known = {name: build for name, build in builds.items() if build}
    if len(set(known.values())) > 1:
        text = ", ".join(f"{name} for {build}" for name, build in known.items())
        found.append(bad("imports", f"built for different devices: {text}", REINSTALL))
    return found or [good("imports", f"{', '.join(LOADED)} load")]


def _build(version: str) -> str:
    """`cu130` of 2.14.1+cu130, `cpu` of 2.13.0+cpu."""
    return version.partition("+")[2]


def _mend(name: str, error: str) -> str:
    if "CUDA" in error and name in ("torchvision", "torchaudio"):
        return REINSTALL
    if error.startswith("ModuleNotFoundError"):
        return "pip install raydistill" if repr(name) in error else "pip install the module that is missing"
    return f"pip install --force-reinstall {name}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
