"""How any process of a cluster reaches the supervisor: by its name, made where it is not there."""

from __future__ import annotations

from typing import Any

import ray

from raydistill.teachers.pool.names import SUPERVISOR
from raydistill.teachers.pool.placement import shared_actor
from raydistill.teachers.pool.supervisor import SupervisorActor


def supervisor() -> Any:
    """The handle; where several processes ask at one time, they get the same."""
    actor: Any = ray.remote(SupervisorActor)
    return actor.options(
        **shared_actor(SUPERVISOR),
        get_if_exists=True,
        num_cpus=0,
        # With the head node the cluster is lost anyway; another one may go at any time.
        resources={"node:__internal_head__": 0.001},
        max_restarts=-1,
        max_task_retries=0,
        # All its methods return at once, under one lock: more threads would only each fill a heap of their own.
        max_concurrency=1,
    ).remote()
