"""A shard: a safetensors file with some rows of a table, in the order in which they came; never changed."""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from raydistill.atomic import replacing
from raydistill.soft_labels.encoding import Encoding, Tensors
from raydistill.soft_labels.index import LabelKey, ShardEntry

PREFIX, SUFFIX = "shard-", ".safetensors"
TYPES = {"F16": np.float16, "U16": np.uint16, "U32": np.uint32}
HASHED_BYTES = 2**20


class DamagedShard(Exception):
    """Torn, changed, or of another table: says which."""


@dataclass(frozen=True)
class Shard:
    """Rows at hand: mapped from a file, or still in memory.

    Attributes:
        rows: uint32 [n], which rows of the split these are.
        tensors: see `Encoding`.
    """

    rows: NDArray[np.uint32]
    tensors: Tensors


def write_shard(folder: Path, key: LabelKey, shard: Shard) -> ShardEntry:
    """A new file, whole or not at all. Raises OSError."""
    content = save(
        {"rows": shard.rows, **{name: np.ascontiguousarray(tensor) for name, tensor in shard.tensors.items()}},
        metadata={"key": key.text},
    )
    name = f"{PREFIX}{uuid.uuid4().hex[:16]}{SUFFIX}"
    with replacing(folder / name) as temporary:
        temporary.write_bytes(content)
    return ShardEntry(name, len(shard.rows), hashlib.sha256(content).hexdigest(), len(content))


def open_shard(path: Path, entry: ShardEntry, key: LabelKey, num_rows: int, encoding: Encoding) -> Shard:
    """Map a file, so that reading costs no memory of ours. The checksum is `check_shard`'s business.

    Raises:
        FileNotFoundError: it is gone. DamagedShard: it is torn or belongs to something else.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != entry.bytes:
            raise DamagedShard(f"is torn ({os.fstat(file.fileno()).st_size:,} bytes of {entry.bytes:,})")
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            owner, tensors = _parse(mapped)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedShard(f"is damaged ({type(error).__name__})") from error
    if owner != key.text:
        raise DamagedShard("belongs to another teacher or data set")
    layout = {"rows": (np.uint32, ()), **encoding.layout}
    expected = {name: (np.dtype(kind), (entry.num_rows, *shape)) for name, (kind, shape) in layout.items()}
    if {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} != expected:
        raise DamagedShard("holds something else than the index says")
    rows = tensors.pop("rows")
    if rows.size and rows.max() >= num_rows:
        raise DamagedShard("has rows that the table has not")
    return Shard(rows, tensors)


def _parse(mapped: mmap.mmap) -> tuple[str, Tensors]:
    """Whose it is, and its tensors. A safetensors file is: the header's length as 8 bytes, the header as JSON, data."""
    start = 8 + int.from_bytes(mapped[:8], "little")
    header: dict[str, Any] = json.loads(mapped[8:start])
    owner = str(header.pop("__metadata__", {}).get("key"))
    tensors: Tensors = {}
    for name, about in header.items():
        kind, shape, (first, last) = np.dtype(TYPES[about["dtype"]]), tuple(about["shape"]), about["data_offsets"]
        flat = np.frombuffer(mapped, kind, (last - first) // kind.itemsize, start + first)
        tensors[name] = flat.reshape(shape)
    return owner, tensors


def check_shard(path: Path, entry: ShardEntry) -> None:
    """Read the whole file and compare its checksum.

    Raises:
        FileNotFoundError: it is gone. DamagedShard: it is not what was written.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(HASHED_BYTES):
            digest.update(chunk)
            size += len(chunk)
    if size != entry.bytes:
        raise DamagedShard(f"is torn ({size:,} bytes of {entry.bytes:,})")
    if digest.hexdigest() != entry.sha256:
        raise DamagedShard("has a wrong checksum")


def merged(shards: list[Shard], encoding: Encoding, shard_bytes: int) -> Iterator[Shard]:
    """The same rows sorted, each once, in shards of bounded size; one of them is in memory at a time.

    Args:
        shards: where two have the same row, the first counts.
    """
    rows, first = np.unique(np.concatenate([shard.rows for shard in shards]), return_index=True)
    starts = np.cumsum([0, *(len(shard.rows) for shard in shards)])
    at_once = max(1, shard_bytes // encoding.row_bytes)
    for start in range(0, len(rows), at_once):
        some = first[start : start + at_once]
        slots = np.searchsorted(starts, some, side="right") - 1
        tensors = gather(encoding, [shard.tensors for shard in shards], slots, some - starts[slots])
        yield Shard(rows[start : start + at_once], tensors)


def gather(
    encoding: Encoding, sources: Sequence[Tensors], slots: NDArray[np.intp], positions: NDArray[np.intp]
) -> Tensors:
    """Rows from several places, in the order asked; `slots` says where a row is, `positions` which it is there.

    Raises:
        KeyError: a place has no tensors.
    """
    order = np.argsort(slots.astype(np.uint16), kind="stable")  # sixteen bits are sorted by counting
    slots, positions = slots[order], positions[order]
    cuts = [0, *(np.flatnonzero(slots[1:] != slots[:-1]) + 1).tolist(), len(slots)]
    if len(cuts) == 2:
        only = sources[int(slots[0])]
        return {name: only[name].take(positions, axis=0) for name in encoding.layout}
    # Taken place by place into one block, then put in order: fewer small operations than scattering each place's rows.
    # `clip` spares NumPy a copy for the case that a position is out of range; none is.
    found = encoding.empty(len(slots))
    for start, end in itertools.pairwise(cuts):
        source, some = sources[int(slots[start])], positions[start:end]
        for name, tensor in found.items():
            source[name].take(some, axis=0, out=tensor[start:end], mode="clip")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return {name: tensor.take(back, axis=0, mode="clip") for name, tensor in found.items()}
