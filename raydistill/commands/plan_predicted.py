"""From a probe to a prediction: who is measured how, and what the model makes of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from raydistill.commands.cluster import needs_ray
from raydistill.commands.methods_check import check_methods
from raydistill.commands.plan_sizes import lesson_rows, sizes_of, unfetched
from raydistill.commands.preparing import load_data, with_scales
from raydistill.commands.probe import Neighbours, gpu_here, matmul_tflops, probe_teacher
from raydistill.commands.probe_student import bare, probe_student
from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.planning.course import Course, course
from raydistill.planning.crews import Cast, cast, grow, grow_ahead
from raydistill.planning.demand import STUDENT, Party, Together
from raydistill.planning.fit import Fit
from raydistill.planning.measured import Measured, Speeds
from raydistill.planning.nodes import ACCELERATORS, CPU, Node
from raydistill.planning.plan import Pace, Predicted
from raydistill.planning.rates import REPLICA_S, Crew
from raydistill.planning.room import Spot
from raydistill.planning.sizes import Sizes
from raydistill.planning.verdict import balances, verdict
from raydistill.teachers.teach import untrained

DISTURBED = 0.15  # of the machine that others may take during a probe

Spots = dict[tuple[str, str], tuple[Spot, ...]]


def predict(
    config: Config, wanted: Sequence[Together], fitted: Fit, there: Sequence[Node], given: Mapping[str, float],
    imagined: bool, progress: Progress,
) -> tuple[Predicted | None, Spots, list[str]]:  # fmt: skip
    """Probe everybody on this machine, and carry it over to the nodes.

    Args:
        given: speeds that the user says.
        imagined: the nodes are not there.

    Returns:
        The prediction, None where there are no rows to probe with; where teachers are once they have grown; remarks.

    Raises:
        ConfigError, DataError, TeacherError, SoftLabelError: what is probed cannot be read or built.
    """
    away = unfetched(config)
    if away:
        return None, {}, [
            f"no probe and no prediction: the data of {', '.join(away)} has to be fetched first, which is not done for "
            "a plan (`raydistill teach` does it)"
        ]  # fmt: skip
    seen = _probed(config, there, imagined, progress)
    config, sizes, ways = seen.config, seen.sizes, seen.ways
    kinds = _kinds(config, fitted, there)
    rough = seen.measured.device == CPU and any(kind in ACCELERATORS and kind not in given for kind in kinds)
    speeds = Speeds(seen.measured.device, matmul_tflops() if rough else 0.0, given)
    parties = [party for together in wanted for party in together.parties]
    found, short = cast(config, parties, fitted, there, seen.measured, speeds), ""
    if "remote" in ways:
        found, short = grow(found, parties, fitted, sizes.missing(config))
    elif config.distill.soft_labels == "stored":
        found = grow_ahead(found, parties, fitted)
    whole = course(config, sizes, found, ways, seen.at_once)
    remarks = [*speeds.remarks(kinds), *_remarks(config, found, seen, short)]
    spots: Spots = {("teacher", name): found.spots[name] for name in config.teachers if name in found.spots}
    return _predicted(config, found, sizes, fitted, parties, whole, seen.at_once), spots, remarks


@dataclass(frozen=True)
class _Seen:
    """What the probe saw: `lacking` are the teachers that are trained first, `others` the share of the machine that
    other processes took meanwhile."""

    config: Config
    measured: Measured
    sizes: Sizes
    ways: tuple[str, ...]
    at_once: int
    lacking: list[str]
    others: float


def _probed(config: Config, there: Sequence[Node], imagined: bool, progress: Progress) -> _Seen:
    data = load_data(config, progress)
    check_methods(config, {name: len(task.label_names) for name, task in data.items()})
    config = with_scales(config, data)
    lacking = untrained(config, data)
    most, placement = torch.get_num_threads(), config.training.placement
    threads = _threads(placement.num_cpus, placement.num_gpus, most) if config.training.num_workers else most
    probed, neighbours = {}, Neighbours()
    for name, teacher in config.teachers.items():
        progress(f"probing {name}")
        remote = _threads(teacher.placement.num_cpus, teacher.placement.num_gpus, most)
        by_way = {way: remote if way == "remote" else threads for way in _ways(config) or ("remote",)}
        probed[name] = probe_teacher(bare(config), name, data, by_way, trained=name not in lacking)
    lessons = {name: lesson_rows(config, name, data[config.teachers[name].task]) for name in lacking}
    sizes = sizes_of(config, data, {name: each.fingerprint for name, each in probed.items()}, lessons)
    ways = _ways(config) if sizes.missing(config) else ()
    cores = min(os.cpu_count() or 1, int(max(node.resources.get(CPU, 0.0) for node in there)))
    at_once = 1 if imagined or ways else _at_once(config, cores)
    if at_once > 1:
        threads = max(1, cores // (2 * config.num_seeds))
    progress("probing the student")
    on_gpu = torch.cuda.is_available() and (placement.num_gpus or not config.training.num_workers)
    learning, exam = probe_student(config, data, threads, torch.device("cuda" if on_gpu else "cpu"))
    if placement.num_gpus and not on_gpu:
        learning = learning.on_gpu()
    teachers = {name: each.measured for name, each in probed.items()}
    measured = Measured(gpu_here() or CPU, learning, exam, teachers)
    return _Seen(config, measured, sizes, ways, at_once, lacking, neighbours.share())


def _predicted(
    config: Config, found: Cast, sizes: Sizes, fitted: Fit, parties: Sequence[Party], whole: Course, at_once: int
) -> Predicted:
    asking, missing = whole.asking, sizes.missing(config)
    pooled = asking is not None and whole.way == "remote"
    balance = balances(found, fitted, parties, asking, missing) if asking is not None and pooled else {}
    now = asking or found.steady({}, "stored")
    way = whole.way if asking is not None else "remote" if config.distill.soft_labels != "local" else "local"
    paces = [_pace(STUDENT, found.student, now.bounds[STUDENT])]
    for name in missing:
        crew = found.teacher(name, way) if asking is not None else found.ahead(name, way)
        calls = [(REPLICA_S if way == "remote" else 0.0) + crew.work.seconds(each.speed) for each in crew.servers]
        paces.append(_pace(name, crew, sum(crew.work.rows / call for call in calls)))
    return Predicted(
        probed=found.measured.device,
        samples_per_s=now.samples_per_s * at_once,
        bound=now.bound,
        bounds=now.bounds,
        way=whole.way,
        paces=tuple(paces),
        stages=whole.stages,
        wall_s=whole.wall_s,
        device_hours=whole.device_hours,
        balance=balance,
        verdict=verdict(config, found, sizes, whole, balance),
    )


def _pace(who: str, crew: Crew, rows_per_s: float) -> Pace:
    slowest = max(crew.work.seconds(server.speed) for server in crew.servers)
    return Pace(who, crew.work.rows, slowest, len(crew.servers), rows_per_s)


def _threads(num_cpus: float, num_gpus: float, most: int) -> int:
    """That an actor has; of one on a GPU all that prepares its inputs."""
    return most if num_gpus else max(1, min(most, int(num_cpus)))


def _ways(config: Config) -> tuple[str, ...]:
    """To the teachers while a student trains, as `experts` finds them."""
    mode = config.distill.soft_labels
    if mode == "stored":
        return ()
    if mode in ("local", "remote"):
        return (mode,)
    apart = config.training.num_workers or any(each.placement.num_gpus for each in config.teachers.values())
    return ("remote",) if apart else ("remote", "local")


def _at_once(config: Config, cores: int) -> int:
    """Students that train side by side once the store has everything, as `train_all` decides it."""
    alone = config.training.num_workers == 0 and config.ray.address is None and needs_ray(config)
    if not alone or torch.cuda.is_available() or cores < 2:
        return 1
    plans = 2 * config.num_seeds
    return min(plans, cores // max(1, cores // plans))


def _kinds(config: Config, fitted: Fit, there: Sequence[Node]) -> list[str]:
    """Of the GPUs that somebody gets."""
    asks = {("teacher", name) for name, each in config.teachers.items() if each.placement.num_gpus}
    asks |= {("teaching", name) for name, each in config.teachers.items()
             if each.train and each.train.placement and each.train.placement.num_gpus}  # fmt: skip
    asks |= {("student", STUDENT)} if config.training.placement.num_gpus else set()
    spots = [spot for key, placed in fitted.placed.items() if key in asks for spot in placed]
    return list(dict.fromkeys(there[spot.node].kind for spot in spots if spot.node is not None))


def _remarks(config: Config, found: Cast, seen: _Seen, short: str) -> list[str]:
    remarks = []
    if seen.others > DISTURBED:
        remarks.append(
            f"other processes took {seen.others:.0%} of this machine during the probe: what it measured is too slow; "
            "run it again when they have ended"
        )
    if seen.lacking:
        remarks.append(f"probed untrained, as there is no checkpoint yet: {', '.join(seen.lacking)}")
    if short:
        remarks.append(f"{short} would have more replicas, up to max_replicas, if there were room")
    if config.distill.features:
        remarks.append("what feature losses take is not in the probe: steps and answers will be slower")
    for name, each in config.teachers.items():
        if not each.placement.num_gpus:
            continue
        together = math.floor(1 / min(1.0, each.placement.num_gpus))  # on one device, where they are packed
        weights = together * found.measured.teachers[name].size_bytes / 1e9
        nodes = [found.nodes[spot.node] for spot in found.spots.get(name, ()) if spot.node is not None]
        for kind in dict.fromkeys(node.kind for node in nodes if node.kind in ACCELERATORS):
            if weights > ACCELERATORS[kind].memory_gb:
                remarks.append(
                    f"{name}: the weights of {together} on one {kind} are {weights:.0f} GB, and it has "
                    f"{ACCELERATORS[kind].memory_gb:g}: ask for more of a GPU (teachers.{name}.placement.num_gpus)"
                )
    return remarks
