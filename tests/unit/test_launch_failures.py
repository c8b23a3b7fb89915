"""What becomes of workers' failures: those of nodes that had given notice are not counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.exceptions import RayActorError
from ray.train import PreemptionError, PreemptionInfo
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import WorkerGroupError

from raydistill.training.events import ALIKE_S, append_events, read_events
from raydistill.training.launch import _was_taken


def died(preempted: bool) -> WorkerGroupError:
    """As Ray Train tells of a worker that answers no more, beside one that only lost its peer."""
    death = RayActorError("a", "died", preempted=preempted)
    return WorkerGroupError("x", {0: RuntimeError("peer"), 1: WorkerHealthCheckFailedError("no answer", failure=death)})


@pytest.mark.parametrize(
    ("error", "taken"),
    [(PreemptionError(PreemptionInfo(None, {"a": [1]})), True), (died(True), True), (died(False), False),
     (RuntimeError("any"), False)],
)  # fmt: skip
def test_what_ray_knows_of_a_notice(error: BaseException, taken: bool) -> None:
    assert _was_taken(error) is taken


def test_the_same_words_a_minute_later_are_another_event(tmp_path: Path) -> None:
    append_events(tmp_path, [(100.0, "gone"), (100.0 + ALIKE_S, "gone"), (101.0 + 2 * ALIKE_S, "gone")])
    append_events(tmp_path, [(103.0, "gone")], "events-1.jsonl")
    assert [at for at, _ in read_events(tmp_path)] == [100.0, 101.0 + 2 * ALIKE_S]
