"""Runs that meet in one Ray: nothing is asked twice, nothing is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import PARTS, ROWS_WHEN_DISTILLED, Gate, Lab, differing, finish, report_of, teacher, wait_until

from raydistill.soft_labels.store import LabelStore

NUM_VIEWS = 4
TRAIN_SAMPLES = len(PARTS["train"]) * NUM_VIEWS
ALL_SAMPLES = TRAIN_SAMPLES + len(PARTS["validation"]) + len(PARTS["test"])
NUM_STEPS = TRAIN_SAMPLES // ROWS_WHEN_DISTILLED  # each training row in each view, once
LEASE_S = 5

HEAD = """
import sys, ray
ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass
class SharedRay:
    """A Ray that belongs to no run.

    Attributes:
        gate: of all replicas in it.
    """

    process: subprocess.Popen[str]
    address: str
    gate: Gate

    def replicas(self) -> list[int]:
        """Process ids of the teachers that live."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if (process.cmdline() or [""])[0].startswith("ray::TeacherReplica"):
                    found.append(process.pid)
        return found


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[SharedRay]:
    gate = lab.gate()
    with pytest.MonkeyPatch.context() as patch:
        # Ray gives a new cluster a token, and asks nobody for it who names an address, unless this says so.
        patch.setenv("RAY_AUTH_MODE", "token")
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, cwd=lab.folder, env=lab.environment(gate), start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        yield SharedRay(process, process.stdout.readline().strip(), gate)
    gate.open()
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


@pytest.fixture(scope="module")
def cache(lab: Lab) -> Path:
    """With data and a trained teacher, and nothing that it said."""
    cache = lab.new("cache")
    done = lab.run("teach", lab.config(cache_dir=str(cache)), "--out", lab.new("teach"))
    assert done.code == 0, done.stderr
    return cache


def settings(lab: Lab, shared: SharedRay, cache: Path, store: Path, seed: int) -> Path:
    data = {"source": "imagefolder", "path": str(lab.digits), "image_size": 8, "grayscale": True}
    training = {**lab.settings()["training"], "num_steps": NUM_STEPS, "evaluate_every": NUM_STEPS // 4}
    return lab.config(
        seed=seed, cache_dir=str(cache), store={"path": str(store)}, training=training,
        tasks={"digits": {"domain": "vision", "data": {**data, "num_views": NUM_VIEWS}}},
        teachers={"expert": teacher(timeout_s=30)}, distill={"soft_labels": "remote"},
        ray={"address": shared.address, "lease_s": LEASE_S},
    )  # fmt: skip


def at_once(lab: Lab, *configs: Path, meeting: bool = False) -> list[Path]:
    """The folders of runs that were started together and finished well.

    Args:
        meeting: whoever is first to begin with the part that asks for training rows is held until all are there.
    """
    outs = [lab.new("run") for _ in configs]
    commands = [lab.start("distill", config, "--out", out) for config, out in zip(configs, outs, strict=True)]
    held: set[int] = set()
    while meeting and len(held) < len(commands):
        there = wait_until(lambda: [at for at, out in enumerate(outs) if at not in held and distils(out)])
        for at in there:
            held.add(at)
            commands[at].send_signal(signal.SIGSTOP)
    for command in commands:
        command.send_signal(signal.SIGCONT)
    for done in [finish(command) for command in commands]:
        assert done.code == 0, done.stderr
    return outs


def distils(run: Path) -> bool:
    return any(run.glob("checkpoints/distilled-seed*/metrics.jsonl"))


def cost(run: Path) -> dict[str, Any]:
    return report_of(run)["cost"]


def lines_of_distilled(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["run"].startswith("distilled") and "total_loss" in line]


def assert_nothing_runs(lab: Lab, shared: SharedRay, within_s: float) -> None:
    wait_until(lambda: not shared.replicas(), within_s)
    done = lab.run("teachers", "--address", shared.address)
    assert done.code == 0, done.stderr
    assert done.stdout.strip() == "no teachers are running"


def assert_store_is_whole(store: Path) -> None:
    tables = LabelStore(store).tables()
    assert sorted(table.num_rows for table in tables) == [160, 160, *[640] * NUM_VIEWS]
    assert all(table.num_known == table.num_rows and not table.problem for table in tables)
    assert LabelStore(store).verify() == []
    assert list(store.glob("*/owners/*")) == []


def test_runs_that_meet_compute_everything_once_and_later_ones_nothing(
    lab: Lab, shared: SharedRay, cache: Path
) -> None:
    store = lab.new("store")
    configs = [settings(lab, shared, cache, store, seed) for seed in (0, 1)]
    together = at_once(lab, *configs, meeting=True)
    samples = [cost(run)["teacher_samples"] for run in together]
    assert sum(samples) == ALL_SAMPLES
    assert min(samples) > 100  # both had work
    for run in together:
        assert cost(run)["teacher_samples"] + cost(run)["teacher_samples_cached"] == ALL_SAMPLES
        task = report_of(run)["tasks"]["digits"]
        assert task["teachers"]["expert"] == task["ensemble"] > 0.7
        assert task["student_distilled"] > 0.3  # a few seconds of training; chance is 0.1
        assert [event["what"] for event in report_of(run)["events"] if "lost" in event["what"]] == []
    assert_store_is_whole(store)
    assert_nothing_runs(lab, shared, within_s=10)

    later = at_once(lab, *configs)
    for run, before in zip(later, together, strict=True):
        assert cost(run)["teacher_samples"] == 0
        assert cost(run)["teacher_samples_cached"] == ALL_SAMPLES
        assert all(line["from_store_only"] == 1.0 for line in lines_of_distilled(run))
        # Whoever asked: what both runs heard is what the store has.
        assert differing(before, run) == {}
    assert_nothing_runs(lab, shared, within_s=10)


def test_a_run_that_is_killed_leaves_nothing_behind(lab: Lab, shared: SharedRay, cache: Path) -> None:
    store = lab.new("store")
    config = settings(lab, shared, cache, store, seed=0)
    shared.gate.close(rows=ROWS_WHEN_DISTILLED, after=10)
    command = lab.start("distill", config, "--out", lab.new("run"))
    (held,) = wait_until(shared.gate.waiting)
    assert shared.replicas() == [held]
    os.killpg(command.pid, signal.SIGKILL)
    assert finish(command).code == -signal.SIGKILL
    # Its replica waits still: the lease counts, not whether there is work.
    assert_nothing_runs(lab, shared, within_s=LEASE_S + 5)
    shared.gate.open()

    known = sum(table.num_known for table in LabelStore(store).tables())
    assert 320 <= known < ALL_SAMPLES
    (again,) = at_once(lab, config)
    assert cost(again)["teacher_samples"] == ALL_SAMPLES - known
    assert_store_is_whole(store)
    assert_nothing_runs(lab, shared, within_s=10)
    stopped = lab.run("teachers", "--stop", "--address", shared.address)
    assert stopped.stdout.strip() == "ended the supervisor"
