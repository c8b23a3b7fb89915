"""How logits are kept: all of them, or the k largest of a row and the level of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import ConfigError, SoftLabelError

Tensors = dict[str, NDArray[Any]]
"""By name, each with a row for each sample."""

DENSE_UP_TO, DEFAULT_TOP_K = 1024, 32
LARGEST = 65_504.0  # of float16
CHUNK_BYTES = 32 * 2**20  # of the float32 copy that encoding makes


@dataclass(frozen=True)
class Encoding:
    """The form of a table's rows.

    Dense: `logits`, float16 [n, num_classes], as they are.

    Top-k: `values`, float16 [n, k], the k largest logits, largest first, of equal ones the lower class first;
    `classes`, [n, k], uint16 or, above 65,536 classes, uint32; `tail`, float16 [n], the level of the rest:
    logsumexp(rest) − log(num_classes − k). Read again, every other column holds the tail, so that the softmax at
    temperature 1 has the right probabilities for the k classes and the right mass for all others (to the rounding of
    the tail to float16). At another temperature the rest is taken as flat, which it is not: `docs` gives the error.

    Attributes:
        top_k: None for dense.
    """

    num_classes: int
    top_k: int | None

    @classmethod
    def choose(cls, num_classes: int, top_k: int | None) -> Encoding:
        """What a config asks for; by default dense up to 1,024 classes, the 32 largest above.

        Raises:
            ConfigError: `top_k` is larger than the number of classes.
        """
        if top_k is None:
            return cls(num_classes, None if num_classes <= DENSE_UP_TO else DEFAULT_TOP_K)
        if top_k > num_classes:
            raise ConfigError(
                f"store.top_k is {top_k}, but there are {num_classes} classes; set it to {num_classes} at most, give "
                "it by task (store.top_k.TASK=…), or leave it out"
            )
        return cls(num_classes, None if top_k == num_classes else top_k)

    @classmethod
    def from_json(cls, num_classes: int, content: object) -> Encoding:
        """From an index. Raises ValueError where it is none."""
        if content == "dense":
            return cls(num_classes, None)
        if isinstance(content, dict) and isinstance(content.get("top_k"), int):
            return cls(num_classes, content["top_k"])
        raise ValueError(f"unknown encoding {content!r}")

    def to_json(self) -> str | dict[str, int]:
        """As it stands in an index."""
        return "dense" if self.top_k is None else {"top_k": self.top_k}

    def __str__(self) -> str:
        return "dense" if self.top_k is None else f"top {self.top_k}"

    @property
    def layout(self) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """By tensor: type and shape of a row."""
        if self.top_k is None:
            return {"logits": (np.float16, (self.num_classes,))}
        classes = np.uint16 if self.num_classes <= 1 << 16 else np.uint32
        return {"values": (np.float16, (self.top_k,)), "classes": (classes, (self.top_k,)), "tail": (np.float16, ())}

    @property
    def row_bytes(self) -> int:
        """Of a row on disk, its number included."""
        rows = np.dtype(np.uint32).itemsize
        return rows + sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in self.layout.values())

    def empty(self, num_rows: int) -> Tensors:
        """Room for that many rows."""
        return {name: np.empty((num_rows, *shape), kind) for name, (kind, shape) in self.layout.items()}

    def encode(self, logits: NDArray[np.float16]) -> Tensors:
        """From float16 [n, num_classes]; a copy.

        Raises:
            SoftLabelError: a logit is not a number, or infinite (−∞, a class ruled out, is kept).
        """
        bits = logits.view(np.uint16)
        if bool((((bits & 0x7FFF) > 0x7C00) | (bits == 0x7C00)).any()):
            raise SoftLabelError("a teacher's logits are NaN or infinite and are not kept; check the teacher")
        if self.top_k is None:
            return {"logits": logits.copy()}
        step = max(1, CHUNK_BYTES // (4 * self.num_classes))
        parts = [self._largest(logits[start : start + step]) for start in range(0, max(1, len(logits)), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.layout}

    def decode(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float16]:
        """Back to float16 [n, num_classes]; of top-k rows, the columns that were not kept hold the tail."""
        if self.top_k is None:
            logits: NDArray[np.float16] = tensors["logits"]
            return logits
        num_rows = len(tensors["tail"])
        logits = np.empty((num_rows, self.num_classes), np.float16)
        logits[:] = tensors["tail"][:, None]
        starts = np.arange(num_rows, dtype=np.intp)[:, None] * self.num_classes
        logits.reshape(-1)[starts + tensors["classes"]] = tensors["values"]
        return logits

    def _largest(self, logits: NDArray[np.float16]) -> Tensors:
        assert self.top_k is not None
        # One integer a logit, ordered as the logits are and with the class in its low bits: selecting the largest
        # integers settles ties, and integers are selected much faster than float16 numbers.
        bits = logits.view(np.uint16)
        bits = np.where(bits == 0x8000, np.uint16(0), bits)  # −0 is 0
        ordered = np.where(bits & 0x8000, ~bits, bits | 0x8000)
        wide: Any
        wide, low = (np.uint32, 16) if self.num_classes <= 1 << 16 else (np.uint64, 32)
        last = wide((1 << low) - 1)
        keys = (ordered.astype(wide) << wide(low)) | (last - np.arange(self.num_classes, dtype=wide))
        first_kept = self.num_classes - self.top_k
        kept = np.sort(np.partition(keys, first_kept, axis=1)[:, first_kept:], axis=1)[:, ::-1]
        classes = (last - (kept & last)).astype(self.layout["classes"][0])
        values = np.take_along_axis(logits, classes.astype(np.intp), axis=1)
        return {"values": values, "classes": classes, "tail": _level_of_rest(logits, classes)}


def _level_of_rest(logits: NDArray[np.float16], classes: NDArray[Any]) -> NDArray[np.float16]:
    """logsumexp(rest) − log(size of the rest), float16 [n]. From the rest itself: one minus the mass of the kept
    classes would be all rounding where the rest is small."""
    rest = logits.astype(np.float32)
    np.put_along_axis(rest, classes.astype(np.intp), -np.inf, axis=1)
    peak = np.maximum(rest.max(axis=1), -LARGEST)
    rest -= peak[:, None]
    with np.errstate(divide="ignore"):  # all of the rest is ruled out
        level = peak + np.log(np.exp(rest, out=rest).sum(axis=1) / np.float32(logits.shape[1] - classes.shape[1]))
    tail: NDArray[np.float16] = np.clip(level, -LARGEST, LARGEST).astype(np.float16)
    return tail
