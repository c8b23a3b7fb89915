"""Replicas and their supervisor die at random while a student is distilled: it becomes the very same student."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from small_runs import PARTS, ROWS_WHEN_DISTILLED, Lab, differing, finish, report_of, teacher, wait_until

from raydistill.soft_labels.store import LabelStore

ONE, ALL, SUPERVISOR_TOO, SUPERVISOR_ONLY = "one replica", "all replicas", "one and the supervisor", "the supervisor"
STRIKES = [ONE] * 8 + [ALL] * 2 + [SUPERVISOR_TOO] + [SUPERVISOR_ONLY] * 2
# By the student's steps: by seconds, a slow machine would lose whoever has not even come up.
STRIKE_EVERY, JITTER = 80, 20
NUM_VIEWS = 36  # an epoch each: teachers are asked to the last step
NUM_STEPS = NUM_VIEWS * len(PARTS["train"]) // ROWS_WHEN_DISTILLED
ALL_SAMPLES = NUM_VIEWS * len(PARTS["train"]) + len(PARTS["validation"]) + len(PARTS["test"])
LEAST_KILLS, REIGN_S = 12, 90.0  # on a busy machine a teacher takes long to come up: then no more than these
LIMIT_S = 300.0
REPLICA, SUPERVISOR = "ray::TeacherReplica", "ray::SupervisorActor"


@dataclass
class Chaos:
    """Kills what a seed says, again and again as a run gets on.

    Attributes:
        command: the run.
        metrics: of the student that hears teachers.
        kills: (step, what was meant, process id) so far.
    """

    command: subprocess.Popen[str]
    metrics: Path
    draw: random.Random
    kills: list[tuple[int, str, int]] = field(default_factory=list)

    def reign(self) -> None:
        """Until the command ends, or it is enough."""
        began = time.monotonic()
        kinds = self.draw.sample(STRIKES, len(STRIKES))
        due = [(number + 1) * STRIKE_EVERY + self.draw.randint(-JITTER, JITTER) for number in range(len(STRIKES))]
        assert due[-1] < NUM_STEPS - STRIKE_EVERY // 2
        while self.command.poll() is None and due and time.monotonic() - began < LIMIT_S:
            if len(self.kills) >= LEAST_KILLS and time.monotonic() - began > REIGN_S:
                return
            step = self._step()
            if due[0] <= step and self._strike(kinds[0], step):
                del due[0], kinds[0]
            time.sleep(0.02)

    def _strike(self, kind: str, step: int) -> bool:
        """False: they are not up yet."""
        replicas, supervisors = self._living(REPLICA), self._living(SUPERVISOR)
        if not replicas or not supervisors:
            return False
        one = [self.draw.choice(replicas)]
        for victim in {
            ONE: one, ALL: replicas, SUPERVISOR_TOO: one + supervisors, SUPERVISOR_ONLY: supervisors,
        }[kind]:  # fmt: skip
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                self.kills.append((step, kind, victim.pid))
        return True

    def _living(self, title: str) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.command.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if (process.cmdline() or [""])[0].startswith(title):
                        found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def _step(self) -> int:
        """That the student has reached."""
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        for line in reversed(lines):
            with contextlib.suppress(json.JSONDecodeError):
                return int(json.loads(line)["step"])
        return 0


def config(lab: Lab, cache: Path, store: Path) -> Path:
    data = {"source": "imagefolder", "path": str(lab.digits), "image_size": 8, "grayscale": True}
    training = {**lab.settings()["training"], "num_steps": NUM_STEPS, "evaluate_every": NUM_STEPS // 8}
    return lab.config(
        cache_dir=str(cache), store={"path": str(store)}, training=training,
        tasks={"digits": {"domain": "vision", "data": {**data, "num_views": NUM_VIEWS}}},
        teachers={"expert": teacher(window=4, min_replicas=2, timeout_s=15)}, distill={"soft_labels": "remote"},
    )  # fmt: skip


def stored(store: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every table with its logits, by name; all of them whole."""
    tables = LabelStore(store)
    for info in tables.tables():
        assert info.num_known == info.num_rows and info.key is not None, info
        table = tables.table(info.key, info.num_rows, info.num_classes)
        yield info.folder, table.read(np.arange(info.num_rows))
        table.close()


def test_random_kills_change_nothing_about_the_student(lab: Lab) -> None:
    cache = lab.new("cache")
    quiet_store, store = lab.new("store"), lab.new("store")
    quiet = lab.distilled(config(lab, cache, quiet_store))

    out = lab.new("run")
    command = lab.start("distill", config(lab, cache, store), "--out", out)
    chaos = Chaos(command, out / "checkpoints" / "distilled-seed0" / "metrics.jsonl", random.Random(20))
    chaos.reign()
    done = finish(command)
    assert done.code == 0, done.stderr
    assert len({pid for _, _, pid in chaos.kills}) >= LEAST_KILLS, chaos.kills
    assert {kind for _, kind, _ in chaos.kills} == set(STRIKES), chaos.kills

    assert differing(quiet, out) == {}
    before, after = report_of(quiet), report_of(out)
    assert after["tasks"] == before["tasks"]
    assert after["curves"]["distilled-seed0"] == before["curves"]["distilled-seed0"]
    # Every row of every view asked once: none lost, none computed for nothing.
    assert after["cost"]["teacher_samples"] == before["cost"]["teacher_samples"] == ALL_SAMPLES
    for (name, logits), (same_name, same) in zip(stored(quiet_store), stored(store), strict=True):
        assert name == same_name
        np.testing.assert_array_equal(logits, same)
    assert LabelStore(store).verify() == []

    figures = after["teachers"]["expert"]
    assert figures["failovers"] > before["teachers"]["expert"]["failovers"] == 0
    assert 0 < figures["worst_gap_s"] < 60
    assert sum("lost: " in event["what"] for event in after["events"]) >= 4
    wait_until(lambda: not [each for each in lab.processes() if each.pid != command.pid], 20)
