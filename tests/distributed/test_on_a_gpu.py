"""Where there is a GPU: teachers, students, workers and trials that share it, in whole commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Lab, report_of, student_weights, teacher
from small_sweeps import space_file, sweep_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
SHARE = {"num_cpus": 1, "num_gpus": 0.25}
ALIKE = 2e-3  # of weights: a GPU adds in another order for each size of batch, and labels are float16


def on_gpu(lab: Lab, **changes: Any) -> Path:
    """A config whose teacher asks for a share of the GPU."""
    return lab.config(teachers={"expert": teacher(placement=SHARE)}, **changes)


@pytest.fixture(scope="module")
def local(lab: Lab) -> Path:
    return lab.distilled(on_gpu(lab))


def furthest(one: Path, other: Path) -> float:
    left, right = student_weights(one), student_weights(other)
    # A key's bias cannot change attention: its gradient is rounding alone.
    return max(float(np.abs(left[key] - right[key]).max()) for key in left if not key.endswith("qkv.bias"))


def test_a_local_run_computes_on_the_gpu(local: Path) -> None:
    report = report_of(local)
    assert {name: model["device"] for name, model in report["models"].items()} == {"expert": "cuda", "student": "cuda"}
    assert torch.cuda.get_device_name() in report["machine"]


@pytest.mark.parametrize("source", ["remote", "stored", "auto"])
def test_a_student_hears_the_same_from_a_pool_on_the_gpu(lab: Lab, local: Path, source: str) -> None:
    run = lab.distilled(on_gpu(lab, cache_dir=str(lab.new("cache"))), f"distill.soft_labels={source}")
    assert furthest(local, run) < ALIKE
    assert report_of(run)["models"]["expert"]["device"] == "cuda"


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_gpu_with_the_teachers(lab: Lab, local: Path, workers: int) -> None:
    placement = ["training.placement.num_cpus=1", "training.placement.num_gpus=0.3"]
    batch = f"training.batch_size={20 // workers}"
    run = lab.distilled(on_gpu(lab), "distill.soft_labels=remote", f"training.num_workers={workers}", batch, *placement)
    assert furthest(local, run) < ALIKE


def test_features_come_from_the_gpu(lab: Lab) -> None:
    features = {
        "deep": {"teacher": "expert", "teacher_layer": "layers.2", "loss": "hint"},
        "alike": {"teacher": "expert", "teacher_layer": "layers.2", "loss": "rkd_distance"},
    }
    ways = [on_gpu(lab, distill={"soft_labels": way, "features": features}) for way in ("local", "remote")]
    runs = [lab.distilled(config) for config in ways]
    assert furthest(*runs) < ALIKE


@pytest.mark.parametrize(("workers", "device"), [(0, "cuda"), (1, "cpu")])
def test_trials_have_shares_of_the_gpu_unless_their_workers_have(lab: Lab, workers: int, device: str) -> None:
    config = {
        "teachers": {"expert": teacher(placement=SHARE)},
        "training": {**lab.settings()["training"], "placement": SHARE, "num_workers": workers},
    }
    space = space_file(lab, config, search={"num_trials": 3})
    out = lab.new("sweep")
    done = lab.run("tune", space, "--out", out, limit_s=400)
    assert done.code == 0, done.stderr
    assert len(sweep_of(out)["trials"]) == 3
    results = [json.loads(file.read_text(encoding="utf-8")) for file in out.glob("trials/*/result.json")]
    assert [result["device"] for result in results] == [device] * 3


def test_doctor_and_plan_know_the_gpu(lab: Lab) -> None:
    config = on_gpu(lab)
    doctor, plan = lab.run("doctor", config), lab.run("plan", config)
    assert torch.cuda.get_device_name() in doctor.stdout, doctor.stdout + doctor.stderr
    assert plan.code == 0, plan.stderr
