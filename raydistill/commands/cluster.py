"""Ray for the length of a command, and the preflight that refuses what would wait for ever."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError

Asker = tuple[str, PlacementConfig, int]  # where the config says it, what it says, how many times


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
    try:
        if settings.address:
            ray.init(address=settings.address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(
                num_cpus=settings.num_cpus, num_gpus=settings.num_gpus, include_dashboard=False,
                log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot reach Ray at ray.address {settings.address!r} ({str(error).splitlines()[0]}); start one with "
            "`ray start --head`, or leave ray.address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def preflight(config: Config, remote_teachers: bool) -> None:
    """Compare what a distillation asks of Ray, all at once, with what the cluster has.

    Raises:
        ConfigError: see `_check_fit`.
    """
    askers: list[Asker] = []
    if remote_teachers:
        askers = [(f"teachers.{name}.placement", teacher.placement, 1) for name, teacher in config.teachers.items()]
    if config.training.num_workers:
        askers.append(("training.placement", config.training.placement, config.training.num_workers))
    _check_fit(askers)


def preflight_teach(placed: dict[str, PlacementConfig]) -> None:
    """The same for the training of teachers, of which one at a time must fit."""
    for name, placement in placed.items():
        _check_fit([(f"teachers.{name}.train.placement", placement, 1)])


def _check_fit(askers: list[Asker]) -> None:
    """Ray waits silently for what it can never schedule, so what cannot fit is refused here.

    Raises:
        ConfigError: names the resource, who asks how much of it, and what there is.
    """
    import ray

    wanted: dict[str, list[tuple[str, float]]] = {}
    for place, placement, count in askers:
        asked = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
        for resource, amount in asked.items():
            if amount:
                wanted.setdefault(resource, []).append((place, amount * count))
    there = ray.cluster_resources()
    for resource, asks in wanted.items():
        total = sum(amount for _, amount in asks)
        if total > there.get(resource, 0.0) + 1e-9:
            who = ", ".join(f"{place} {amount:g}" for place, amount in asks)
            raise ConfigError(
                f"the run asks for {total:g} {resource} ({who}) and the cluster has {there.get(resource, 0.0):g}; "
                "lower the placements or use a larger cluster (ray.address)"
            )
    for place, placement, _ in askers:
        unmet = {key: value for key, value in placement.label_selector.items() if not _some_node_has(key, value)}
        if unmet:
            raise ConfigError(f"no node of the cluster has the labels {unmet} that {place}.label_selector asks for")


def _some_node_has(key: str, value: str) -> bool:
    import ray

    if value.startswith(("in(", "!")):
        return True  # Ray's own expressions: it decides
    return any(node["Alive"] and node.get("Labels", {}).get(key) == value for node in ray.nodes())
