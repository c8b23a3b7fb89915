"""How many trials run at a time: as many as the cluster holds beside the teachers."""

from __future__ import annotations

from raydistill.commands.preflight import asks_for
from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.planning.nodes import TYPE_RESOURCE
from raydistill.tuning.space import Space


def trial_resources(config: Config) -> dict[str, float]:
    """What one trial takes of the cluster, its workers included."""
    training = config.training
    each = asks_for(training.placement)
    if training.num_workers:
        return {resource: amount * training.num_workers for resource, amount in each.items()}
    return each | {"CPU": max(1.0, each.get("CPU", 0.0))}


def how_many_trials(space: Space, config: Config, teachers_stay: bool) -> int:
    """At one time: as many as the space says, and as the cluster holds beside the teachers.

    Raises:
        ConfigError: not even one fits.
    """
    import ray

    there, takes = ray.cluster_resources(), trial_resources(config)
    kept: dict[str, float] = {}
    actors = teachers_stay and config.distill.soft_labels != "local"  # else they are in the trials' own processes
    for teacher in config.teachers.values() if actors else ():
        for resource, amount in asks_for(teacher.placement).items():
            kept[resource] = kept.get(resource, 0.0) + amount * teacher.min_replicas
    fit = {
        resource: int((there.get(resource, 0.0) - kept.get(resource, 0.0) + 1e-9) / amount)
        for resource, amount in takes.items()
    }
    tight = min(fit, key=lambda resource: fit[resource])
    if fit[tight] < 1 and not config.ray.autoscales:
        beside = f" beside the teachers' {kept[tight]:g}" if kept.get(tight) else ""
        has = f"{there.get(tight, 0.0):g}"
        asked = f"{takes[tight]:g} {tight}"
        if tight.startswith(TYPE_RESOURCE):  # Ray's own notation: a thousandth of a resource of that name
            asked, has = f"an accelerator of type {tight.removeprefix(TYPE_RESOURCE)}", "none of them"
        raise ConfigError(
            f"a trial asks for {asked}{beside} and the cluster has {has}; lower "
            "training.placement or the teachers', or use a larger cluster (ray.address, ray.num_cpus, or "
            "ray.autoscales=true where it grows)"
        )
    limit = space.search.max_concurrent_trials
    fitting = max(1, fit[tight])
    return fitting if limit == "auto" else min(fitting, limit)
