"""What Ray's own metrics page says of pools."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path

import pytest
from pool_teachers import LABELS, pictures, pool_config
from small_runs import wait_until

from raydistill.teachers.pool.opening import open_pools

WANTED = {"teacher_samples", "teacher_batch_seconds", "student_wait_seconds", "queued_rows"}


def test_metrics_are_exported(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="Ray exports metrics with the packages of ray[default] only")
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    ray.init(
        "local", num_cpus=2, include_dashboard=True, dashboard_port=0, _metrics_export_port=port, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    try:
        with open_pools(pool_config(tmp_path, "one"), {"digits": LABELS}, lambda _: None) as pools:
            pools.labeller.ask("one", pictures(9)).result()
            wait_until(lambda: exported(port) >= WANTED)
    finally:
        ray.shutdown()


def exported(port: int) -> set[str]:
    """Our names on the page that carry the teacher's."""
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
    except OSError:
        return set()
    ours = [line for line in lines if line.startswith("ray_raydistill_") and 'teacher="one"' in line]
    return {name for name in WANTED if any(line.startswith(f"ray_raydistill_{name}") for line in ours)}
