"""`raydistill methods`: every method that a config can name, told by the docstring of the code that is it."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from raydistill.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """One of them.

    Attributes:
        name: as a config writes it.
        kind: of method.
        key: where a config writes it.
        summary, formula, remarks, source, use: the parts of its docstring, as plain text.
        options: dotted path of its options in a config; None: it has none.
    """

    name: str
    kind: str
    key: str
    summary: str
    formula: str
    remarks: str
    source: str
    use: str
    options: str | None = None


KINDS = {
    "soft losses": "distill.loss",
    "features": "distill.features.NAME.loss",
    "fusing teachers": "distill.fusion",
    "balancing tasks": "distill.balancing",
    "trunks": "student.trunk",
}


def catalogue() -> list[Method]:
    """All methods, kind by kind."""
    from raydistill.balancing import gradient, plain, scalar
    from raydistill.config.distill import BalancingOptions, FusionOptions, LossOptions
    from raydistill.config.student import StudentConfig
    from raydistill.fusion import combining, weighting
    from raydistill.losses.binary import soft_binary_cross_entropy
    from raydistill.losses.features.registry import FEATURE_LOSSES
    from raydistill.losses.regression import soft_regression
    from raydistill.losses.soft_losses import SOFT_LOSSES
    from raydistill.losses.standardize import standardize
    from raydistill.student.trunks import TRUNKS

    found: list[Method] = []

    def add(kind: str, told: Mapping[str, Any], options: Any = None, at: str = "") -> None:
        sections = options.model_fields if options else {}
        for name, thing in told.items():
            method = told_by(name, kind, thing)
            found.append(replace(method, options=f"{at}.{name}") if name in sections else method)

    losses = {name: loss.function for name, loss in SOFT_LOSSES.items()}
    add("soft losses", losses, LossOptions, "distill.loss_options")
    found.append(replace(told_by("standardize", "soft losses", standardize), key="distill"))
    # Of the other kinds of task, which have no choice: written where a task's own loss is.
    for name, function in (("bce", soft_binary_cross_entropy), ("regression", soft_regression)):
        found.append(replace(told_by(name, "soft losses", function), key="distill.task_losses.TASK"))
    add("features", {name: loss.function for name, loss in FEATURE_LOSSES.items()})
    fusing = {
        "mean_logits": combining.mean_of_logits,
        "mean_probabilities": combining.mean_of_probabilities,
        "best": weighting.by_accuracy,
        "entropy": weighting.by_entropy,
        "confidence": weighting.by_confidence,
        "aekd": weighting.by_gradients,
        "gate": weighting.Gate,
    }
    add("fusing teachers", fusing, FusionOptions, "distill.fusion_options")
    balancing = {**plain.PLAIN, **scalar.METHODS, **gradient.METHODS}
    add("balancing tasks", balancing, BalancingOptions, "distill.balancing_options")
    add("trunks", TRUNKS, StudentConfig, "student")
    return found


def told_by(name: str, kind: str, thing: Any) -> Method:
    """What a docstring says: summary, an indented formula, remarks, `Source: …`, `Use it when …`."""
    text = inspect.cleandoc(thing.__doc__ or "").split("\nArgs:")[0]
    parts = re.split(r"\n\s*\n", text)
    summary, formula, remarks, source, use = parts[0], "", [], "", ""
    for part in parts[1:]:
        if part.startswith("    ") and not formula:
            formula = inspect.cleandoc(part)
        elif part.startswith("Source:"):
            source = part.removeprefix("Source:")
        elif part.startswith("Use it when"):
            use = part
        elif not part.startswith(("Returns:", "Raises:", "Attributes:")):
            remarks.append(part)
    told = " ".join(_one_line(part) for part in remarks)
    return Method(name, kind, KINDS[kind], _one_line(summary), formula, told, _one_line(source), _one_line(use))


def _one_line(words: str) -> str:
    return " ".join(words.replace("`", "").split())


def list_methods(name: str | None = None) -> None:
    """Print all methods by kind, or all that is known of one.

    Raises:
        ConfigError: there is none of that name.
    """
    found = catalogue()
    console = Console(width=None if Console().is_terminal else 110)
    if name is None:
        for kind, key in KINDS.items():
            table = Table(title=f"{kind} ({key})", title_justify="left")
            table.add_column("name", no_wrap=True)
            table.add_column("what it does, and when to use it")
            for method in found:
                if method.kind == kind:
                    table.add_row(escape(method.name), escape(f"{method.summary}\n{method.use}"))
            console.print(table)
        console.print(
            "raydistill methods NAME: formula, source and options of one; docs/methods.md has all", highlight=False
        )
        return
    named = [method for method in found if method.name == name]
    if not named:
        near = difflib.get_close_matches(name, [method.name for method in found], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "`raydistill methods` lists them"
        raise ConfigError(f"there is no method {name!r}; {hint}")
    for method in named:
        console.print("\n".join(_all_of(method)), highlight=False, markup=False)


def _all_of(method: Method) -> list[str]:
    lines = [f"{method.key}: {method.name}", "", method.summary]
    lines += ["", *(f"    {line}" for line in method.formula.splitlines())] if method.formula else []
    lines += ["", *(part for part in (method.remarks, method.use, f"Source: {method.source}") if part)]
    return [*lines, f"Options: {method.options}.*"] if method.options else lines


def markdown() -> str:
    """The methods as a page."""
    parts = []
    for kind, key in KINDS.items():
        parts.append(f"\n## {kind[0].upper()}{kind[1:]}: `{key}`\n")
        for method in catalogue():
            if method.kind != kind:
                continue
            parts.append(f"### `{method.name}`\n\n{method.summary}\n")
            if method.formula:
                parts.append(f"```text\n{method.formula}\n```\n")
            parts += [f"{part}\n" for part in (method.remarks, method.use) if part]
            parts.append(f"*Source:* {method.source}\n")
            if method.options:
                parts.append(f"*Options:* [`{method.options}`](config.md)\n")
    return "\n".join(parts)
