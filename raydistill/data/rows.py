"""What every source hands over: rows not yet looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RawRow:
    """One row of a source.

    Attributes:
        where: names the row for people: a file, or a row number.
        value: vision: encoded bytes, a PIL image or a uint8 array; text: a string; speech: encoded bytes or
            (float32 samples, Hz).
        label: as the source has it. Classification: a name, its index in `RawData.label_names`, or None. Multilabel: a
            list of them or a string. Of `label_columns`: a tuple in their order. See `data.labels`.
        group: rows of one group never cross splits; None: the row stands alone.
    """

    where: str
    value: Any
    label: Any
    group: str | None = None


@dataclass(frozen=True)
class RawData:
    """A source's splits, as functions that start reading them, and what identifies their content."""

    splits: Mapping[str, Callable[[], Iterator[RawRow]]]
    label_names: tuple[str, ...] | None
    identity: str
