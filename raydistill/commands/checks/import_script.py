"""A script: which of the heavy libraries load, what they were built for, and which GPUs torch sees.

In a process of its own, because a library that does not fit the others may take its process with it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any


def gpus(torch: Any) -> dict[str, Any]:
    """What torch says of this machine's."""
    found: dict[str, Any] = {"built_for": torch.version.cuda or torch.version.hip, "devices": [], "error": ""}
    try:
        if found["built_for"] and not torch.cuda.is_available():
            torch.cuda.init()  # says why
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found["devices"].append(
                {"name": about.name, "memory_bytes": about.total_memory, "capability": f"{about.major}.{about.minor}"}
            )
        found["built_for_capabilities"] = torch.cuda.get_arch_list() if found["devices"] else []
    except Exception as error:  # noqa: BLE001 (is what is asked about)
        found["error"] = said(error)
    return found


def said(error: BaseException) -> str:
    """Kind and first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Reads a list of modules from standard input as `modules`, tells of each as soon as it knows."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    for name in json.load(sys.stdin)["modules"]:
        about: dict[str, Any] = {"version": "", "error": ""}
        try:
            module = importlib.import_module(name)
            about["version"] = str(getattr(module, "__version__", ""))
        except BaseException as error:  # noqa: BLE001 (is what is asked about)
            about["error"] = said(error)
        out.write(json.dumps({name: about}) + "\n")
        if name == "torch" and not about["error"]:
            out.write(json.dumps({"gpus": gpus(module)}) + "\n")
        out.flush()
    out.write(json.dumps({"done": True}) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
