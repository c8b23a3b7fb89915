"""One config, three ways: in local mode, as a job of a head on this machine, and on a cluster of three nodes.

Each way trains its own teachers, asks them for its own soft labels and trains its own students; raw and prepared data
are shared. Prints test accuracy by way, and the largest difference beside what other seeds change by themselves.

    python benchmarks/demo_three_ways.py [--config demo] [--cache ~/.cache/raydistill] [--keep FOLDER] [key=value …]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from raydistill.evaluation.assemble import machine

BIN = Path(sys.executable).parent
PORT, DASHBOARD, AGENT, CLIENT = 26379, 28265, 28266, 28267  # nobody's defaults
SEEDS = Path(__file__).parent / "results" / "demo-3-seeds.json"
STUDENTS = ("student_alone", "student_distilled")
Way = Callable[[argparse.Namespace, Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config", default="demo")
    parser.add_argument(
        "--cache", type=Path, default=Path("~/.cache/raydistill").expanduser(), help="data come from it"
    )
    parser.add_argument("--keep", type=Path, help="where runs lie; one that is finished is not run again")
    options = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"  # everything listens on this machine only
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="three-ways-")))
        reports, took = {}, {}
        ways: dict[str, Way] = {"local": locally, "job": as_a_job, "three nodes": on_three_nodes}
        for name, run in ways.items():
            folder = (root / name.replace(" ", "-")).absolute()
            began = time.monotonic()
            if not (folder / "run" / "report.json").exists():
                (folder / "cache").mkdir(parents=True, exist_ok=True)
                for part in ("raw", "data"):
                    with contextlib.suppress(FileExistsError):
                        (folder / "cache" / part).symlink_to(options.cache / part)
                run(options, folder)
            took[name] = time.monotonic() - began
            reports[name] = json.loads((folder / "run" / "report.json").read_text())
    show(options, reports, took)


def locally(options: argparse.Namespace, folder: Path) -> None:
    command("raydistill", "distill", options.config, *words(options, folder))


def as_a_job(options: argparse.Namespace, folder: Path) -> None:
    with head():
        arguments = ["submit", options.config, *words(options, folder), "--address", f"http://127.0.0.1:{DASHBOARD}"]
        command("raydistill", *arguments)


def on_three_nodes(options: argparse.Namespace, folder: Path) -> None:
    from ray.cluster_utils import Cluster  # Ray reads RAY_AUTH_MODE when it is imported

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        command("raydistill", "distill", options.config, *words(options, folder), RAY_ADDRESS=cluster.address)
    finally:
        cluster.shutdown()


def words(options: argparse.Namespace, folder: Path) -> list[str]:
    return [f"cache_dir={folder / 'cache'}", *options.overrides, "--out", str(folder / "run")]


@contextlib.contextmanager
def head() -> Iterator[None]:
    """With sockets in a folder of its own, whose name every process of it has in its command line."""
    with tempfile.TemporaryDirectory(prefix="rd", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command(
            "ray", "start", "--head", "--node-ip-address=127.0.0.1", f"--port={PORT}", f"--temp-dir={folder}",
            f"--dashboard-port={DASHBOARD}", f"--dashboard-agent-listen-port={AGENT}",
            f"--ray-client-server-port={CLIENT}", "--disable-usage-stats",
        )  # fmt: skip
        try:
            yield
        finally:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if folder in " ".join(process.cmdline()):
                        process.kill()


def command(*arguments: str, **environment: str) -> None:
    subprocess.run(
        [str(BIN / arguments[0]), *arguments[1:]], check=True, stdout=sys.stderr,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
    )  # fmt: skip


def show(options: argparse.Namespace, reports: dict[str, Any], took: dict[str, float]) -> None:
    print(f"{date.today()}, {machine()}; ray {version('ray')}")
    print(f"{' '.join([options.config, *options.overrides])}: accuracy on the test rows; {' / '.join(reports)}\n")
    other_seeds = json.loads(SEEDS.read_text())["tasks"]
    print(f"{'':30}" + "".join(f"{name:>14}" for name in reports) + f"{'difference':>14}{'of seeds':>12}")
    for task, about in next(iter(reports.values()))["tasks"].items():
        for who in [*about["teachers"], *STUDENTS]:
            values = [value_of(report["tasks"][task], who) for report in reports.values()]
            seeds = other_seeds.get(task, {}).get("by_seed", {}).get(who)
            spread = f"{max(seeds) - min(seeds):12.4f}" if seeds else ""
            label = f"{task}: {who.replace('_', ' ')}"
            print(f"{label:30}" + "".join(f"{value:14.4f}" for value in values)
                  + f"{max(values) - min(values):14.4f}{spread}")  # fmt: skip
    for name in ("alone", "distilled"):
        values = [report["mean_retention"][name] for report in reports.values()]
        label = f"retention, {name}"
        print(f"{label:30}" + "".join(f"{value:14.4f}" for value in values) + f"{max(values) - min(values):14.4f}")
    print(f"{'minutes':30}" + "".join(f"{seconds / 60:14.1f}" for seconds in took.values()))
    print("\ndifference: largest - smallest of the three; of seeds: the same of seeds 0, 1 and 2 in demo-3-seeds.json")


def value_of(task: dict[str, Any], who: str) -> float:
    return float(task["teachers"][who] if who in task["teachers"] else task[who])


if __name__ == "__main__":
    main()
