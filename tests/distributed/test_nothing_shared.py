"""Two training workers on nodes that share no folder with the command: data, soft labels and the run lie at URLs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import Finished, Gate, Lab, assert_same_student, checkpoint_of, finish, report_of, teacher, wait_until

CACHE = "~/.cache/raydistill"  # another one on the nodes, where `~` is
ROWS = 10  # of each of two workers


class Nodes:
    """A head that trains nothing and two nodes for a training worker each, whose home is not the command's."""

    def __init__(self, lab: Lab) -> None:
        from ray.cluster_utils import Cluster

        self.lab, self.gate, self.bucket = lab, Gate(lab.new("gate")), lab.new("bucket")
        self.homes = {name: lab.new(name) for name in ("home-of-the-command", "home-of-the-nodes")}
        for home in self.homes.values():
            home.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.environment("home-of-the-nodes").items():
                patch.setenv(key, value)
            self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            for _ in range(2):
                self.cluster.add_node(num_cpus=1, resources={"student": 1})

    def environment(self, home: str) -> dict[str, str]:
        return {**self.lab.environment(self.gate), "HOME": str(self.homes[home]), "RAY_AUTH_MODE": "disabled"}

    def cache_of(self, home: str) -> Path:
        return self.homes[home] / ".cache" / "raydistill"

    def config(self, **sections: Any) -> Path:
        settings = self.lab.settings()
        data = {**settings["tasks"]["digits"]["data"], "path": f"file://{self.lab.digits}"}
        training = {
            **settings["training"], "num_workers": 2, "batch_size": ROWS,
            "placement": {"num_cpus": 1, "resources": {"student": 1}}, **sections.pop("training", {}),
        }  # fmt: skip
        return self.lab.config(
            training=training, tasks={"digits": {"domain": "vision", "data": data}}, cache_dir=CACHE,
            store={"path": f"file://{self.bucket}/labels"}, ray={"wait_s": 120}, **sections,
        )  # fmt: skip

    def start(self, *words: object, joins: bool = True) -> subprocess.Popen[str]:
        own = self.environment("home-of-the-command")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.lab, "environment", lambda gate: own)
            return self.lab.start(*words, *([f"ray.address={self.cluster.address}"] if joins else []))

    def run(self, *words: object, joins: bool = True) -> Finished:
        return finish(self.start(*words, joins=joins))


@pytest.fixture(scope="module")
def nodes(lab: Lab) -> Iterator[Nodes]:
    made = Nodes(lab)
    yield made
    made.gate.open()
    made.cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Path:
    """In one process, with both workers' rows."""
    return lab.distilled(lab.config())


def test_the_url_is_all_that_a_run_and_its_workers_share(nodes: Nodes, undisturbed: Path) -> None:
    config, run = nodes.config(), nodes.bucket / "run"
    # The teacher stays on this machine.
    labelled = nodes.run("label", config, "--out", f"file://{nodes.bucket}/notes", joins=False)
    assert labelled.code == 0, labelled.stderr[-3000:]
    done = nodes.run("distill", config, "--out", f"file://{run}")
    assert done.code == 0, done.stderr[-3000:]
    assert_same_student(run, undisturbed)
    theirs, ours = nodes.cache_of("home-of-the-nodes"), nodes.cache_of("home-of-the-command")
    assert list((theirs / "data").glob("digits-*/table.json")) and list((ours / "data").glob("digits-*/table.json"))
    assert not (theirs / "teachers").exists() and not (theirs / "runs").exists()
    assert [path for path in (theirs / "run-workers").rglob("*") if path.is_file()] == []
    arm = run / "checkpoints" / "distilled-seed0"
    assert {path.name for path in arm.iterdir()} == {"best.pt", "latest.pt", "costs.json", "metrics.jsonl"}
    assert list((run / "tensorboard" / "distilled-seed0").iterdir())


def test_a_killed_worker_goes_on_from_the_url(nodes: Nodes, undisturbed: Path) -> None:
    expert = teacher(checkpoint=str(checkpoint_of(undisturbed / "config.yaml")))
    words = ["distill", nodes.config(teachers={"expert": expert}), f"store.path={nodes.lab.new('labels')}"]
    run = nodes.bucket / "killed"
    nodes.gate.close(ROWS, after=6)
    command = nodes.start(*words, "--out", f"file://{run}")
    victim = wait_until(nodes.gate.waiting)[0]
    wait_until((run / "checkpoints" / "distilled-seed0" / "latest.pt").exists)
    os.kill(victim, signal.SIGKILL)
    nodes.gate.open()
    done = finish(command)
    assert done.code == 0, done.stderr[-3000:]
    told = [event["what"] for event in report_of(run)["events"]]
    assert any("distilled, seed 0: went on from step 4" in what for what in told), told
    assert_same_student(run, undisturbed)


def test_a_node_without_data_or_teacher_is_named_in_one_line(nodes: Nodes, lab: Lab) -> None:
    expert = teacher(train={**teacher()["train"], "num_epochs": 1})
    done = nodes.run("teach", nodes.config(teachers={"expert": expert}), "--out", lab.new("notes"))
    assert done.code == 2, done.stderr[-3000:]
    assert f"teacher 'expert' was trained on node {socket.gethostname()}" in done.errors[-1]
    here = nodes.homes["home-of-the-command"] / "digits"
    here.symlink_to(lab.digits)
    local = "tasks.digits.data.path=~/digits"
    done = nodes.run("distill", nodes.config(), local, "--out", f"file://{nodes.bucket}/local")
    assert done.code == 2, done.stderr[-3000:]
    assert f"node {socket.gethostname()} has neither ~/digits nor the prepared data" in done.errors[-1]
    assert "Traceback" not in done.stderr
    done = nodes.run("distill", nodes.config(), f"store.path={lab.new('labels')}", "--out", f"file://{nodes.bucket}/no")
    assert done.code == 2, done.stderr[-3000:]
    assert f"teacher 'expert': no weights at {nodes.cache_of('home-of-the-nodes')}" in done.errors[-1]
    assert "on storage that every node sees" in done.errors[-1]
