"""`raydistill plan`: what a run would ask, what there is, who would wait, and how long it would take."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.commands.plan_printed import print_plan
from raydistill.commands.preparing import as_config
from raydistill.commands.progress import Progress
from raydistill.config.loader import check_complete
from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.planning.demand import Party, Together, demand
from raydistill.planning.fit import Fit, fit
from raydistill.planning.measured import parse_speeds
from raydistill.planning.nodes import CPU, GPU, Node, nodes_of_ray, parse_nodes, summary, total
from raydistill.planning.plan import Asked, Plan
from raydistill.planning.room import Room


def plan(
    config: Config | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    nodes: str | None = None,
    speeds: Iterable[str] = (),
    probe: bool = True,
    as_json: bool = False,
) -> Plan:
    """Say what a distillation would do, before it does it; print it and return it. Nothing is trained or stored.

    Args:
        config: a config, a file of one, or the name of a shipped recipe.
        overrides: `key=value` words.
        nodes: of a cluster that is not there, such as `64xL4,8xH100`; default: the one that the run would use.
        speeds: `L4=3.5` words: a kind of GPU in times of the device that is probed.
        probe: run a few micro-batches of everybody here (seconds); without it nothing is predicted.
        as_json: print the same as JSON.

    Raises:
        ConfigError: the config or a word is wrong, or the run can never fit. DataError, TeacherError, SoftLabelError:
            what is probed cannot be read.
    """
    config = as_config(config, overrides)
    check_complete(config)
    there, taken = (parse_nodes(nodes), []) if nodes is not None else _nodes_there(config)
    given = parse_speeds(speeds, {node.kind for node in there})
    wanted = demand(config, _to_teach(config))
    fitted = fit(wanted, there)
    if fitted.never and not config.ray.autoscales:
        raise ConfigError(fitted.never)
    remarks = taken + _remarks(wanted, there, nodes is not None)
    predicted = None
    if fitted.never:
        remarks.append("no prediction: somebody has no room at all yet; say with --nodes what the autoscaler would add")
    if probe and not fitted.never:
        from raydistill.commands.plan_predicted import predict

        with Progress() as progress:
            predicted, spots, more = predict(config, wanted, fitted, there, given, nodes is not None, progress)
        fitted = replace(fitted, placed={**fitted.placed, **spots})
        remarks += more
    found = Plan(
        config.name,
        tuple(_asked(party, fitted, there) for together in wanted for party in together.parties),
        tuple(summary(there)),
        (*fitted.waiting, *([fitted.never] if fitted.never else [])),
        predicted,
        tuple(remarks),
    )
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(), indent=1) + "\n")
    else:
        print_plan(found)
    return found


def _nodes_there(config: Config) -> tuple[Sequence[Node], list[str]]:
    """Of the cluster that the run would use, and what others have of it now."""
    from raydistill.commands.cluster import cluster, needs_ray

    if not needs_ray(config):
        import torch

        from raydistill.commands.probe import gpu_here

        cores, gpus = float(os.cpu_count() or 1), float(torch.cuda.device_count())
        resources = {CPU: cores, **({GPU: gpus} if gpus else {})}
        return (Node(gpu_here() or CPU, resources, cores=cores, here=True),), []
    import ray

    with cluster(config):
        there = nodes_of_ray(ray.nodes(), ray.util.get_node_ip_address(), os.cpu_count() or 1)
        free = ray.available_resources()
        taken = {each: total(there, each) - free.get(each, 0.0) for each in (CPU, GPU)}
        words = ", ".join(
            f"{amount:g} of {total(there, each):g} {each}" for each, amount in taken.items() if amount > 0
        )
        return there, [f"others have {words} now: until they end, more will wait"] if words else []


def _to_teach(config: Config) -> list[str]:
    """Teachers without a checkpoint in the cache; whether one that is there learned from these data, the probe sees."""
    from raydistill.teachers.checkpoints import teacher_folder

    return [
        name
        for name, teacher in config.teachers.items()
        if teacher.checkpoint is None and not teacher_folder(config, name).exists()
    ]


def _remarks(wanted: Sequence[Together], there: Sequence[Node], imagined: bool) -> list[str]:
    remarks = []
    room = Room(there)
    for together in wanted:
        for party in together.parties:
            kinds = dict.fromkeys(node.kind for node in room.kinds_allowed(party) if GPU in node.resources)
            if party.placement.num_gpus and len(kinds) > 1:
                remarks.append(
                    f"{party.place} does not say which of {' and '.join(kinds)} it wants: the slowest is expected; set "
                    "accelerator_type or label_selector"
                )
    if imagined and not any(together.parties for together in wanted):
        remarks.append("nothing of this run asks for a cluster: teachers and student are in one process")
    gpus = sum(party.least * party.placement.num_gpus for each in wanted for party in each.parties)
    if total(there, GPU) and not gpus:
        remarks.append(f"there are {total(there, GPU):g} GPUs, and nobody asks for one (placement.num_gpus)")
    return remarks


def _asked(party: Party, fitted: Fit, there: Sequence[Node]) -> Asked:
    placed: dict[str, int] = {}
    for spot in fitted.placed.get((party.role, party.name), ()):
        kind = "elsewhere" if spot.node is None else there[spot.node].kind
        placed[kind] = placed.get(kind, 0) + 1
    return Asked(party.place, str(party), party.least, party.most, placed)
