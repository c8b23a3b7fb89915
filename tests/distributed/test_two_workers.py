"""Ray Train workers: two with half the batch each are one with the whole, and a killed one costs nothing but time."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import Finished, Lab, differing, finish, report_of, student_weights, wait_until

from raydistill import Student

WORKERS = ["training.num_workers=2", "training.batch_size=10", "training.placement.num_cpus=0.5"]


@dataclass
class Runs:
    """The same student three times: in one process, on two workers, on two of which one was killed."""

    alone: Path
    together: Path
    disturbed: Path
    disturbed_command: Finished


@pytest.fixture(scope="module")
def runs(lab: Lab) -> Runs:
    alone = lab.distilled(lab.config())  # trains the teacher, so that the other two need not wait for each other
    together, disturbed, gate = lab.new("run"), lab.new("run"), lab.gate().close(rows=10, after=6)
    own = [f"store.path={lab.new('labels')}" for _ in range(2)]  # what a run finds in the store, it does not ask
    # Both at once: most of their time is waiting for processes to start.
    commands = [
        lab.start("distill", lab.config(), *WORKERS, own[0], "--out", together),
        lab.start("distill", lab.config(), *WORKERS, own[1], "training.max_failures=1", "--out", disturbed, gate=gate),
    ]
    victim = wait_until(gate.waiting, timeout_s=150)[0]
    assert (disturbed / "checkpoints" / "distilled-seed0" / "latest.pt").is_file()
    os.kill(victim, signal.SIGKILL)
    gate.open()
    undisturbed, ended = (finish(command) for command in commands)
    assert undisturbed.code == 0, undisturbed.stderr
    return Runs(alone, together, disturbed, ended)


def test_two_workers_with_half_the_batch_each_learn_what_one_learns_with_the_whole(runs: Runs) -> None:
    one, two = student_weights(runs.alone), student_weights(runs.together)
    width = one["trunk.blocks.0.attention_out.bias"].shape[0]
    for key in one:
        # A key's bias cannot change attention, so its gradient is rounding alone, which AdamW scales to full steps.
        keys = slice(width, 2 * width) if key.endswith("qkv.bias") else slice(0, 0)
        for weights in (one, two):
            weights[key][keys] = 0.0
        # Twelve float32 steps; the only difference is the order of additions.
        assert one[key] == pytest.approx(two[key], abs=1e-5), key


def test_two_workers_give_a_student_with_the_same_answers(runs: Runs) -> None:
    pixels = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = [
            Student.from_pretrained(str(run / "student")).eval()({"digits": {"pixel_values": pixels}})["digits"]
            for run in (runs.alone, runs.together)
        ]
    torch.testing.assert_close(*logits, atol=1e-4, rtol=0.0)


def test_two_workers_write_a_whole_run_folder(runs: Runs) -> None:
    def content(run: Path) -> set[str]:
        return {str(path.relative_to(run)) for path in run.rglob("*") if "tfevents" not in path.name}

    assert content(runs.together) == content(runs.alone)


def test_two_workers_count_the_same_samples_as_one(runs: Runs) -> None:
    one, two = report_of(runs.alone)["cost"], report_of(runs.together)["cost"]
    assert two["student_samples"] == one["student_samples"]
    # The plain rows of the second run come from the store: the first asked for them.
    asked = [cost["teacher_samples"] + cost["teacher_samples_cached"] for cost in (one, two)]
    assert asked[0] == asked[1]


def test_a_run_goes_on_when_one_of_its_workers_is_killed(runs: Runs) -> None:
    assert runs.disturbed_command.code == 0, runs.disturbed_command.stderr
    assert any("went on from step 4" in event["what"] for event in report_of(runs.disturbed)["events"])


def test_a_killed_worker_leaves_the_student_as_it_would_have_been(runs: Runs) -> None:
    assert differing(runs.disturbed, runs.together) == {}
