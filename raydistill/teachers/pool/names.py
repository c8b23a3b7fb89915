"""What the pool's actors are called, so that every process of a cluster finds them."""

from __future__ import annotations

import sys
import uuid

NAMESPACE = "raydistill"
# The root package gathers the commands: a room as low as this one may read its name, not import it.
VERSION: str = sys.modules["raydistill"].__version__
# Versions do not share: another version's teachers may prepare their inputs in another way.
SUPERVISOR_PREFIX = "raydistill-supervisor-"
SUPERVISOR = f"{SUPERVISOR_PREFIX}{VERSION}"
ANY_REPLICA_PREFIX = "raydistill-replica-"
REPLICA_PREFIX = f"{ANY_REPLICA_PREFIX}{VERSION}-"


def replica_prefix(pool_id: str) -> str:
    """What all replicas of a pool begin with."""
    return f"{REPLICA_PREFIX}{pool_id[:16]}-"


def new_replica_name(pool_id: str) -> str:
    """A name that no other replica has or had."""
    return f"{replica_prefix(pool_id)}{uuid.uuid4().hex[:6]}"


def short(replica: str) -> str:
    """A replica's name for people."""
    return replica.rpartition("-")[2]
