"""`raydistill plan` on real digits: it tells what a run would do, writes nothing of it, refuses what cannot fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_runs import Lab, assert_refused, teacher

import raydistill


def paths(lab: Lab) -> set[str]:
    """All that lies in the lab but prepared data."""
    found = {str(path.relative_to(lab.folder)) for path in lab.folder.rglob("*")}
    return {path for path in found if path != "cache" and not path.startswith(("cache/data", "hugging_face"))}


def test_a_run_is_planned_without_being_begun(lab: Lab) -> None:
    placed = {"num_cpus": 1, "num_gpus": 0.5}
    expert = teacher(placement=placed, min_replicas=2, max_replicas=4)
    expert["train"]["num_epochs"] = 7  # one that no other test of this lab has trained
    config = lab.config(
        teachers={"expert": expert},
        training={"num_steps": 200, "batch_size": 20, "num_workers": 2, "placement": {"num_cpus": 2, "num_gpus": 1}},
        distill={"soft_labels": "remote"},
    )
    assert lab.digits.exists()
    before = paths(lab)
    nodes = ["--nodes", "2xL4:role=a,8xH100"]
    told = lab.run("plan", config, *nodes, "--speed", "L4=10", "--speed", "H100=40", "--json")
    assert told.code == 0, told.stderr
    plan: dict[str, Any] = json.loads(told.stdout)
    assert paths(lab) == before
    assert [each["who"] for each in plan["asked"]] == ["teachers.expert.placement", "training.placement"]
    assert plan["there"] == ["2 nodes of 1 L4, 8 CPU, 32 GB, role=a", "1 node of 8 H100, 208 CPU, 1872 GB"]
    predicted = plan["predicted"]
    assert predicted["samples_per_s"] > 0
    assert set(predicted["bounds"]) >= {"the student", "expert"}
    assert predicted["wall_s"] == pytest.approx(sum(stage["seconds"] for stage in predicted["stages"]))
    assert set(predicted["device_hours"]) >= {"L4", "H100"}
    assert any("untrained" in remark for remark in plan["remarks"])
    assert any("does not say which of" in remark for remark in plan["remarks"])

    assert_refused(lab.run("plan", config, "--nodes", "1xL4"), "asks for", "GPU", "the cluster has 1")


def test_without_a_probe_it_tells_who_asks_for_what(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    settings = lab.settings(
        teachers={"expert": teacher(placement={"num_gpus": 0.6}, min_replicas=2, max_replicas=9)},
        training={"num_steps": 9, "num_workers": 1, "placement": {"num_gpus": 1}},
        distill={"soft_labels": "remote"},
    )
    plan = raydistill.plan(settings, nodes="3xL4", probe=False)
    assert plan.predicted is None
    assert plan.asked[0].placed == {"L4": 2}
    shown = capsys.readouterr().out
    assert "2…9" in shown and "0.6 GPU" in shown and "how fast" not in shown
    waits = raydistill.plan(settings, ["teachers.expert.min_replicas=3"], nodes="3xL4", probe=False).waiting
    assert waits[0].startswith("teachers.expert.placement: 1 of 3 wait: no node has 0.6 GPU free beside")


def test_after_a_run_it_knows_that_the_store_is_full(lab: Lab) -> None:
    # Two views of 640 rows, 20 at a time.
    config = lab.config(training={"num_steps": 64, "batch_size": 20, "evaluate_every": 64, "precision": "fp32"})
    lab.distilled(config)
    told = lab.run("plan", config)
    assert told.code == 0, told.stderr
    assert "the store has every soft label" in told.stdout
    assert "untrained" not in told.stdout and "soft labels, validation and test" not in told.stdout
