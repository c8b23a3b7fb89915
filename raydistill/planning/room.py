"""Where there is room: actors put onto nodes one by one, each whole on one node."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from raydistill.planning.demand import Party
from raydistill.planning.nodes import ACCELERATORS, GPU, Node

SLACK = 1e-9  # fractions of a device add up to a little less than one


@dataclass(frozen=True)
class Spot:
    """Where one actor is.

    Attributes:
        node: its position in the list of nodes; None: a machine that is none of them.
        gpus: the devices of that node that it has a part of.
    """

    node: int | None
    gpus: tuple[int, ...] = ()


@dataclass
class _Alike:
    """Nodes that are alike and have the same left: of thousands of nodes there are few kinds.

    Attributes:
        free: by resource; `gpus`: of each device.
        holders: how many of whom are on each.
        members: their positions in the list of nodes, as a heap.
    """

    node: Node
    free: dict[str, float]
    gpus: tuple[float, ...]
    holders: Counter[str] = field(default_factory=Counter)
    members: list[int] = field(default_factory=list)

    @property
    def key(self) -> Hashable:
        """The same for those that can be counted as one."""
        node = (self.node.kind, *(tuple(sorted(each.items())) for each in (self.node.resources, self.node.labels)))
        return node, tuple(sorted(self.free.items())), self.gpus, tuple(sorted(self.holders.items()))

    def may_run(self, party: Party) -> bool:
        """It has its labels and its type of accelerator, whether it is free or not."""
        return all(
            has_label(self.node.labels, key, value) for key, value in party.placement.label_selector.items()
        ) and all(resource in self.node.resources for resource in party.needs if ":" in resource)

    def has(self, resource: str, amount: float) -> bool:
        """It is free for one actor."""
        if self.free.get(resource, 0.0) + SLACK < amount:
            return False
        if resource != GPU:
            return True
        if amount < 1:  # a part is of one device
            return any(free + SLACK >= amount for free in self.gpus)
        return sum(free + SLACK >= 1 for free in self.gpus) >= int(amount)

    def times(self, party: Party) -> int:
        """How many of these it has all for at the same time."""
        fitting = [
            int((self.free.get(resource, 0.0) + SLACK) / amount)
            for resource, amount in party.needs.items()
            if resource != GPU
        ]
        if amount := party.needs.get(GPU):
            of_devices = [int((free + SLACK) / min(amount, 1.0)) for free in self.gpus]
            fitting.append(sum(of_devices) if amount < 1 else sum(of_devices) // int(amount))
        return min(fitting)

    def with_one_more(self, party: Party) -> tuple[_Alike, tuple[int, ...]]:
        """The same kind of node with an actor on it, and the devices that the actor has a part of."""
        devices, amount = list(self.gpus), party.placement.num_gpus
        chosen: list[int] = []
        if 0 < amount < 1:
            # The fullest that still has room, so that whole ones stay whole.
            chosen = [min((i for i, free in enumerate(devices) if free + SLACK >= amount), key=lambda i: devices[i])]
        elif amount:
            chosen = [i for i, free in enumerate(devices) if free + SLACK >= 1][: int(amount)]
        for device in chosen:
            devices[device] -= min(amount, 1.0)
        free = {key: value - party.needs.get(key, 0.0) for key, value in self.free.items()}
        return _Alike(self.node, free, tuple(devices), self.holders + Counter([party.place])), tuple(chosen)


class Room:
    """What is free on each node, as actors take their places."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.num_nodes = len(nodes)
        self._kinds: dict[Hashable, _Alike] = {}
        known: dict[int, _Alike] = {}  # many are one object
        for at, node in enumerate(nodes):
            if id(node) not in known:
                each = _Alike(node, dict(node.resources), _devices(node.resources.get(GPU, 0.0)))
                known[id(node)] = self._kinds.setdefault(each.key, each)
            known[id(node)].members.append(at)

    def take(self, party: Party) -> Spot | None:
        """A place for one more of these; None where there is none. Which node is the best one: see `_order`."""
        order = _order(party)
        holding = [
            (each, key)
            for key, each in self._kinds.items()
            if each.may_run(party) and all(each.has(resource, amount) for resource, amount in party.needs.items())
        ]
        if not holding:
            return None
        best, key = min(holding, key=lambda pair: (order(pair[0]), pair[0].members[0]))
        at = heapq.heappop(best.members)
        if not best.members:
            del self._kinds[key]
        taken, gpus = best.with_one_more(party)
        taken = self._kinds.setdefault(taken.key, taken)
        heapq.heappush(taken.members, at)
        return Spot(at, gpus)

    def how_many(self, party: Party, beside: Sequence[Party]) -> int:
        """Of these, once those beside them, the choosiest first, have their places: all that find one."""
        for each in sorted(beside, key=self.choosiness):
            for _ in range(each.least):
                self.take(each)
        return sum(len(each.members) * each.times(party) for each in self._kinds.values() if each.may_run(party))

    def choosiness(self, party: Party) -> tuple[int, float, float]:
        """Smaller is choosier: fewer nodes will do, then more GPUs, then more cores."""
        return self.num_allowed(party), -party.placement.num_gpus, -party.placement.num_cpus

    def num_allowed(self, party: Party) -> int:
        """Nodes that it may run on, whether they are free or not."""
        return sum(len(each.members) for each in self._kinds.values() if each.may_run(party))

    def kinds_allowed(self, party: Party) -> list[Node]:
        """One of each kind of them."""
        return [each.node for each in self._kinds.values() if each.may_run(party)]

    def why_not(self, party: Party) -> str:
        """Why there is no place for one more."""
        allowed = [each for each in self._kinds.values() if each.may_run(party)]
        if not allowed:
            return f"no node has what it asks for ({party})"
        everywhere = self.num_allowed(party) == self.num_nodes
        which = "no node" if everywhere else "none of the nodes that it may run on"
        for resource, amount in party.needs.items():
            if not any(each.has(resource, amount) for each in allowed):
                return f"{which} has {amount:g} {resource} free{_held_by(allowed, resource)}"
        return f"{which} has all of {party} free{_held_by(allowed, None)}"


