"""cluster.yaml's node types under Ray's own autoscaler, on nodes that are processes of this machine: they have their
labels, and what asks for a label brings a node that has it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from autoscaled import FAKE_HEAD, launcher_config
from ray_heads import Head, ray_head
from small_runs import Lab

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


@pytest.fixture(scope="module")
def head(lab: Lab) -> Iterator[Head]:
    with ray_head(lab, token=False, num_cpus=0, role="head", autoscaling=launcher_config, **FAKE_HEAD) as head:
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
