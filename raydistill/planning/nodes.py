"""The nodes of a cluster: those that Ray tells of, or those that a word such as `64xL4,8xH100` stands for."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raydistill.errors import ConfigError

CPU, GPU = "CPU", "GPU"
TYPE_RESOURCE, TYPE_LABEL = "accelerator_type:", "ray.io/accelerator-type"
GB_A_CORE = 4.0  # of the nodes that `cpu16` stands for
MOST = 100_000  # devices in one word, and cores or GB of a node
SAID = r"(?P<count>\d{1,9})x(?P<kind>[A-Za-z][\w-]*)"


@dataclass(frozen=True)
class Accelerator:
    """A kind of GPU, and the node that it usually comes in.

    Attributes:
        tflops: dense tensor throughput in bfloat16 (T4, V100: float16), 10¹² operations a second, without sparsity.
        memory_gb: of one device.
        per_node, node_cpus, node_gb: devices, cores and memory of the node.
    """

    tflops: float
    memory_gb: float
    per_node: int
    node_cpus: int
    node_gb: float


ACCELERATORS = {
    "T4": Accelerator(65, 16, 1, 8, 32),
    "V100": Accelerator(125, 16, 8, 64, 488),
    "A10G": Accelerator(70, 24, 1, 8, 32),
    "L4": Accelerator(121, 24, 1, 8, 32),
    "L40S": Accelerator(362, 48, 1, 8, 64),
    "A100": Accelerator(312, 80, 8, 96, 1360),
    "H100": Accelerator(989, 80, 8, 208, 1872),
    "H200": Accelerator(989, 141, 8, 224, 2952),
    "B200": Accelerator(2250, 180, 8, 224, 3968),
}
"""By the names that Ray gives them. Throughput and memory: NVIDIA's data sheets of these products (the SXM form where
there is one); where a sheet gives the figure with sparsity only, half of it. Nodes: the clouds' usual machines (AWS
g4dn, p3, g5, g6e; Google g2, a2, a3, a4)."""


@dataclass(frozen=True)
class Node:
    """One machine.

    Attributes:
        kind: of its GPUs, `GPU` where nobody says; `CPU` without any.
        resources: as Ray counts them.
        cores: that compute, which may be fewer than the CPUs that Ray was told of.
        memory_gb: of the machine; 0 where it is not known.
        here: it is the one that this process runs on.
    """

    kind: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    cores: float = 0.0
    memory_gb: float = 0.0
    here: bool = False

    def __str__(self) -> str:
        gpus, cpus = self.resources.get(GPU, 0.0), self.resources.get(CPU, 0.0)
        parts = [f"{gpus:g} {self.kind}"] if gpus else []
        parts.append(f"{cpus:g} CPU")
        parts += [f"{self.memory_gb:.0f} GB"] if self.memory_gb else []
        own = {key: amount for key, amount in self.resources.items() if not _is_rays(key)}
        parts += [f"{amount:g} {key}" for key, amount in own.items()]
        parts += [f"{key}={value}" for key, value in self.labels.items() if not key.startswith("ray.io/")]
        return ", ".join(parts)


def parse_nodes(text: str) -> tuple[Node, ...]:
    """The nodes of a cluster that is not there.

    Args:
        text: words with commas between them. `8xH100`: eight of these GPUs, on nodes of the usual form (see
            `ACCELERATORS`). `4xcpu16`: four nodes of 16 cores. Then `:key=value` as often as wanted: `gpus`, `cpus` and
            `memory` (GB) of one node, any other key is a label: `64xL4:role=teacher,8xH100:gpus=2:role=student`.

    Raises:
        ConfigError: a word that means nothing, or a kind that is not known.
    """
    nodes: list[Node] = []
    for word in (part.strip() for part in text.split(",")):
        nodes += _nodes_of(word)
    return tuple(nodes)


def _nodes_of(word: str) -> list[Node]:
    said, *pairs = word.split(":")
    match = re.fullmatch(SAID, said)
    if match is None:
        raise ConfigError(
            f"--nodes: {word!r} is no number of devices; write 64xL4, 8xH100:role=student or 4xcpu16, with commas"
        )
    count, kind = int(match["count"]), match["kind"]
    if not 0 < count <= MOST:
        raise ConfigError(f"--nodes: {word!r}: between 1 and {MOST:,} of a kind can be planned for")
    measures, labels = _pairs(word, pairs)
    cores = re.fullmatch(r"cpu(\d{1,6})", kind, re.IGNORECASE)
    if cores:
        cpus = measures.get("cpus", float(cores[1]))
        if cpus <= 0 or "gpus" in measures:
            raise ConfigError(f"--nodes: {word!r}: a node of cpuN has N cores, more than none, and no gpus")
        return [Node(CPU, {CPU: cpus}, labels, cpus, measures.get("memory", GB_A_CORE * cpus))] * count
    name = named(kind, "--nodes")
    usual = ACCELERATORS[name]
    each = int(measures.get("gpus", usual.per_node))
    if each < 1 or each != measures.get("gpus", each):
        raise ConfigError(f"--nodes: {word!r}: gpus is a whole number of GPUs a node, 1 at least")

    def of(gpus: int) -> Node:
        # A node with fewer than it could have is a smaller machine of the same make.
        share = gpus / usual.per_node
        cpus = measures.get("cpus", float(max(1, round(usual.node_cpus * share))))
        resources = {CPU: cpus, GPU: float(gpus), f"{TYPE_RESOURCE}{name}": 1.0}
        memory = measures.get("memory", usual.node_gb * share)
        return Node(name, resources, {TYPE_LABEL: name, **labels}, cpus, memory)

    return [of(each)] * (count // each) + ([of(count % each)] if count % each else [])


def _pairs(word: str, pairs: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    measures: dict[str, float] = {}
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value:
            raise ConfigError(f"--nodes: {word!r}: {pair!r} is no key=value; write role=teacher, gpus=4, cpus=64")
        if key in measures or key in labels:
            raise ConfigError(f"--nodes: {word!r}: {key} stands there twice")
        if key in ("gpus", "cpus", "memory"):
            try:
                measures[key] = float(value)
            except ValueError:
                raise ConfigError(f"--nodes: {word!r}: {key} is a number, not {value!r}") from None
            if not 0 <= measures[key] <= MOST or (key != "cpus" and not measures[key]):  # nor NaN
                raise ConfigError(f"--nodes: {word!r}: {key} is more than nothing and at most {MOST:,}, not {value}")
        else:
            labels[key] = value
    return measures, labels


def named(kind: str, where: str) -> str:
    """The known accelerator of that name, whatever the case of its letters.

    Args:
        where: the user wrote it.

    Raises:
        ConfigError: there is none; lists those that are known.
    """
    by_lower = {name.lower(): name for name in ACCELERATORS}
    if kind.lower() in by_lower:
        return by_lower[kind.lower()]
    near = difflib.get_close_matches(kind.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]}? " if near else ""
    raise ConfigError(f"{where}: {kind!r} is not known; {hint}known are {', '.join(ACCELERATORS)} and cpuN for N cores")


def nodes_of_ray(found: Iterable[Mapping[str, Any]], address: str = "", cores: int = 0) -> tuple[Node, ...]:
    """Those that live.

    Args:
        found: as `ray.nodes` has them.
        address: of this machine, and its `cores`: Ray may have been told of more than there are.
    """
    alive = [each for each in found if each.get("Alive", True)]
    on_this = sum(each.get("NodeManagerAddress") == address for each in alive)
    nodes = []
    for each in alive:
        resources: dict[str, float] = dict(each["Resources"])
        memory = resources.pop("memory", 0.0)
        types = [key.removeprefix(TYPE_RESOURCE) for key in resources if key.startswith(TYPE_RESOURCE)]
        kind = (types[0] if types else GPU) if resources.get(GPU) else CPU
        cpus = resources.get(CPU, 0.0)
        here = on_this > 0 and each.get("NodeManagerAddress") == address
        computing = min(cpus, cores / on_this) if here else cpus
        nodes.append(Node(kind, resources, dict(each.get("Labels") or {}), computing, memory / 1e9, here))
    return tuple(nodes)


def summary(nodes: Iterable[Node]) -> list[str]:
    """A line for each kind of node: `64 nodes of 1 L4, 8 CPU, 32 GB, role=teacher`."""
    counts = Counter(str(node) for node in nodes)
    return [f"{count:,} node{'s' if count > 1 else ''} of {what}" for what, count in counts.items()]


def total(nodes: Iterable[Node], resource: str) -> float:
    """Of all nodes together."""
    return sum(node.resources.get(resource, 0.0) for node in nodes)


def _is_rays(resource: str) -> bool:
    return resource in (CPU, GPU, "memory", "object_store_memory") or resource.startswith(("node:", TYPE_RESOURCE))
