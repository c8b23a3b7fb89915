"""A cluster that has no node until a run asks for some: `ray.autoscales`, under Ray's own autoscaler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from autoscaled import FAKE_HEAD, launcher_config
from ray_heads import Head, ray_head
from small_runs import Lab, assert_same_student, report_of
from small_sweeps import space_file, sweep_of

ROLES = """
import json, sys
import ray

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(json.dumps(sorted(node["Labels"]["role"] for node in ray.nodes() if node["Alive"])))
"""


def from_none(port: int) -> dict[str, Any]:
    config = launcher_config(port)
    for kind in config["available_node_types"].values():
        kind["min_workers"] = 0
    return config


@pytest.fixture
def head(lab: Lab) -> Iterator[Head]:
    with ray_head(lab, token=False, num_cpus=1, role="head", autoscaling=from_none, **FAKE_HEAD) as head:
        yield head


def asking(lab: Lab, head: Head, num_cpus: int, **training: Any) -> dict[str, Any]:
    """A teacher and a student that want nodes of their own kinds."""
    settings = lab.settings()
    of_teacher = {"num_cpus": 3, "label_selector": {"role": "teacher"}}
    of_student = {"num_cpus": num_cpus, "label_selector": {"role": "student"}}
    return {
        "teachers": {"expert": {**settings["teachers"]["expert"], "placement": of_teacher}},
        "training": {**settings["training"], **training, "placement": of_student},
        "ray": {"address": f"127.0.0.1:{head.port}"},
        "store": {"path": str(lab.new("labels"))},
    }


def roles(head: Head) -> list[str]:
    done = head.run("python", "-c", ROLES, f"127.0.0.1:{head.port}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_a_run_brings_the_nodes_that_it_asks_for(lab: Lab, head: Head) -> None:
    asks = asking(lab, head, 16, num_workers=1)
    undisturbed, out = lab.distilled(lab.config()), lab.new("run")
    config = lab.config(**asks, distill={"soft_labels": "remote"})
    refused = head.run("raydistill", "distill", config, "--out", out)
    assert refused.code == 2
    assert "no node of the cluster has the labels {'role': 'teacher'}" in refused.errors[-1]
    assert "set ray.autoscales=true" in refused.errors[-1]
    done = head.run("raydistill", "distill", config, "ray.autoscales=true", "--out", out, limit_s=400)
    assert done.code == 0, done.stderr[-3000:]
    assert report_of(out)["events"] == []
    assert_same_student(out, undisturbed)


def test_the_trials_of_a_sweep_bring_theirs(lab: Lab, head: Head) -> None:
    """Where each trial is as small as to fit onto any of the other nodes."""
    space = space_file(lab, asking(lab, head, 1), search={"num_trials": 2, "max_concurrent_trials": 2})
    out = lab.new("sweep")
    refused = head.run("raydistill", "tune", space, "--out", out)
    assert refused.code == 2 and "ray.autoscales=true" in refused.errors[-1]
    done = head.run("raydistill", "tune", space, "ray.autoscales=true", "--out", out, limit_s=400)
    assert done.code == 0, done.stderr[-3000:]
    assert "2 at a time" in done.stderr
    assert [trial["state"] for trial in sweep_of(out)["trials"]] == ["whole"] * 2
    assert set(roles(head)) == {"head", "teacher", "student"}
