"""cluster.yaml's node types under Ray's own autoscaler, on nodes that are processes of this machine: they have their
labels, and what asks for a label brings a node that has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_heads import Head, ray_head
from small_runs import Lab

LAUNCHER = Path(__file__).parents[2] / "cluster.yaml"
MACHINES = {"m6i.2xlarge": {"CPU": 8}, "g6.xlarge": {"CPU": 4, "GPU": 1}, "g6e.4xlarge": {"CPU": 16, "GPU": 1}}
FAKE = "ray.autoscaler._private.fake_multi_node.node_provider"

ASK = """
import json, sys, time
import ray

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)

def roles():
    return sorted(node["Labels"]["role"] for node in ray.nodes() if node["Alive"])

ends = time.monotonic() + 60
while len(roles()) < 3 and time.monotonic() < ends:
    time.sleep(0.2)
before = roles()

@ray.remote(num_cpus=3, num_gpus=0.5, label_selector={"role": "teacher"})
class Teacher:
    def where(self):
        return ray.get_runtime_context().get_node_labels()["role"]

teachers = [Teacher.remote() for _ in range(2)]  # a node holds one
print(json.dumps([before, ray.get([each.where.remote() for each in teachers], timeout=90), roles()]))
"""


def config(port: int) -> dict[str, Any]:
    """The launcher's node types, with what the cloud would say of its machines, on a provider that starts processes."""
    import ray.util
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    launcher = yaml.safe_load(LAUNCHER.read_text(encoding="utf-8"))
    kinds = {
        "ray.head.default" if name == "head" else name: {
            **kind,
            "node_config": {},
            "resources": {**MACHINES[kind["node_config"]["InstanceType"]], **kind["resources"]},
            "max_workers": kind.get("max_workers", 0),
        }
        for name, kind in launcher["available_node_types"].items()
    }
    nothing = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "processes",
        "max_workers": launcher["max_workers"],
        "head_node_type": "ray.head.default",
        "available_node_types": kinds,
        "provider": {
            "type": "external", "module": f"{FAKE}.FakeMultiNodeProvider", "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID, "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
            "disable_node_updaters": True,
        },
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10, **{f"{each}_commands": [] for each in nothing},
    }  # fmt: skip


@pytest.fixture(scope="module")
def head(lab: Lab) -> Iterator[Head]:
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    settings = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }  # fmt: skip
    with ray_head(lab, token=False, num_cpus=0, role="head", autoscaling=config, **settings) as head:
        yield head
    assert head.processes() == []


def test_a_label_selector_brings_a_node_of_the_type_that_has_the_label(head: Head) -> None:
    done = head.run("python", "-c", ASK, f"127.0.0.1:{head.port}")
    assert done.code == 0, done.stderr
    before, where, after = json.loads(done.stdout.splitlines()[-1])
    assert before == ["head", "student", "teacher"]
    assert where == ["teacher", "teacher"]
    assert after == ["head", "student", "teacher", "teacher"]


def test_a_cluster_without_a_token_takes_a_job_that_nobody_waits_for(head: Head, lab: Lab) -> None:
    out = lab.new("run")
    done = head.run("raydistill", "submit", lab.config(), "--address", head.address, "--no-wait", "--out", out)
    assert (done.code, done.stdout) == (0, ""), done.stderr
    [name] = set(re.findall(r"raydistill-digits-[0-9a-f]{8}", done.stderr))
    job = head.job(name)
    assert job["status"] in ("PENDING", "RUNNING", "SUCCEEDED")
    assert job["entrypoint"] == f"python -m raydistill.cli distill config.yaml --out {out}"
