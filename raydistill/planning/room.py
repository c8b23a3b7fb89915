"""Where there is room: actors put onto nodes one by one, each whole on one node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


class Room:
    """What is free on each node, as actors take their places."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self._free = [dict(node.resources) for node in nodes]
        self._gpus = [_devices(node.resources.get(GPU, 0.0)) for node in nodes]
        self._holders: list[Counter[str]] = [Counter() for _ in nodes]

    def take(self, party: Party) -> Spot | None:
        """A place for one more of these; None where there is none. Which node is the best one: see `_order`."""
        best = min((at for at in self.allowed(party) if self._holds(at, party)), key=self._order(party), default=None)
        if best is None:
            return None
        gpus = self._take_gpus(best, party.placement.num_gpus)
        for resource, amount in party.needs.items():
            self._free[best][resource] -= amount
        self._holders[best][party.place] += 1
        return Spot(best, gpus)

    def allowed(self, party: Party) -> list[int]:
        """Nodes that have its labels and its type of accelerator, whether they are free or not."""
        placement = party.placement
        return [
            at
            for at, node in enumerate(self.nodes)
            if all(has_label(node.labels, key, value) for key, value in placement.label_selector.items())
            and all(resource in node.resources for resource in party.needs if ":" in resource)
        ]

    def why_not(self, party: Party) -> str:
        """Why there is no place for one more."""
        allowed = self.allowed(party)
        if not allowed:
            return f"no node has what it asks for ({party})"
        which = "no node" if len(allowed) == len(self.nodes) else "none of the nodes that it may run on"
        for resource, amount in party.needs.items():
            if not any(self._has(at, resource, amount) for at in allowed):
                return f"{which} has {amount:g} {resource} free{self._held_by(allowed, resource)}"
        return f"{which} has all of {party} free{self._held_by(allowed, None)}"

    def _held_by(self, allowed: list[int], resource: str | None) -> str:
        holders: Counter[str] = Counter()
        for at in allowed:
            if resource is None or self.nodes[at].resources.get(resource, 0.0):
                holders.update(self._holders[at])
        words = ", ".join(f"{count:,} × {place}" for place, count in holders.items())
        return f" beside {words}" if words else ""

    def _holds(self, at: int, party: Party) -> bool:
        return all(self._has(at, resource, amount) for resource, amount in party.needs.items())

    def _has(self, at: int, resource: str, amount: float) -> bool:
        if self._free[at].get(resource, 0.0) + SLACK < amount:
            return False
        if resource != GPU:
            return True
        if amount < 1:  # a part is of one device
            return any(free + SLACK >= amount for free in self._gpus[at])
        return sum(free + SLACK >= 1 for free in self._gpus[at]) >= int(amount)

    def _take_gpus(self, at: int, amount: float) -> tuple[int, ...]:
        devices = self._gpus[at]
        if not amount:
            return ()
        if amount < 1:
            # The fullest that still has room, so that whole ones stay whole.
            chosen = [min((i for i, free in enumerate(devices) if free + SLACK >= amount), key=lambda i: devices[i])]
        else:
            chosen = [i for i, free in enumerate(devices) if free + SLACK >= 1][: int(amount)]
        for device in chosen:
            devices[device] -= min(amount, 1.0)
        return tuple(chosen)

    def _order(self, party: Party) -> Callable[[int], tuple[bool, float, float, int]]:
        """GPUs are left to those that ask for them; where a run does not say which kind it wants, it has to expect the
        slowest; then the fullest node, or the emptiest where it wants to be spread."""
        asks_gpu = bool(party.placement.num_gpus)
        spread = party.placement.strategy == "spread"

        def key(at: int) -> tuple[bool, float, float, int]:
            node = self.nodes[at]
            speed = ACCELERATORS[node.kind].tflops if node.kind in ACCELERATORS else 0.0
            left = sum(self._free[at].get(each, 0.0) for each in party.needs if ":" not in each)
            return not asks_gpu and GPU in node.resources, speed if asks_gpu else 0.0, -left if spread else left, at

        return key


def has_label(labels: Mapping[str, str], key: str, wanted: str) -> bool:
    """As Ray reads a label selector: `value`, `!value`, `in(a,b)`, `!in(a,b)`."""
    negated, plain = wanted.startswith("!"), wanted.removeprefix("!")
    listed = re.fullmatch(r"in\((.*)\)", plain)
    values = [value.strip() for value in listed[1].split(",")] if listed else [plain]
    return (labels.get(key) in values) is not negated


def _devices(amount: float) -> list[float]:
    whole = int(amount)
    return [1.0] * whole + ([amount - whole] if amount - whole > SLACK else [])
