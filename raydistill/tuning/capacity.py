"""How many trials run at a time: as many as the cluster holds beside the teachers."""

from __future__ import annotations

from raydistill.commands.preflight import check_nodes, how_many_fit
from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError
from raydistill.teachers.pool.placement import asked, describe
from raydistill.tuning.space import Space

WHERE = "training.placement (of a trial)"


def of_trial(config: Config) -> PlacementConfig:
    """What a trial takes of the cluster: its own process, or each of its workers."""
    placement = config.training.placement
    if config.training.num_workers and asked(placement):
        return placement
    return placement.model_copy(update={"num_cpus": max(1.0, placement.num_cpus)})


def how_many_trials(space: Space, config: Config, teachers_stay: bool) -> int:
    """At one time: as many as the space says, and as the cluster holds beside the teachers; with `ray.autoscales` a
    number in the space is taken at its word.

    Raises:
        ConfigError: not even one fits.
    """
    import ray

    actors = teachers_stay and config.distill.soft_labels != "local"  # else they are in the trials' own processes
    teachers = [
        (f"teachers.{name}.placement", teacher.placement, teacher.min_replicas)
        for name, teacher in (config.teachers.items() if actors else ())
    ]
    placement, fewest = of_trial(config), config.training.fewest_workers or 1
    fit = how_many_fit(placement, teachers)
    if not config.ray.autoscales:
        check_nodes([*teachers, (WHERE, placement, fewest)], ray.nodes())
        if fit < fewest:
            raise ConfigError(
                f"{WHERE} asks for {describe(placement)}, {fewest} times, and beside the teachers the nodes of the "
                f"cluster hold {fit}; lower it or the teachers', or use a larger cluster"
            )
    limit = space.search.max_concurrent_trials
    if config.ray.autoscales and limit != "auto":
        return limit  # nodes come only for what asks
    fitting = max(1, fit // (config.training.num_workers or 1))
    return fitting if limit == "auto" else min(fitting, limit)
