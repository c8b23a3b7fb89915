"""A plan for people: who asks for what, how fast everybody is, what takes how long, and a sentence."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.planning.nodes import CPU
from raydistill.planning.plan import Plan, Predicted
from raydistill.secrecy import presentable

WIDTH = 120  # of a file or a pipe, which has none of its own


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """All of it."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)

    def say(line: str) -> None:
        console.print(presentable(line), highlight=False, markup=False)

    if plan.asked:
        console.print(_asked(plan))
    for line in plan.there:
        say(f"there: {line}")
    for line in plan.waiting:
        say(f"waits: {line}")
    if plan.predicted is not None:
        console.print(_paces(plan.predicted))
        console.print(_stages(plan.predicted))
        hours = ", ".join(f"{_hours(amount)} {_of(kind)}" for kind, amount in plan.predicted.device_hours.items())
        when = " while teachers are asked" if plan.predicted.way != "stored" else ""
        rate = f"{plan.predicted.samples_per_s:,.0f} samples/s{when}"
        say(f"predicted: {rate}, {span(plan.predicted.wall_s)} in all; device hours held: {hours or 'none'}")
    for line in plan.remarks:
        say(f"note: {line}")
    if plan.predicted is not None:
        say(plan.predicted.verdict)


def _asked(plan: Plan) -> Table:
    table = Table(title=escape(f"{plan.name}: what it asks for"), title_justify="left")
    for heading in ("who", "each takes", "how many", "placed on"):
        table.add_column(heading, justify="right" if heading == "how many" else "left")
    for each in plan.asked:
        many = f"{each.least:,}" if each.most == each.least else f"{each.least:,}…{each.most:,}"
        placed = ", ".join(f"{count:,} on {kind}" for kind, count in each.placed.items()) or "nothing"
        table.add_row(*(escape(presentable(cell)) for cell in (each.who, each.each, many, placed)))
    return table


def _paces(predicted: Predicted) -> Table:
    table = Table(title=f"how fast everybody is (probed on {predicted.probed})", title_justify="left")
    for heading in ("who", "rows a call", "ms a call", "how many", "rows/s", "samples/s that it allows"):
        table.add_column(heading, justify="left" if heading == "who" else "right")
    for pace in predicted.paces:
        allowed = predicted.bounds.get(pace.who)
        table.add_row(
            escape(presentable(pace.who)), f"{pace.rows:,}", f"{pace.call_s * 1e3:,.1f}", f"{pace.count:,}",
            f"{pace.rows_per_s:,.0f}", "" if allowed is None else f"{allowed:,.0f}",
        )  # fmt: skip
    own = {pace.who for pace in predicted.paces}
    for name, allowed in predicted.bounds.items():
        if name not in own:
            table.add_row(escape(presentable(name)), "", "", "", "", f"{allowed:,.0f}")
    return table


def _stages(predicted: Predicted) -> Table:
    table = Table(title="what takes how long", title_justify="left")
    for heading in ("stage", "time", "samples/s", "bound by", "holds"):
        table.add_column(heading, justify="right" if heading in ("time", "samples/s") else "left")
    for stage in predicted.stages:
        rate = "" if stage.samples_per_s is None else f"{stage.samples_per_s:,.0f}"
        cells = (stage.what, span(stage.seconds), rate, stage.bound, _devices(stage.holds))
        table.add_row(*(escape(presentable(cell)) for cell in cells))
    return table


def _devices(holds: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:,.3g} {_of(kind, amount)}" for kind, amount in holds.items() if amount)


def _of(kind: str, amount: float = 0.0) -> str:
    return ("core" if amount == 1 else "cores") if kind == CPU else kind


def _hours(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.2g}"


def span(seconds: float) -> str:
    """A duration for people: `1 h 5 min`, `4 min 20 s`, `12 s`, `0.4 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
