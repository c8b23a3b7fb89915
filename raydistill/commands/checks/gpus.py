"""The GPUs: what torch sees of what the machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from raydistill.commands.checks.findings import Finding, bad, good, warning
from raydistill.commands.checks.versions import REINSTALL

SMI_S = 20.0
QUERY = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]


def driver_gpus() -> list[tuple[str, str]] | None:
    """Name and driver of each GPU that the driver knows; None: there is no driver that says."""
    if shutil.which("nvidia-smi") is None:
        return None
    result = subprocess.run(QUERY, capture_output=True, text=True, check=False, timeout=SMI_S, stdin=subprocess.DEVNULL)
    if result.returncode:
        return None
    rows = [line.rsplit(",", 1) for line in result.stdout.splitlines() if "," in line]
    return [(name.strip(), driver.strip()) for name, driver in rows]


def judge_gpus(
    torch_sees: Mapping[str, Any] | None, driver_knows: Sequence[tuple[str, str]] | None, visible: str | None
) -> list[Finding]:
    """Both compared.

    Args:
        torch_sees: as `import_script` tells; None: torch does not load.
        driver_knows: as `driver_gpus` gives.
        visible: CUDA_VISIBLE_DEVICES; None: it is not set.
    """
    if torch_sees is None:
        return []  # said already
    devices, error = torch_sees["devices"], torch_sees["error"]
    driver = f", driver {driver_knows[0][1]}" if driver_knows else ""
    if not devices and not driver_knows:
        return [good("GPUs", "none here; everything runs on the CPU")]
    if not devices:
        return [_unseen(torch_sees["built_for"], error, driver_knows or (), visible)]
    found = []
    for device in devices:
        about = f"{device['name']}, {device['memory_bytes'] / 2**30:.0f} GiB, capability {device['capability']}{driver}"
        if _is_supported(device["capability"], torch_sees["built_for_capabilities"]):
            found.append(good("GPUs", about))
        else:
            known = ", ".join(torch_sees["built_for_capabilities"])
            found.append(
                bad("GPUs", f"{about}: torch was built for {known} only", "install a torch built for this GPU")
            )
    return found


def _unseen(built_for: str | None, error: str, known: Sequence[tuple[str, str]], visible: str | None) -> Finding:
    text = f"nvidia-smi knows {len(known)} ({known[0][0]}, driver {known[0][1]}) and torch sees none"
    if visible is not None and not visible.strip(" -1"):
        return warning("GPUs", f"{text}: CUDA_VISIBLE_DEVICES is {visible!r}", "unset CUDA_VISIBLE_DEVICES to use them")
    if not built_for:
        return bad("GPUs", f"{text}: it is the CPU-only build", REINSTALL)
    fix = f"update the NVIDIA driver to one for CUDA {built_for}, or install a torch for an older CUDA"
    return bad("GPUs", f"{text}{f' ({error})' if error else ''}", fix)


def _is_supported(capability: str, architectures: Sequence[str]) -> bool:
    """Code for 8.0 runs on 8.6 (same major, no newer minor); PTX runs on everything newer."""
    if not architectures:
        return True
    major, minor = map(int, capability.split("."))
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        digits = digits.rstrip("af")
        if not digits.isdigit():
            return True  # of another maker
        built = int(digits[:-1]), int(digits[-1])
        if (kind == "sm" and built[0] == major and built[1] <= minor) or (
            kind == "compute" and built <= (major, minor)
        ):
            return True
    return False


def visible_devices() -> str | None:
    """What the user lets torch see."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")
