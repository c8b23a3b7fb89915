"""A mistake in a config, in one line that names the key, its place and the nearest valid one."""

from __future__ import annotations

import difflib
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from raydistill.secrecy import without_secrets

UNION_PARTS = ("constrained-", "dict[")  # what pydantic calls the types of a union


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem, and how many more.

    Args:
        model: that was validated.
    """
    problems = _by_place(error)
    # An unknown key often causes others ("field required"): it explains them.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        text = f"unknown key {place!r}"
        valid = sorted(_valid_keys(model, first["loc"][:-1]))
        near = difflib.get_close_matches(str(first["loc"][-1]), valid, n=1, cutoff=0.5)
        text += f"; did you mean {near[0]!r}?" if near else f"; valid here: {', '.join(valid)}"
    elif first["type"] == "missing":
        text = f"key {place!r} is missing"
    elif first["type"] in ("model_type", "dict_type"):
        text = f"{place}: a section of `key: value` is wanted (got {repr(first['input'])[:60]})"
    elif first["type"] == "value_error":
        text = f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"
    else:
        shown = repr(first["input"])
        text = f"{place}: {first['msg'][0].lower()}{first['msg'][1:]} (got {shown[:60]})"
    more = len(problems) - 1
    return without_secrets(text) + (f" (and {more} more problem{'s' if more > 1 else ''})" if more else "")


def _by_place(error: ValidationError) -> list[ErrorDetails]:
    """Where one of several types would do, each has its say, under its own name: the one that got furthest is told."""
    found: list[ErrorDetails] = []
    for problem in error.errors(include_url=False):
        place = tuple(part for part in problem["loc"] if not str(part).startswith(UNION_PARTS))
        if place == problem["loc"]:
            found.append(problem)
            continue
        problem["loc"] = place
        if found and found[-1]["loc"] == place:
            continue
        if found and found[-1]["loc"] == place[: len(found[-1]["loc"])]:
            found.pop()
        found.append(problem)
    return found


def _valid_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys of the section at `location`, found by walking the models."""
    skip = False
    for part in location:
        if skip:  # a name of the user's own: tasks.NAME, teachers.NAME
            skip = False
            continue
        field = model.model_fields.get(str(part))
        found = _section(field) if field else None
        if found is None:
            return set()
        model, skip = found
    return {field.alias or name for name, field in model.model_fields.items()}


def _section(field: FieldInfo) -> tuple[type[BaseModel], bool] | None:
    """The section inside a field, and whether names stand between (`dict[str, Section]`)."""
    pending = [(field.annotation, False)]
    while pending:
        kind, named = pending.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind, named
        arguments = get_args(kind)
        pending += [(argument, named or getattr(kind, "__origin__", None) is dict) for argument in arguments]
    return None
