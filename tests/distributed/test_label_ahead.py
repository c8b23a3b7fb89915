"""`raydistill label` through Ray Data: a kill costs what was not written yet, a teacher that fails is named."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import PARTS, ROWS_WHEN_LABELLING, Lab, assert_refused, finish, teacher, wait_until

from raydistill.soft_labels.store import LabelStore

NUM_VIEWS = 2
ALL_ROWS = len(PARTS["train"]) * NUM_VIEWS + len(PARTS["validation"]) + len(PARTS["test"])


@pytest.fixture(scope="module")
def cache(lab: Lab) -> Path:
    """With data and a trained teacher, and nothing that it said."""
    cache = lab.new("cache")
    done = lab.run("teach", lab.config(cache_dir=str(cache)), "--out", lab.new("teach"))
    assert done.code == 0, done.stderr
    return cache


def of_one_actor(lab: Lab, cache: Path, store: Path, **changes: Any) -> Path:
    return lab.config(
        cache_dir=str(cache), store={"path": str(store)}, distill={"soft_labels": "stored"}, ray={"num_cpus": 1},
        **changes,
    )  # fmt: skip


def known(store: Path) -> int:
    return sum(table.num_known for table in LabelStore(store).tables())


def test_a_kill_costs_what_was_not_yet_written(lab: Lab, cache: Path) -> None:
    store, gate = lab.new("store"), lab.gate().close(rows=ROWS_WHEN_LABELLING, after=8)
    config = of_one_actor(lab, cache, store)
    command = lab.start("label", config, "--out", lab.new("run"), gate=gate)
    # The pass that is held is of the training rows: the others come to the disk meanwhile.
    wait_until(lambda: gate.waiting() and known(store))
    os.killpg(command.pid, signal.SIGKILL)
    assert finish(command).code == -signal.SIGKILL
    wait_until(lambda: not lab.processes())
    gate.open()
    before = known(store)
    assert 0 < before < ALL_ROWS

    done = lab.run("label", config, "--out", lab.new("run"))
    assert done.code == 0, done.stderr
    told = re.search(r"soft labels: ([\d,]+) computed in \d+ s of teacher time, ([\d,]+) were there", done.stderr)
    assert told is not None, done.stderr
    assert [int(number.replace(",", "")) for number in told.groups()] == [ALL_ROWS - before, before]
    assert known(store) == ALL_ROWS and LabelStore(store).verify() == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("the lamp is out", ["failed while labelling", "the lamp is out"]),
        ("dies", ["3 processes died in turn of one batch", "teachers.expert.batch_size"]),
        ("hangs", ["within 2 s while labelling", "teachers.expert.timeout_s"]),
    ],
)
def test_a_teacher_that_fails_is_named_in_one_line_and_leaves_no_claims(
    lab: Lab, cache: Path, how: str, words: list[str]
) -> None:
    (weights,) = (path for path in cache.rglob("model.safetensors") if "expert" in str(path))
    broken = teacher(checkpoint=str(weights.parent), options={"broken": how}, timeout_s=2)
    store = lab.new("store")
    done = lab.run("label", of_one_actor(lab, cache, store, teachers={"expert": broken}), "--out", lab.new("run"))
    assert_refused(done, "'expert'", *words)
    assert known(store) == 0
    assert list(store.glob("*/owners/*")) == []
