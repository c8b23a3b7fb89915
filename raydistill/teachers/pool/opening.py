"""The teachers of a run, for the length of a command: joined, waited for, given back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.errors import TeacherError
from raydistill.teachers.pool.client import PoolClient
from raydistill.teachers.pool.identity import pool_spec
from raydistill.teachers.pool.link import Link
from raydistill.teachers.pool.messages import Event, PoolSpec
from raydistill.teachers.pool.words import no_replica

LOAD_LEAST_S = 60.0  # a process that imports its libraries is not a teacher that hangs
UNPLACED_S = 5.0  # a process that Ray has found room for takes this long to come up
LOOK_EVERY_S, SAY_EVERY_S = 0.05, 10.0


class Clients:
    """Makes clients for the run's workers. Sent to another process it makes them there; here it also closes them."""

    def __init__(self, specs: Mapping[str, PoolSpec]) -> None:
        self._specs = dict(specs)
        self._made: list[PoolClient] = []

    def __reduce__(self) -> tuple[type[Clients], tuple[dict[str, PoolSpec]]]:
        return Clients, (self._specs,)

    def __call__(self) -> PoolClient:
        """A new one, which connects when it is first asked."""
        client = PoolClient(self._specs)
        self._made.append(client)
        return client

    def close(self) -> None:
        """All that were made in this process: a forgotten one would hold its leases as long as the process lives."""
        for client in self._made:
            client.close()


@dataclass(frozen=True)
class Pools:
    """Teachers that serve.

    Attributes:
        labeller: the driver's own client; it holds the run's leases.
        client: makes one for a worker, or for a thread of this process; can be sent there.
        descriptions: by name: fingerprint, num_parameters, size_bytes, pid, node, gpu_ids.
    """

    labeller: PoolClient
    client: Clients
    descriptions: dict[str, dict[str, Any]]

    def latency_ms(self, teacher: str, views: ViewBatch) -> float:
        """See `PoolClient.latency_ms`."""
        return self.labeller.latency_ms(teacher, views)

    def events(self) -> list[Event]:
        """See `PoolClient.events`."""
        return self.labeller.events()


@contextlib.contextmanager
def open_pools(
    config: Config, label_names: Mapping[str, tuple[str, ...]], on_progress: Callable[[str], None]
) -> Iterator[Pools]:
    """Join every teacher's pool and wait until each serves; leave them at the end of the block.

    Args:
        label_names: by task, in head order.
        on_progress: hears who is still waited for.

    Raises:
        TeacherError: one cannot be loaded, or not in time: the line says why.
    """
    specs = {
        name: pool_spec(config, name, tuple(label_names[teacher.task])) for name, teacher in config.teachers.items()
    }
    clients = Clients(specs)
    client = clients()
    try:
        client.connect()
        _wait_until_all_serve({name: client.link(name) for name in specs}, on_progress, config.ray.wait_s)
        descriptions = {name: {**_description(client.link(name)), "name": name} for name in specs}
        yield Pools(client, clients, descriptions)
    finally:
        clients.close()


def _wait_until_all_serve(links: dict[str, Link], on_progress: Callable[[str], None], wait_s: float) -> None:
    began = time.monotonic()
    said, said_at = "", began
    while missing := {name: link for name, link in links.items() if not link.num_serving}:
        waited_s = time.monotonic() - began
        for name, link in missing.items():
            if link.view is not None and link.view.failure is not None:
                raise TeacherError(link.view.failure)
            unplaced = link.view is not None and link.view.unplaced > 0 and not link.view.starting
            limit_s = wait_s if unplaced else max(LOAD_LEAST_S, link.spec.settings.timeout_s)
            if waited_s > limit_s:
                key = "ray.wait_s" if unplaced else f"teachers.{name}.timeout_s"
                raise TeacherError(
                    f"{no_replica(link.spec, link.view, waited_s)}; free what it takes (`raydistill teachers` lists "
                    f"what runs), or raise {key} if it only needs longer"
                )
        text = "teachers: " + ", ".join(f"{name} {_state(link, waited_s)}" for name, link in missing.items())
        if text != said or time.monotonic() - said_at > SAY_EVERY_S:
            on_progress(text)
            said, said_at = text, time.monotonic()
        time.sleep(LOOK_EVERY_S)


def _state(link: Link, waited_s: float) -> str:
    if link.view is not None and link.view.starting:
        return "is loading"
    if link.view is not None and link.view.unplaced and waited_s > UNPLACED_S:
        return f"waits for room in the cluster ({link.view.asks})"
    return "is starting"


def _description(link: Link) -> dict[str, Any]:
    assert link.view is not None, "it serves"
    return dict(link.view.description or {})