def _held_by(kinds: list[_Alike], resource: str | None) -> str:
    holders: Counter[str] = Counter()
    for each in kinds:
        if resource is None or each.node.resources.get(resource, 0.0):
            holders.update({place: count * len(each.members) for place, count in each.holders.items()})
    words = ", ".join(f"{count:,} × {place}" for place, count in holders.items())
    return f" beside {words}" if words else ""


def _order(party: Party) -> Callable[[_Alike], tuple[bool, float, float]]:
    """GPUs are left to those that ask for them; where a run does not say which kind it wants, it has to expect the
    slowest; then the fullest node, or the emptiest where it wants to be spread."""
    asks_gpu = bool(party.placement.num_gpus)
    spread = party.placement.strategy == "spread"

    def key(each: _Alike) -> tuple[bool, float, float]:
        node = each.node
        speed = ACCELERATORS[node.kind].tflops if node.kind in ACCELERATORS else 0.0
        left = sum(each.free.get(resource, 0.0) for resource in party.needs if ":" not in resource)
        return not asks_gpu and GPU in node.resources, speed if asks_gpu else 0.0, -left if spread else left

    return key


def has_label(labels: Mapping[str, str], key: str, wanted: str) -> bool:
    """As Ray reads a label selector: `value`, `!value`, `in(a,b)`, `!in(a,b)`."""
    negated, plain = wanted.startswith("!"), wanted.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", plain)
    values = [value.strip() for value in listed[1].split(",")] if listed else [plain]
    return (labels.get(key) in values) is not negated


def _devices(amount: float) -> tuple[float, ...]:
    whole = int(amount)
    return (1.0,) * whole + ((amount - whole,) if amount - whole > SLACK else ())
