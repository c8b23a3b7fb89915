"""`raydistill teachers`: which pools run in a cluster, who uses them, and how to end them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from raydistill.commands.cluster import UNREACHED, connection, knock, knock_at_default, try_token
from raydistill.errors import ConfigError, first_line
from raydistill.teachers.pool.messages import PoolStatus

REPLY_S = 10.0
NOTHING = "no teachers are running"


@dataclass(frozen=True)
class TeachersStatus:
    """What runs.

    Attributes:
        pools: of this version's supervisor.
        silent: it does not answer, so that they are not known.
        orphans: names of replicas that no supervisor speaks for.
        others: names of replicas that speak to a supervisor which cannot be asked: another version's, or a silent one.
        supervisors: names, other versions' included.
    """

    pools: tuple[PoolStatus, ...] = ()
    silent: bool = False
    orphans: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    supervisors: tuple[str, ...] = ()


def list_teachers(address: str | None = None) -> TeachersStatus:
    """Print the pools of a running Ray: replicas, leases, rates; and what is left without a supervisor.

    Args:
        address: of the cluster; default: the Ray that runs on this machine.

    Raises:
        ConfigError: nobody answers at `address`, or a Ray that this one cannot speak to.
    """
    console = Console()
    with _running_ray(address) as there:
        if not there:
            console.print(f"{NOTHING}: there is no Ray on this machine")
            return TeachersStatus()
        status = _status()
    if status.silent:
        console.print(f"the supervisor does not answer within {REPLY_S:g} s; students replace it where they need it")
    elif not status.pools and not status.orphans and not status.others:
        console.print(NOTHING)
    if status.pools:
        console.print(_table(status.pools))
    for pool in status.pools:
        if pool.failure:
            console.print(f"{pool.teacher}: {pool.failure}", markup=False)
        for lease in pool.leases:
            console.print(
                f"  {pool.teacher}: leased by {lease.holder} for {_span(lease.age_s)}, renewed "
                f"{lease.silent_s:.0f} s ago, waits {lease.waiting:.0%} of its time",
                markup=False,
            )
    for orphan in status.orphans:
        console.print(f"orphan: {orphan} (ends by itself; `raydistill teachers --stop` ends it now)", markup=False)
    for other in status.others:
        console.print(f"of {_supervisor_of(other)}: {other}", markup=False)
    return status


def stop_teachers(address: str | None = None) -> TeachersStatus:
    """End all pools, their replicas and the supervisor, and print what was ended. Runs that use them are told.

    Raises:
        ConfigError: nobody answers at `address`.
    """
    import ray
    from ray.exceptions import RayError

    from raydistill.teachers.pool.launcher import RayLauncher
    from raydistill.teachers.pool.names import ANY_REPLICA_PREFIX, SUPERVISOR, SUPERVISOR_PREFIX

    console = Console()
    with _running_ray(address) as there:
        if not there:
            console.print(f"{NOTHING}: there is no Ray on this machine")
            return TeachersStatus()
        status, launcher = _status(), RayLauncher()
        supervisors, replicas = launcher.find(SUPERVISOR_PREFIX), launcher.find(ANY_REPLICA_PREFIX)
        ours = None if status.silent else supervisors.pop(SUPERVISOR, None)
        for handle in supervisors.values():  # another version's speaks in its own way
            launcher.kill(handle)
        for name, handle in replicas.items():
            if name in (*status.orphans, *status.others):
                launcher.kill(handle)
        if ours is not None:
            # Last: a run that hears of it may end the Ray that all this is in. The supervisor tells those who hold
            # leases, and then ends, too.
            try:
                ray.get(ours.stop.remote(), timeout=REPLY_S)
            except RayError:
                for handle in (ours, *replicas.values()):
                    launcher.kill(handle)
    for pool in status.pools:
        console.print(
            f"ended {pool.teacher}: {len(pool.replicas)} replicas, {len(pool.leases)} leases, {pool.rows:,} rows",
            markup=False,
        )
    for replica in (*status.orphans, *status.others):
        console.print(f"ended {replica}", markup=False)
    if status.supervisors:
        console.print("ended the supervisor")
    elif not status.orphans:
        console.print(NOTHING)
    return status


@contextlib.contextmanager
def _running_ray(address: str | None) -> Iterator[bool]:
    """A connection to a Ray that is there already; False where none is. Never starts one."""
    import ray

    if ray.is_initialized():
        yield True
        return
    if address:
        knock(address, "--address")
    else:
        knock_at_default()
    try_token(address)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(connection(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR))
        except (ConnectionError, ValueError, RuntimeError) as error:
            if address:
                raise ConfigError(f"cannot reach Ray at {address!r}; {UNREACHED}") from error
            if not isinstance(error, ConnectionError):
                raise ConfigError(
                    f"cannot ask the Ray on this machine ({first_line(error)}); give its address with --address"
                ) from error
            yield False
            return
        yield True


def _status() -> TeachersStatus:
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    from raydistill.teachers.pool.launcher import RayLauncher
    from raydistill.teachers.pool.names import ANY_REPLICA_PREFIX, SUPERVISOR, SUPERVISOR_PREFIX, replica_prefix

    launcher = RayLauncher()
    supervisors = launcher.find(SUPERVISOR_PREFIX)
    pools: list[PoolStatus] = []
    silent = False
    if SUPERVISOR in supervisors:
        try:
            pools = ray.get(supervisors[SUPERVISOR].status.remote(), timeout=REPLY_S)
        except GetTimeoutError:
            silent = True
        except RayError:
            del supervisors[SUPERVISOR]  # it has just ended: what it left are orphans
    known = tuple(replica_prefix(pool.id) for pool in pools)
    rest = sorted(name for name in launcher.find(ANY_REPLICA_PREFIX) if not (known and name.startswith(known)))
    ours_is_asked = set() if silent else {SUPERVISOR}
    led = [name for name in rest if _supervisor_of(name) in supervisors.keys() - ours_is_asked]
    return TeachersStatus(
        tuple(pools), silent, tuple(name for name in rest if name not in led), tuple(led), tuple(sorted(supervisors))
    )


def _supervisor_of(replica: str) -> str:
    """The name of the supervisor of its version, whether that lives or not."""
    from raydistill.teachers.pool.names import ANY_REPLICA_PREFIX, SUPERVISOR_PREFIX

    return SUPERVISOR_PREFIX + replica.removeprefix(ANY_REPLICA_PREFIX).rsplit("-", 2)[0]


def _table(pools: tuple[PoolStatus, ...]) -> Table:
    table = Table(title="teachers", title_justify="left")
    columns: dict[str, Any] = {
        "teacher": "left", "fingerprint": "left", "replicas": "left", "leases": "right", "age": "right",
        "rows": "right", "rows/s": "right", "waiting": "right",
    }  # fmt: skip
    for name, side in columns.items():
        table.add_column(name, justify=side)
    for pool in pools:
        states = [state for _, state, _ in pool.replicas]
        table.add_row(
            pool.teacher,
            (pool.fingerprint or "-")[:12],
            ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none",
            str(len(pool.leases)),
            _span(pool.age_s),
            f"{pool.rows:,}",
            f"{pool.rows_per_s:,.0f}",
            f"{pool.waiting:.0%}",
        )
    return table


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
