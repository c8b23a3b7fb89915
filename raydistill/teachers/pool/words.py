"""What a student is told when its teacher does not answer: what, why, and what to do."""

from __future__ import annotations

from ray.exceptions import RayTaskError

from raydistill.errors import RaydistillError, TeacherError, first_line
from raydistill.teachers.pool.messages import PoolSpec, PoolView


def no_replica(spec: PoolSpec, view: PoolView | None, seconds: float) -> str:
    """For so long none has served."""
    if view is None:
        why = "and the pool's supervisor does not answer"
    elif view.unplaced:
        why = f"the cluster has no room for one (it takes {view.asks})"
    else:
        why = "one is loading still" if view.starting else "and none starts"
    return f"teacher {spec.teacher!r}: no replica for {seconds:.0f} s: {why}"


def no_reply(spec: PoolSpec, replicas: int) -> str:
    """One after the other did not answer in time."""
    return (
        f"teacher {spec.teacher!r}: no reply within {spec.settings.timeout_s:g} s, from {replicas} replicas in turn; "
        f"raise teachers.{spec.teacher}.timeout_s or give it more CPUs"
    )


def deadly(spec: PoolSpec, deaths: int) -> str:
    """One after the other died of it."""
    return f"teacher {spec.teacher!r}: {deaths} replicas died in turn of one request; see their logs and memory"


def refusal(spec: PoolSpec, error: RayTaskError) -> TeacherError:
    """The teacher's own error about a request."""
    ours = isinstance(error.cause, RaydistillError)
    line = str(error.cause) if ours else f"teacher {spec.teacher!r} failed: {first_line(error.cause)}"
    refused = TeacherError(line)
    refused.__cause__ = error
    return refused
