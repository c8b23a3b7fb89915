"""Ray for the length of a command, and the preflight that refuses what would wait for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError, first_line

Asker = tuple[str, PlacementConfig, int]  # where the config says it, what it says, how many times

CONNECT_S = 5.0


def needs_ray(config: Config) -> bool:
    """Whether anything of a distillation is remote."""
    return config.training.num_workers > 0 or config.distill.soft_labels != "local"


@contextlib.contextmanager
def cluster(config: Config) -> Iterator[None]:
    """A connection to the configured cluster, or a Ray of our own that ends with the block.

    Raises:
        ConfigError: the address does not answer.
    """
    import ray

    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    if ray.is_initialized():
        yield
        return
    settings = config.ray
    own = settings.num_cpus is not None or settings.num_gpus is not None
    if settings.address:
        knock(settings.address)
    try:
        ray.init(
            # Nothing said: the Ray that `ray start` left on this machine, else one of our own.
            address=settings.address or ("local" if own else None),
            num_cpus=None if settings.address else settings.num_cpus,
            num_gpus=None if settings.address else settings.num_gpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"cannot reach Ray at ray.address {settings.address!r}" if settings.address else "cannot start Ray"
        raise ConfigError(
            f"{where} ({first_line(error)}); start one with `ray start --head`, or leave ray.address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Ray itself would try for many minutes to reach an address where nobody is.

    Raises:
        ConfigError: nobody is there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray answers at ray.address {address!r} ({error.strerror or error}); start one with `ray start "
            "--head`, or leave ray.address out"
        ) from error


def preflight(config: Config, training: bool = True) -> None:
    """Compare what is asked of Ray at one time with what the cluster has.

    Args:
        training: the student is trained too. Teachers whose labels are stored have ended by then.

    Raises:
        ConfigError: see `_check_fit`.
    """
    teachers: list[Asker] = [
        (f"teachers.{name}.placement", teacher.placement, teacher.min_replicas)
        for name, teacher in config.teachers.items()
    ]
    workers: list[Asker] = []
    if training and config.training.num_workers:
        workers = [("training.placement", config.training.placement, config.training.num_workers)]
    together = {
        "local": [workers],
        "stored": [teachers, workers],
        "remote": [teachers + workers],
        "auto": [teachers + workers],
    }
    for askers in together[config.distill.soft_labels]:
        _check_fit(askers)


def preflight_teach(placed: dict[str, PlacementConfig]) -> None:
    """The same for the training of teachers, of which one at a time must fit."""
    for name, placement in placed.items():
        _check_fit([(f"teachers.{name}.train.placement", placement, 1)])


def preflight_label(config: Config) -> None:
    """The same for labelling ahead, where one teacher after the other must fit."""
    for name, teacher in config.teachers.items():
        _check_fit([(f"teachers.{name}.placement", teacher.placement, teacher.min_replicas)])


def how_many_fit(placement: PlacementConfig, at_most: int | None = None) -> int:
    """Actors of this placement that the cluster holds at one time, each with a core of its own at least."""
    import ray

    there = ray.cluster_resources()
    asked = {"CPU": max(1.0, placement.num_cpus), "GPU": placement.num_gpus, **placement.resources}
    fit = min(int(there.get(resource, 0.0) / amount) for resource, amount in asked.items() if amount)
    return max(1, fit if at_most is None else min(fit, at_most))


def _check_fit(askers: list[Asker]) -> None:
    """Ray waits silently for what it can never schedule, so what cannot fit is refused here.

    Raises:
        ConfigError: names the resource, who asks how much of it, and what there is.
    """
    import ray

    wanted: dict[str, list[tuple[str, float]]] = {}
    each: dict[str, list[tuple[str, float]]] = {}
    for place, placement, count in askers:
        asked = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
        if placement.accelerator_type:
            asked[f"accelerator_type:{placement.accelerator_type}"] = 0.001  # as Ray counts it
        for resource, amount in asked.items():
            if amount:
                wanted.setdefault(resource, []).append((place, amount * count))
                each.setdefault(resource, []).append((place, amount))
    there = ray.cluster_resources()
    for resource, asks in wanted.items():
        total = sum(amount for _, amount in asks)
        if total > there.get(resource, 0.0) + 1e-9:
            who = ", ".join(f"{place} {amount:g}" for place, amount in asks)
            raise ConfigError(
                f"the run asks for {total:g} {resource} ({who}) and the cluster has {there.get(resource, 0.0):g}; "
                "lower the placements or use a larger cluster (ray.address)"
            )
        for place, amount in each[resource]:
            if amount > largest_node(resource) + 1e-9:
                raise ConfigError(
                    f"{place} asks for {amount:g} {resource} at once and no node of the cluster has more than "
                    f"{largest_node(resource):g}; lower it"
                )
    for place, placement, _ in askers:
        unmet = {key: value for key, value in placement.label_selector.items() if not _some_node_has(key, value)}
        if unmet:
            raise ConfigError(f"no node of the cluster has the labels {unmet} that {place}.label_selector asks for")


def largest_node(resource: str) -> float:
    """The most of a resource that one node of the cluster has."""
    import ray

    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _some_node_has(key: str, value: str) -> bool:
    import ray

    if value.startswith(("in(", "!")):
        return True  # Ray's own expressions: it decides
    return any(node["Alive"] and node.get("Labels", {}).get(key) == value for node in ray.nodes())
