"""The supervisor's hands: what it does in Ray, and nothing else. No call waits for a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from raydistill.config.models import PlacementConfig
from raydistill.errors import RaydistillError, first_line
from raydistill.teachers.pool.messages import PoolSpec
from raydistill.teachers.pool.names import NAMESPACE
from raydistill.teachers.pool.placement import fits, placement_options, shared_actor
from raydistill.teachers.pool.replica import replica_actor


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: what it returned.
        error: else what went wrong, in one line.
        died: the process ended; otherwise the call raised.
        ours: it raised a RaydistillError, whose line tells the user what to do: trying again would not help.
    """

    value: Any = None
    error: str | None = None
    died: bool = False
    ours: bool = False


class Launcher(Protocol):
    """Starts, asks and ends replicas."""

    def start(self, spec: PoolSpec, name: str) -> Any:
        """A new replica's handle; Ray places it when there is room.

        Raises:
            ValueError, TypeError: the placement, or the runtime environment, makes no sense to Ray.
        """
        ...

    def find(self, prefix: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """Living actors of ours whose name begins so, but for those whose name begins as one of `known`: handles by
        name."""
        ...

    def call(self, handle: Any, method: str) -> Any:
        """Call a method; returns a reference."""
        ...

    def poll(self, reference: Any) -> Outcome | None:
        """How it ended; None: not yet."""
        ...

    def kill(self, handle: Any) -> None:
        """End a replica's process."""
        ...

    def has_room(self, placement: PlacementConfig, kept: Mapping[str, float]) -> bool:
        """Whether one more could be placed now, and this much, by resource, still be free."""
        ...


class RayLauncher:
    """The real one."""

    def start(self, spec: PoolSpec, name: str) -> Any:
        """See `Launcher.start`."""
        options = placement_options(spec.settings.placement)
        if spec.runtime_env:
            options["runtime_env"] = spec.runtime_env
        replica_actor(spec).options(**(shared_actor(name) | options)).remote(spec)
        # By name: of a handle that `remote` gave, Ray remembers every copy that ever left, for as long as it lives,
        # and each view holds one.
        return ray.get_actor(name, namespace=NAMESPACE)

    def find(self, prefix: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """See `Launcher.find`."""
        found = {}
        for actor in ray.util.list_named_actors(all_namespaces=True):
            name = actor["name"]
            if actor["namespace"] == NAMESPACE and name.startswith(prefix) and not (known and name.startswith(known)):
                try:
                    found[name] = ray.get_actor(name, namespace=NAMESPACE)
                except ValueError:
                    continue  # it has just ended
        return found

    def call(self, handle: Any, method: str) -> Any:
        """See `Launcher.call`."""
        return getattr(handle, method).remote()

    def poll(self, reference: Any) -> Outcome | None:
        """See `Launcher.poll`."""
        ready, _ = ray.wait([reference], timeout=0)
        if not ready:
            return None
        try:
            return Outcome(ray.get(reference, timeout=5))
        except GetTimeoutError:
            return None
        except RayTaskError as error:
            if isinstance(error.cause, RaydistillError):
                return Outcome(error=str(error.cause), ours=True)
            return Outcome(error=first_line(error.cause))
        except RayError as error:
            return Outcome(error=death(error), died=True)

    def kill(self, handle: Any) -> None:
        """See `Launcher.kill`. A process that does not react is ended by Ray with SIGKILL some seconds later."""
        ray.kill(handle)

    def has_room(self, placement: PlacementConfig, kept: Mapping[str, float]) -> bool:
        """See `Launcher.has_room`."""
        return fits(placement, ray.available_resources(), kept)


def death(error: RayError) -> str:
    """Why an actor died, in a few words: Ray's last line tells most."""
    text = str(error).strip()
    if "node has died" in text or "node was dead" in text:
        return "its node was lost"
    if "worker process has died" in text:
        return "its process ended"
    if "ray.kill" in text:
        return "it was ended"
    lines = text.splitlines()
    return lines[-1].strip()[:160] if lines else "its process ended"
