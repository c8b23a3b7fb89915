"""What an actor or a task asks of Ray, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raydistill.config.models import PlacementConfig
from raydistill.teachers.pool.names import NAMESPACE


def placement_options(placement: PlacementConfig) -> dict[str, Any]:
    """The Ray options of a placement."""
    options: dict[str, Any] = {
        "num_cpus": placement.num_cpus,
        "num_gpus": placement.num_gpus,
        "resources": placement.resources,
    }
    if placement.label_selector:
        options["label_selector"] = placement.label_selector
    if placement.accelerator_type:
        options["accelerator_type"] = placement.accelerator_type
    if placement.strategy == "spread":
        options["scheduling_strategy"] = "SPREAD"
    return options


def shared_actor(name: str) -> dict[str, Any]:
    """The Ray options of an actor that outlives whoever started it, and that all find by its name."""
    no_group: Any = None
    return {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        # Ray would keep a record of every question for its state API: traffic, and the head node's memory.
        "enable_task_events": False,
        # A trial's placement group ends with the trial; what it shares must not.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(placement_group=no_group),
    }


def asked(placement: PlacementConfig) -> dict[str, float]:
    """By resource, as Ray names it: what a placement takes; zeros left out."""
    amounts = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
    return {resource: amount for resource, amount in amounts.items() if amount}


def fits(placement: PlacementConfig, free: Mapping[str, float], kept: Mapping[str, float]) -> bool:
    """Whether the cluster has this much free, and `kept` besides. A single node may lack it: then the replica waits."""
    return all(
        free.get(resource, 0.0) + 1e-9 >= amount + kept.get(resource, 0.0)
        for resource, amount in asked(placement).items()
    )


def describe(placement: PlacementConfig) -> str:
    """For a message: `CPU 1, GPU 0.5`, with what else it is particular about."""
    parts = [f"{resource} {amount:g}" for resource, amount in asked(placement).items()]
    parts += [f"label {key}={value}" for key, value in placement.label_selector.items()]
    parts += [placement.accelerator_type] if placement.accelerator_type else []
    return ", ".join(parts) or "nothing"
