"""Which rows of a table are known, and where each one is: in a mapped shard, or still in memory."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.soft_labels.encoding import Encoding, Tensors
from raydistill.soft_labels.shards import Shard, gather

POSITION_BITS = 32


class RowIndex:
    """Row → place, 8 bytes a row.

    One thread at a time changes it; any may read meanwhile: a row's place is one number, and what it points to is there
    before it is.
    """

    def __init__(self, num_rows: int, encoding: Encoding) -> None:
        self._places = np.full(num_rows, -1, np.int64)  # source × 2³² + position, −1: unknown
        self._sources: list[Tensors] = []
        self._encoding = encoding
        self.num_known = 0

    def known(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the rows are somewhere."""
        known: NDArray[np.bool_] = self._places[rows] >= 0
        return known

    def read(self, rows: NDArray[np.int64]) -> Tensors | None:
        """The rows as they are kept, in this order; None where one is unknown."""
        while True:
            places = self._places[rows]
            if not len(places):
                return self._encoding.empty(0)
            if places.min() < 0:
                return None
            try:
                return gather(
                    self._encoding, self._sources, places >> POSITION_BITS, places & ((1 << POSITION_BITS) - 1)
                )
            except KeyError:
                continue  # another thread forgot a source between the two lines: its rows are elsewhere by now

    def change(self, added: list[Shard], forgotten: list[int]) -> list[int]:
        """Learn of shards and forget sources, in one step for those who read. A row that is known stays where it is.

        Returns:
            The number of each new source.
        """
        free = np.zeros(len(self._sources) + len(added) + 1, bool)
        free[forgotten] = True
        free[-1] = True  # of the unknown ones, whose place is −1
        numbers = []
        for shard in added:
            numbers.append(self.open_source(shard.tensors))
            takes = np.flatnonzero(free[self._places[shard.rows] >> POSITION_BITS])
            self._places[shard.rows[takes]] = (numbers[-1] << POSITION_BITS) + takes
        if forgotten:
            self._places[(self._places >= 0) & free[self._places >> POSITION_BITS]] = -1
            for number in forgotten:
                self._sources[number] = {}
        if added or forgotten:
            self.num_known = int(np.count_nonzero(self._places >= 0))
        return numbers

    def open_source(self, tensors: Tensors) -> int:
        """A new source, of which nothing is known yet."""
        self._sources.append(tensors)
        return len(self._sources) - 1

    def move(self, number: int, tensors: Tensors) -> None:
        """The source's rows are in other tensors now, at the same positions."""
        self._sources[number] = tensors

    def place(self, number: int, rows: NDArray[np.int64], first: int) -> None:
        """Unknown rows, none twice, are at positions first, first + 1, … of the source."""
        self._places[rows] = (number << POSITION_BITS) + first + np.arange(len(rows))
        self.num_known += len(rows)


class Buffer:
    """Rows that are not on disk yet.

    Args:
        index: hears of them at once.
    """

    def __init__(self, index: RowIndex, encoding: Encoding) -> None:
        self._index, self._room = index, 0
        self._tensors: dict[str, NDArray[Any]] = {"rows": np.empty(0, np.uint32), **encoding.empty(0)}
        self.number = index.open_source(self._tensors)
        self.num_rows, self._row_bytes, self._began = 0, encoding.row_bytes, time.monotonic()

    def append(self, rows: NDArray[np.int64], tensors: Tensors) -> None:
        """Unknown rows, none twice."""
        end = self.num_rows + len(rows)
        if end > self._room:
            self._room = max(end, 2 * self._room)
            grown = {
                name: np.empty((self._room, *tensor.shape[1:]), tensor.dtype) for name, tensor in self._tensors.items()
            }
            for name, tensor in grown.items():
                tensor[: self.num_rows] = self._tensors[name][: self.num_rows]
            self._tensors = grown
            self._index.move(self.number, grown)
        for name, tensor in {"rows": rows, **tensors}.items():
            self._tensors[name][self.num_rows : end] = tensor
        self._index.place(self.number, rows, self.num_rows)
        self.num_rows = end

    def shard(self) -> Shard:
        """What is in it, to be written."""
        tensors = {name: tensor[: self.num_rows] for name, tensor in self._tensors.items()}
        return Shard(tensors.pop("rows"), tensors)

    @property
    def size_bytes(self) -> int:
        """Of its rows on disk."""
        return self.num_rows * self._row_bytes

    @property
    def age_s(self) -> float:
        """Since the first of its rows came."""
        return time.monotonic() - self._began
