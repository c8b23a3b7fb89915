"""The preflight: what is asked of Ray against what the cluster has, before anything waits for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError, first_line
from raydistill.planning.demand import Party
from raydistill.planning.fit import refusal
from raydistill.planning.nodes import TYPE_RESOURCE, nodes_of_ray
from raydistill.planning.room import Room
from raydistill.teachers.pool.placement import placement_options

Asker = tuple[str, PlacementConfig, int]  # where the config says it, what it says, how many times


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
        workers = [("training.placement", config.training.placement, config.training.fewest_workers)]
    together = {
        "local": [workers],
        "stored": [teachers, workers],
        "remote": [teachers + workers],
        "auto": [teachers + workers],
    }
    for askers in together[config.distill.soft_labels]:
        _check_fit(askers, config.ray.autoscales)


def preflight_teach(placed: dict[str, PlacementConfig], autoscales: bool) -> None:
    """The same for the training of teachers, of which one at a time must fit."""
    for name, placement in placed.items():
        _check_fit([(f"teachers.{name}.train.placement", placement, 1)], autoscales)


def preflight_label(config: Config) -> None:
    """The same for labelling ahead, where one teacher after the other must fit."""
    for name, teacher in config.teachers.items():
        _check_fit([(f"teachers.{name}.placement", teacher.placement, teacher.min_replicas)], config.ray.autoscales)


def unused_gpus(config: Config, students: str | None) -> str | None:
    """What to tell a user whose teachers, or students, all leave the GPUs that there are alone; None: nothing.

    Args:
        students: who trains by `training.placement`; None: this process, which takes a GPU that it sees.
    """
    import ray
    import torch

    gpus = ray.cluster_resources().get("GPU", 0.0) if ray.is_initialized() else torch.cuda.device_count()
    idle = {}
    if not any(teacher.placement.num_gpus for teacher in config.teachers.values()):
        idle["the teachers"] = [f"teachers.{name}.placement.num_gpus" for name in config.teachers]
    if students and not config.training.placement.num_gpus:
        idle[f"the {students}"] = ["training.placement.num_gpus"]
    if not gpus or not idle:
        return None
    paths = ", ".join(path for each in idle.values() for path in each)
    return (
        f"{' and '.join(idle)} compute on processors, and there are GPUs ({gpus:g}): {paths}, where 0.25 is a quarter "
        "of one"
    )


def how_many_fit(placement: PlacementConfig, beside: Sequence[Asker] = ()) -> int:
    """Actors of this placement that the cluster holds at one time.

    Args:
        placement: takes something, else there is no end to it.
        beside: have their places first.
    """
    import ray

    return Room(nodes_of_ray(ray.nodes())).how_many(_party("", placement, 1), [_party(*each) for each in beside])


def _check_fit(askers: list[Asker], autoscales: bool) -> None:
    """Ray waits silently for what it can never schedule, so what cannot fit is refused here.

    Args:
        autoscales: nodes may come: what does not fit yet is waited for, see `Patience`.

    Raises:
        ConfigError: names the resource, who asks how much of it, and what there is.
    """
    import ray

    for place, placement, _ in askers:
        _check_readable(place, placement)
    if not autoscales:
        check_nodes(askers, ray.nodes())


def _check_readable(place: str, placement: PlacementConfig) -> None:
    """Ray says what it cannot read when something is started, which may be late."""
    import ray

    def nothing() -> None:
        pass

    try:
        ray.remote(nothing).options(**placement_options(placement))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: Ray cannot read it: {first_line(error)}") from error


def check_nodes(askers: list[Asker], nodes: list[dict[str, Any]]) -> None:
    """Whether there is room for all at one time, each with all that it asks for on one node.

    Args:
        nodes: as `ray.nodes` has them.

    Raises:
        ConfigError: who asks for what, and what there is.
    """
    never = refusal([_party(*each) for each in askers], nodes_of_ray(nodes))
    if never:
        raise ConfigError(f"{never}; where an autoscaler can add it, set ray.autoscales=true")


def _party(place: str, placement: PlacementConfig, count: int) -> Party:
    return Party(place, "teacher", place, placement, count, count, count)


def asks_for(placement: PlacementConfig) -> dict[str, float]:
    """By resource, as Ray counts it."""
    asked = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
    if placement.accelerator_type:
        asked[f"{TYPE_RESOURCE}{placement.accelerator_type}"] = 0.001
    return {resource: amount for resource, amount in asked.items() if amount}
