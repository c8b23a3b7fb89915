"""Two Ray Train workers balance, fuse and match layers as one process does with the same rows."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import Lab, report_of, student_weights, teacher, write_digits

WORKERS = ["training.num_workers=2", "training.batch_size=10", "training.placement.num_cpus=0.5"]


def settings(lab: Lab, balancing: str) -> dict[str, Any]:
    parity = lab.folder / "parity"
    if not parity.exists():
        write_digits(parity, lambda digit: ("even", "odd")[digit % 2])
    data = {"source": "imagefolder", "image_size": 8, "grayscale": True}
    again = {**teacher()["train"], "seed": 7}
    return {
        "tasks": {
            "digits": {"domain": "vision", "data": {**data, "path": str(lab.digits)}},
            "parity": {"domain": "vision", "data": {**data, "path": str(parity)}},
        },
        "teachers": {"expert": teacher(), "odd": teacher("parity"), "odd-too": teacher("parity", train=again)},
        "distill": {
            "soft_labels": "local", "balancing": balancing, "fusion": "gate",
            "features": {"deep": {"teacher": "expert", "teacher_layer": "layers.2", "loss": "hint"}},
            "balancing_options": {"measure_every": 4},
        },
    }  # fmt: skip


@pytest.mark.parametrize("balancing", ["upgrad", "famo"])
def test_two_workers_do_what_one_process_does(lab: Lab, balancing: str) -> None:
    config = lab.config(**settings(lab, balancing))
    one, two = lab.distilled(config), lab.distilled(config, *WORKERS)
    first, second = student_weights(one), student_weights(two)
    width = first["trunk.blocks.0.attention_out.bias"].shape[0]
    for key in first:
        # A key's bias cannot change attention, so its gradient is rounding alone, which AdamW scales to full steps.
        keys = slice(width, 2 * width) if key.endswith("qkv.bias") else slice(0, 0)
        for weights in (first, second):
            weights[key][keys] = 0.0
        # Float32: the order of additions, and what solvers make of it.
        assert first[key] == pytest.approx(second[key], abs=2e-4), key
    balances = [report_of(run)["balancing"] for run in (one, two)]
    for kind in ("weight", "cosine", "loss_share"):
        assert balances[0][kind] == pytest.approx(balances[1][kind], abs=1e-3), kind
    trusts = [report_of(run)["tasks"]["parity"]["fusion"]["trust"] for run in (one, two)]
    assert trusts[0].keys() == trusts[1].keys() == {"odd", "odd-too"}
