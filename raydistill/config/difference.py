"""Whether two configs mean the same run, and where they differ."""

from __future__ import annotations

import json
from typing import Any

# What may differ between two calls that mean the same run: where it runs and how it waits, not what it computes.
ELSEWHERE: Any = {
    "ray": True,
    "cache_dir": True,
    "num_seeds": True,
    "teachers": {
        "__all__": {
            "train": {"placement"},
            **dict.fromkeys(("placement", "min_replicas", "max_replicas", "max_batch_size", "max_wait_ms"), True),
            **dict.fromkeys(("window", "hedge_s", "timeout_s"), True),
        }
    },
    "training": {"placement", "min_workers", "max_failures"},
}


def difference(old: Any, new: Any, place: str = "") -> str:
    """The first place where two configs differ, with both values; empty where they are the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            found = difference(old.get(key), new.get(key), f"{place}.{key}" if place else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{place}: {json.dumps(old)} there, {json.dumps(new)} asked for"
