"""A search space, as data: what is searched, by which measure, and how. Imports neither torch nor ray nor optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from raydistill.commands.in_job import place_to_write
from raydistill.config.basics import Frozen
from raydistill.config.mistakes import explain
from raydistill.config.text import expand, read_mapping
from raydistill.errors import ConfigError
from raydistill.secrecy import without_secrets

Goal = Literal["max", "min"]
Sampler = Literal["tpe", "gp", "nsga2", "random", "grid"]
Scheduler = Literal["asha", "hyperband", "median", "none"]
# Of what `raydistill tune` finds by name: beside the package in a clone, within it where it was installed.
FOLDER = "search_spaces"
MOST_POINTS = 100_000  # of a grid


class Parameter(Frozen):
    """One searched value: `{float: [low, high]}`, `{int: [low, high]}` or `{choice: [a, b, …]}`."""

    float_range: tuple[float, float] | None = Field(None, alias="float", description="both ends included")
    int_range: tuple[int, int] | None = Field(None, alias="int", description="both ends included")
    choice: tuple[Any, ...] | None = None
    log: bool = Field(False, description="search its logarithm")
    step: float | None = Field(None, gt=0.0, description="the grid that values lie on, from `low` on")
    when: dict[str, Any] = Field({}, description="searched only where these paths have these values, or one of a list")

    @field_validator("float_range", "int_range", mode="before")
    @classmethod
    def _is_a_range(cls, value: Any) -> Any:
        if value is None:  # as a space that was written down has it
            return value
        if not isinstance(value, list | tuple) or len(value) != 2 or any(isinstance(end, bool) for end in value):
            raise ValueError("write both ends as numbers: [low, high]")
        return value

    @model_validator(mode="after")
    def _is_one_thing(self) -> Parameter:
        given = [name for name in ("float_range", "int_range", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of float, int and choice")
        if self.choice is not None:
            if not self.choice:
                raise ValueError("choice is empty; give the values to choose from")
            twice = [value for index, value in enumerate(self.choice) if value in self.choice[:index]]
            if twice:
                raise ValueError(f"choice has {twice[0]!r} twice; remove one")
            if self.log or self.step is not None:
                raise ValueError("log and step go with float and int, not with choice")
            return self
        low, high = self.bounds
        if low == high:
            raise ValueError(f"the range is empty: both ends are {low:g}; a fixed value belongs into constants")
        if low > high:
            raise ValueError(f"low is {low:g} and high is {high:g}; swap them")
        if self.log and low <= 0:
            raise ValueError(f"log needs a range above 0, and low is {low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together; leave one out")
        if self.int_range is not None and self.step is not None and self.step != int(self.step):
            raise ValueError(f"step is {self.step:g}; an int needs a whole one")
        if self.step is not None and not _is_whole((high - low) / self.step):
            nearest = low + max(1, int((high - low) / self.step)) * self.step
            raise ValueError(f"steps of {self.step:g} from {low:g} miss {high:g}; end at {nearest:g}, say")
        return self

    def __str__(self) -> str:
        if self.choice is not None:
            return str(list(self.choice))
        low, high = self.bounds
        return f"{low:g}…{high:g}" + (f" in steps of {self.step:g}" if self.step else "")

    @property
    def bounds(self) -> tuple[float, float]:
        """Low and high; of a range."""
        found = self.float_range or self.int_range
        assert found is not None
        return found

    def examples(self) -> list[Any]:
        """Values that must be possible: every choice, or both ends and one between."""
        if self.choice is not None:
            return list(self.choice)
        low, high = self.bounds
        step = self.step or (1 if self.int_range else 0)
        between = low + (step if step else (high - low) * 0.3819)
        found = [low, high, min(high, between)]
        return [int(value) for value in found] if self.int_range else found

    def known_as(self, value: Any) -> Any:
        """A value as Optuna keeps it: where choices are lists or mappings, their number."""
        if self.choice is None or all(
            each is None or isinstance(each, str | int | float | bool) for each in self.choice
        ):
            return value
        return self.choice.index(value)

    def allows(self, value: Any) -> bool:
        """Whether it could be suggested."""
        if self.choice is not None:
            return value in self.choice
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.bounds
        step = self.step or (1 if self.int_range else None)
        return low <= value <= high and (step is None or _is_whole((value - low) / step))

    @property
    def num_values(self) -> int | None:
        """How many there are; None where they are endless."""
        if self.choice is not None:
            return len(self.choice)
        low, high = self.bounds
        step = self.step or (1 if self.int_range and not self.log else None)
        return None if step is None else round((high - low) / step) + 1

    @property
    def grid(self) -> list[Any]:
        """All its values, where they end."""
        if self.choice is not None:
            return list(self.choice)
        low, _ = self.bounds
        values = [low + index * (self.step or 1) for index in range(self.num_values or 0)]
        return [int(value) for value in values] if self.int_range else values


class Bound(Frozen):
    """What a measure has to keep to; trials that do not are never the best."""

    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Bound:
        if self.at_most is None and self.at_least is None:
            raise ValueError("give at_most or at_least")
        if self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            raise ValueError(f"nothing is at_most {self.at_most:g} and at_least {self.at_least:g}")
        return self

    def excess(self, value: float) -> float:
        """How far beyond; 0 and less where it is kept to."""
        over = [] if self.at_most is None else [value - self.at_most]
        under = [] if self.at_least is None else [self.at_least - value]
        return max(over + under)


class SearchConfig(Frozen):
    """How the space is searched."""

    sampler: Sampler = "tpe"
    scheduler: Scheduler = Field("none", description="stops trials that fall behind; with one objective only")
    num_trials: PositiveInt = 16
    time_budget_s: float | None = Field(None, gt=0.0, description="no trial begins after this long")
    max_concurrent_trials: PositiveInt | Literal["auto"] = Field("auto", description="as many as the cluster holds")
    seed: int = Field(0, ge=0, lt=2**32)
    initial_points: tuple[dict[str, Any], ...] = Field((), description="tried first; the defaults always are")

    @field_validator("num_trials", "max_concurrent_trials", "seed", mode="before")
    @classmethod
    def _is_no_answer(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"a number is wanted, not {str(value).lower()}")
        return value


class Space(Frozen):
    """A whole search."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    config: str = Field("demo", description="recipe or file that is searched around")
    base: dict[str, Any] = Field({}, description="dotted path: value; the setting, of trials, defaults and baseline")
    constants: dict[str, Any] = Field({}, description="dotted path: value; of trials only")
    space: dict[str, Parameter] = Field({}, description="dotted path: what to search; `*` stands for every name there")
    define: str | None = Field(None, description="module:function of an Optuna trial; returns {dotted path: value}")
    objective: dict[str, Goal] = Field({"retention": "max"}, min_length=1)
    constraints: dict[str, Bound] = Field({}, description="measure: what it has to keep to")
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Space:
        if not self.space and self.define is None:
            raise ValueError("space is empty; name at least one path to search")
        if self.space and self.define is not None:
            raise ValueError("space and define do not go together; search all in one of them")
        search = self.search
        if len(self.objective) > 1 and search.scheduler != "none":
            raise ValueError(
                f"search.scheduler {search.scheduler} stops trials by one objective, and there are "
                f"{len(self.objective)} ({', '.join(self.objective)}): a trial behind in one may lead in another; "
                "set it to none, or search one"
            )
        if search.sampler == "nsga2" and len(self.objective) == 1:
            raise ValueError("search.sampler nsga2 is for several objectives; use tpe")
        if search.sampler == "grid":
            endless = [path for path, each in self.space.items() if each.num_values is None]
            if endless or self.define:
                raise ValueError(
                    f"search.sampler grid needs a step: {', '.join(endless) or 'define'} has endless values"
                )
            conditional = [path for path, each in self.space.items() if each.when]
            if conditional:
                raise ValueError(f"search.sampler grid knows no `when` ({', '.join(conditional)}); use tpe or random")
            points = math.prod(each.num_values or 0 for each in self.space.values())
            if points > MOST_POINTS:
                raise ValueError(f"the grid has {points:,} points; use larger steps, or tpe or random")
        return self


