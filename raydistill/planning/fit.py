"""Whether a run fits onto nodes: who has room, who waits for whom, and who never gets any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raydistill.planning.demand import Party, Together
from raydistill.planning.nodes import TYPE_RESOURCE, Node, total
from raydistill.planning.room import SLACK, Room, Spot


@dataclass(frozen=True)
class Fit:
    """How parties lie on the nodes.

    Attributes:
        placed: where each is, by role and name: teachers and students of the same time; who is trained lies alone.
        waiting: a line for each party that does not have all that it asks for.
        never: why the run cannot go on at all; empty where it can.
        room: by name, what is left beside it and those of the same time.
    """

    placed: dict[tuple[str, str], tuple[Spot, ...]]
    waiting: tuple[str, ...] = ()
    never: str = ""
    room: dict[str, Room] = field(default_factory=dict)


def fit(wanted: Sequence[Together], nodes: Sequence[Node]) -> Fit:
    """Put everybody somewhere, the choosiest first.

    Ray places in the order in which it is asked, without a look ahead: where this finds room, Ray may still leave gaps
    that nobody fits into, if nodes are almost full.
    """
    placed: dict[tuple[str, str], tuple[Spot, ...]] = {}
    rooms: dict[str, Room] = {}
    waiting: list[str] = []
    for together in wanted:
        never = refusal(together.parties, nodes)
        if never:
            return Fit(placed, tuple(waiting), never, rooms)
        room = Room(nodes)
        by_choosiness = sorted(together.parties, key=room.choosiness)
        spots: dict[str, list[Spot]] = {party.name: [] for party in together.parties}
        # First what cannot be done without: one replica of each teacher, and the workers.
        for goal in ("fewest", "least"):
            for party in by_choosiness:
                while len(spots[party.name]) < getattr(party, goal) and (spot := room.take(party)) is not None:
                    spots[party.name].append(spot)
        for party in together.parties:
            found = spots[party.name]
            placed[party.role, party.name] = tuple(found)
            rooms[party.name] = room
            if len(found) < party.least:
                line = f"{party.place}: {party.least - len(found)} of {party.least} wait: {room.why_not(party)}"
                waiting.append(line)
                if len(found) < party.fewest:
                    return Fit(placed, tuple(waiting), f"{line}; lower the placements or use a larger cluster", rooms)
    return Fit(placed, tuple(waiting), "", rooms)


def refusal(parties: Sequence[Party], nodes: Sequence[Node]) -> str:
    """Why these can never be there at the same time, whatever their order; empty where they can.

    What is refused here is what a run's own preflight refuses: too much of a resource in sum, or too much for the nodes
    that one of them may run on.
    """
    asked: dict[str, list[tuple[str, float]]] = {}
    everything = Room(nodes)
    for party in parties:
        if not everything.num_allowed(party):
            kind = party.placement.accelerator_type
            if kind and not total(nodes, f"{TYPE_RESOURCE}{kind}"):
                return f"no node of the cluster has the accelerator_type {kind!r} that {party.place} asks for"
            wanted = dict(party.placement.label_selector)
            return f"no node of the cluster has the labels {wanted} that {party.place}.label_selector asks for"
        for resource, amount in party.needs.items():
            asked.setdefault(resource, []).append((party.place, amount * party.required))
    for resource, asks in asked.items():
        amount, there = sum(each for _, each in asks), total(nodes, resource)
        if amount > there + SLACK:
            who = ", ".join(f"{place} {each:g}" for place, each in asks)
            return (
                f"the run asks for {amount:g} {resource} ({who}) and the cluster has {there:g}; lower the placements "
                "or use a larger cluster (ray.address)"
            )
    for party in parties:
        room, held = Room(nodes), 0
        while party.needs and held < party.required and room.take(party) is not None:
            held += 1
        if party.needs and held < party.required:
            return (
                f"{party.place} asks for {party} on one node, {party.required} times, and the nodes of the cluster "
                f"hold {held}; lower it or use larger nodes"
            )
    return ""
