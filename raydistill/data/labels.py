"""From a source's labels to arrays, one reader a kind of task; what cannot be used is a BadRow with its reason."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import DataConfig, LabelScales, TaskKind
from raydistill.data.decoding import BadRow

YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


class LabelReader(ABC):
    """Reads the labels of one task."""

    fewest_names = 1

    @abstractmethod
    def read(self, label: Any) -> Any:
        """A row's label in a form of the reader's own; None: unlabelled.

        Raises:
            BadRow: it cannot be used.
        """

    @abstractmethod
    def names(self, found: Iterable[Any]) -> tuple[str, ...]:
        """The label names in head order, from what `read` gave for all rows that have a label."""

    @abstractmethod
    def array(self, labels: Sequence[Any], names: tuple[str, ...]) -> NDArray[Any]:
        """What the prepared table holds of a split: see `Split.labels`; regression in the source's own units."""

    def useless(self, labels: NDArray[Any], names: tuple[str, ...]) -> str | None:
        """Why nothing could be measured on a split with these labels; None: it could."""
        return None


class ClassReader(LabelReader):
    """Exactly one class a row: its name, or its number."""

    fewest_names = 2

    def __init__(self, config: DataConfig, label_names: tuple[str, ...] | None) -> None:
        self.config, self.label_names = config, label_names

    def read(self, label: Any) -> str | None:
        """The class's name."""
        name = _named(label, self.label_names)
        if name is not None and self.config.label_names is not None and name not in self.config.label_names:
            raise BadRow(f"unknown label {name!r}")
        return name

    def names(self, found: Iterable[str]) -> tuple[str, ...]:
        """The config's, the source's, or those found, sorted."""
        return self.config.label_names or self.label_names or tuple(sorted(set(found)))

    def array(self, labels: Sequence[str | None], names: tuple[str, ...]) -> NDArray[np.int64]:
        """int64 [rows], −1 = none."""
        index = {name: position for position, name in enumerate(names)}
        return np.array([-1 if label is None else index[label] for label in labels], np.int64)