def load_space(source: Space | str | Path | Mapping[str, Any]) -> Space:
    """A checked search space; whether its paths exist is for `check_space` to say.

    Args:
        source: a YAML file, the name of one in search_spaces/, the content, or a space.

    Raises:
        ConfigError: unreadable, an unknown key, or parts that do not fit together. One line.
    """
    if isinstance(source, Space):
        return source
    if isinstance(source, Mapping):
        where, content = "search space", dict(source)
    else:
        path = _find(source)
        where, content = str(path), {"name": path.stem, **read_mapping(path)}
    try:
        return Space.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Space)}") from None


def sweep_path(space: Space, out: str | Path | None) -> Path:
    """`--out`, or runs/tune-NAME: see `place_to_write`.

    Raises:
        ConfigError: it is a URL.
    """
    place = place_to_write(out, f"tune-{space.name}")
    if isinstance(place, str):
        raise ConfigError(
            f"a sweep cannot lie at the URL {without_secrets(place)}, since its trials share the files of one folder; "
            f"name a folder on storage that every node sees, such as --out /shared/runs/tune-{space.name}"
        )
    return place


def list_spaces() -> dict[str, Path]:
    """The spaces that can be named: those of ./search_spaces and those that come with raydistill."""
    package = Path(__file__).parents[1]
    shipped = package / FOLDER if (package / FOLDER).is_dir() else package.parent / FOLDER
    return {path.stem: path for folder in (shipped, Path(FOLDER)) for path in sorted(folder.glob("*.yaml"))}


def _is_whole(steps: float) -> bool:
    return abs(steps - round(steps)) < 1e-6


def _find(source: str | Path) -> Path:
    path = expand(source)
    if path.is_file():
        return path
    named = list_spaces()
    if str(source) in named:
        return named[str(source)]
    raise ConfigError(
        f"no search space {str(source)!r}: no such file, and the named ones are {', '.join(sorted(named))}"
    )