class NameListReader(LabelReader):
    """Multilabel, one column: a list of names (or of their numbers), or a string with names between separators.

    An empty list or string says that none of them holds. A separator alone says so too, for files that cannot tell an
    empty string from a missing one (CSV).
    """

    def __init__(self, config: DataConfig, label_names: tuple[str, ...] | None) -> None:
        self.config, self.label_names = config, label_names

    def read(self, label: Any) -> tuple[str, ...] | None:
        """The names that hold, sorted."""
        if label is None or (isinstance(label, float) and math.isnan(label)):
            return None
        if isinstance(label, str):
            parts: list[Any] = [part.strip() for part in label.split(self.config.label_separator) if part.strip()]
        elif isinstance(label, (list, tuple, np.ndarray)):
            parts = list(label)
        elif isinstance(label, (int, float)) and not isinstance(label, bool):
            parts = [label]  # a column of single numbers arrives as such
        else:
            raise BadRow(f"labels are a list of names or a string, not {type(label).__name__}")
        found = set()
        for part in parts:
            if not isinstance(part, (str, int, float, np.integer)) or isinstance(part, bool):
                raise BadRow(f"the labels hold {part!r}, which is no name")
            name = _named(part.item() if isinstance(part, np.integer) else part, self.label_names)
            if name is None:
                raise BadRow(f"the labels hold {part!r}, which is no name")
            if self.config.label_names is not None and name not in self.config.label_names:
                raise BadRow(f"unknown label {name!r}")
            found.add(name)
        return tuple(sorted(found))

    def names(self, found: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        """The config's, the source's, or those found, sorted."""
        return self.config.label_names or self.label_names or tuple(sorted({name for row in found for name in row}))

    def array(self, labels: Sequence[tuple[str, ...] | None], names: tuple[str, ...]) -> NDArray[np.float32]:
        """float32 [rows, labels]: 1 = holds, 0 = does not; a row without labels is NaN."""
        index = {name: position for position, name in enumerate(names)}
        values = np.zeros((len(labels), len(names)), np.float32)
        for row, holding in enumerate(labels):
            values[row, [index[name] for name in holding or ()]] = 1.0
            if holding is None:
                values[row] = np.nan
        return values

    def useless(self, labels: NDArray[Any], names: tuple[str, ...]) -> str | None:
        """Where no label ever holds, no ranking can be right or wrong."""
        return _never_holds(labels)


class FlagReader(LabelReader):
    """Multilabel, a column for each label: 0 or 1, or nothing where it is not known."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def read(self, label: Any) -> tuple[float, ...] | None:
        """A number for each column, NaN = not known."""
        flags = tuple(self._flag(column, value) for column, value in zip(self.columns, label, strict=True))
        return None if all(math.isnan(flag) for flag in flags) else flags

    def _flag(self, column: str, value: Any) -> float:
        if _missing(value):
            return math.nan
        word = str(value).strip().lower()
        if word not in YES | NO:
            raise BadRow(f"{column} is {value!r}, neither 0 nor 1")
        return float(word in YES)

    def names(self, found: Iterable[Any]) -> tuple[str, ...]:
        """The columns'."""
        return self.columns

    def array(self, labels: Sequence[tuple[float, ...] | None], names: tuple[str, ...]) -> NDArray[np.float32]:
        """As of `NameListReader`; NaN label by label."""
        return _filled(labels, len(names), np.float32)

    def useless(self, labels: NDArray[Any], names: tuple[str, ...]) -> str | None:
        """As of `NameListReader`."""
        return _never_holds(labels)


class NumberReader(LabelReader):
    """Regression: a number for each column, or nothing where it is not known."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def read(self, label: Any) -> tuple[float, ...] | None:
        """A number for each column, NaN = not known."""
        values = label if isinstance(label, tuple) else (label,)
        numbers = tuple(self._number(column, value) for column, value in zip(self.columns, values, strict=True))
        return None if all(math.isnan(number) for number in numbers) else numbers

    def _number(self, column: str, value: Any) -> float:
        if _missing(value):
            return math.nan
        try:
            number = math.inf if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.inf
        if math.isinf(number):
            raise BadRow(f"{column} is {value!r}, no number")
        return number

    def names(self, found: Iterable[Any]) -> tuple[str, ...]:
        """The columns'."""
        return self.columns

    def array(self, labels: Sequence[tuple[float, ...] | None], names: tuple[str, ...]) -> NDArray[np.float64]:
        """float64 [rows, labels]: standardised they fit float32, a date in seconds does not."""
        return _filled(labels, len(names), np.float64)

    def useless(self, labels: NDArray[Any], names: tuple[str, ...]) -> str | None:
        """A label without any spread has nothing to be explained."""
        for name, column in zip(names, labels.T, strict=True):
            if len(np.unique(column[~np.isnan(column)])) < 2:
                return f"fewer than two values of the label {name!r}"
        return None


def make_reader(kind: TaskKind, config: DataConfig, label_names: tuple[str, ...] | None) -> LabelReader:
    """The reader of a task's labels.

    Args:
        label_names: of the source, where it names them.
    """
    if kind == "classification":
        return ClassReader(config, label_names)
    if kind == "multilabel":
        return FlagReader(config.label_columns) if config.label_columns else NameListReader(config, label_names)
    return NumberReader(config.label_columns or (config.label_column,))


def train_scales(labels: NDArray[np.float64]) -> LabelScales:
    """Mean and deviation of each label, over the rows that have it; [rows, labels]."""
    return tuple((float(np.nanmean(column)), float(np.nanstd(column))) for column in labels.T)


def standardised(labels: NDArray[np.float64], scales: LabelScales) -> NDArray[np.float32]:
    """(label − mean) / deviation, float32 [rows, labels]."""
    mean, deviation = np.array(scales, np.float64).T
    values: NDArray[np.float32] = ((labels - mean) / deviation).astype(np.float32)
    return values


def _named(label: Any, label_names: tuple[str, ...] | None) -> str | None:
    """The name of a class that comes by name or by number."""
    if isinstance(label, float):
        label = str(int(label)) if label.is_integer() else str(label)
    if not isinstance(label, int):
        name: str | None = label
        return name
    if label_names is None:
        return str(label)
    if label == -1:
        return None  # the convention of hub data sets whose test labels are withheld
    if not 0 <= label < len(label_names):
        raise BadRow(f"unknown label {label}; there are {len(label_names)}")
    return label_names[label]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value != value


def _filled(labels: Sequence[tuple[float, ...] | None], width: int, kind: type[np.generic]) -> NDArray[Any]:
    values = np.full((len(labels), width), np.nan, kind)
    for row, given in enumerate(labels):
        if given is not None:
            values[row] = given
    return values


def _never_holds(labels: NDArray[Any]) -> str | None:
    return None if (labels == 1).any() else "no row on which a label holds"
