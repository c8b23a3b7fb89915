"""A store of ImageNet's size: 1,281,167 rows of 1,000 made-up logits.

Writes a table as a first epoch does (random order, 256 rows at a time, into shards that are merged at the end), then
reads random batches of 256 rows. Prints size, write rate, read rates and the reader's memory. Reads are compared with a
plain np.memmap of one file with as many bytes a row, gathered and not decoded, in the same round:

- page cache: everything is in memory;
- disk: the pages of the files are dropped before every round.

Ratios are ours / raw, medians over rounds of the ratio within a round. `kept` is what the store gathers, `dense` adds
the unfolding of top-k rows to 1,000 columns, which the raw read does not do.

    python benchmarks/store_scale.py [--encoding top32|dense] [--rows 1281167] [--rounds 7] [--batches 200]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable

IMAGENET, NUM_CLASSES, BATCH = 1_281_167, 1_000, 256
KEY = LabelKey("teacher", "split", 1)


def memory() -> dict[str, float]:
    """MB of this process: its own, and pages of files that are mapped (the kernel's to take back)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1e3 for name in ("RssAnon", "RssFile")}


def forget(folder: Path) -> None:
    """Drop the pages of the files from the page cache; mapped pages too, as nobody else maps them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fill(store: LabelStore, num_rows: int, top_k: int | None) -> tuple[LabelTable, float, float]:
    """The table, seconds in `write` and the merging, and seconds of all (making up logits is not counted)."""
    generator = np.random.default_rng(0)
    table = store.table(KEY, num_rows, NUM_CLASSES, top_k)
    # Some thousand distinct rows, used over and over: making up a thousand logits costs more than writing them.
    pool = generator.normal(0, 2.5, (8 * BATCH, NUM_CLASSES)).astype(np.float16)
    pool[np.arange(len(pool)), generator.integers(0, NUM_CLASSES, len(pool))] += 12
    order = generator.permutation(num_rows)
    writing = 0.0
    for start in range(0, num_rows, BATCH):
        rows = order[start : start + BATCH]
        logits = pool[(start // BATCH % 8) * BATCH :][: len(rows)]
        began = time.perf_counter()
        table.claim(rows)
        table.write(rows, logits)
        seconds = time.perf_counter() - began
        writing += seconds
    began = time.perf_counter()
    table.close()
    return table, writing + time.perf_counter() - began, seconds


class Raw:
    """One file of rows next to each other, gathered without decoding."""

    def __init__(self, path: Path, num_rows: int, row_bytes: int) -> None:
        self.path, self.shape = path, (num_rows, row_bytes)
        block = np.random.default_rng(0).integers(0, 255, (1 << 14, row_bytes), np.uint8)
        with path.open("wb") as file:
            for start in range(0, num_rows, len(block)):
                file.write(block[: num_rows - start].tobytes())
            os.fsync(file.fileno())
        self.open()

    def open(self) -> None:
        self.rows = np.memmap(self.path, np.uint8, "r", shape=self.shape)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.rows)[rows]


def rate(read: Callable[[np.ndarray], object], batches: np.ndarray) -> float:
    """Rows a second."""
    began = time.perf_counter()
    for rows in batches:
        read(rows)
    return batches.size / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoding", choices=("top32", "dense"), default="top32")
    parser.add_argument("--rows", type=int, default=IMAGENET)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=200, help="of 256 rows, in a round")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}; {options.rows:,} rows of {NUM_CLASSES:,} logits, "
        f"{options.encoding}; {options.rounds} rounds of {options.batches} random batches of {BATCH} rows"
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    store = LabelStore(folder / "labels")
    top_k = 32 if options.encoding == "top32" else NUM_CLASSES
    table, seconds, last = fill(store, options.rows, top_k)
    (info,) = store.tables()
    size = info.size_bytes
    shards = len(list((folder / "labels").glob("*/shard-*")))
    print(f"size on disk            {size / 1e6:10,.1f} MB in {shards} shards, {size / options.rows:,.0f} bytes a row")
    print(
        f"written                 {options.rows / seconds:10,.0f} rows/s, {size / seconds / 1e6:,.0f} MB/s on disk, in "
        f"{seconds:.0f} s; claims, flushes and the last merging ({last:.1f} s) included"
    )
    del table
    os.sync()

    row_bytes = 2 * NUM_CLASSES if options.encoding == "dense" else 32 * 4 + 2
    raw = Raw(folder / "raw", options.rows, row_bytes)
    generator = np.random.default_rng(1)

    def opened() -> LabelTable:
        return store.table(KEY, options.rows, NUM_CLASSES, top_k)

    before = memory()
    table = opened()
    began = memory()
    ways: dict[str, Callable[[np.ndarray], object]] = {"raw": raw.read, "kept": table.read_encoded, "dense": table.read}
    if options.encoding == "dense":
        del ways["kept"]
    everything = np.arange(options.rows)[: options.rows // BATCH * BATCH].reshape(-1, BATCH)
    for read in ways.values():
        rate(read, everything)
    cached: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        batches = generator.integers(0, options.rows, (options.batches, BATCH))
        for way, read in ways.items():
            cached[way].append(rate(read, batches))
    ended = memory()
    tell("page cache", cached)

    cold: dict[str, list[float]] = {way: [] for way in ways}
    ways, read = {}, print  # nothing may map the files while their pages are dropped
    for _ in range(options.rounds):
        batches = generator.integers(0, options.rows, (options.batches // 10, BATCH))
        for way in cold:
            table = None
            raw.rows = None
            forget(folder)
            raw.open()
            table = opened()
            cold[way].append(rate({"raw": raw.read, "kept": table.read_encoded, "dense": table.read}[way], batches))
    tell("disk", cold)
    read_rows = (options.rounds * options.batches * BATCH + options.rows) * (len(cold) - 1)
    print(
        f"memory of the reader    own: {before['RssAnon']:,.0f} MB without a table, {began['RssAnon']:,.0f} opened, "
        f"{ended['RssAnon']:,.0f} after {read_rows:,} rows read; mapped pages of all files, which are page cache: "
        f"{ended['RssFile'] - before['RssFile']:,.0f} MB"
    )


def tell(where: str, rates: dict[str, list[float]]) -> None:
    print(f"random reads, {where}")
    for way, each in rates.items():
        ratio = statistics.median(mine / raw for mine, raw in zip(each, rates["raw"], strict=True))
        print(
            f"  {way:22}{statistics.median(each):10,.0f} rows/s ({min(each):,.0f}…{max(each):,.0f}), "
            f"{BATCH / statistics.median(each) * 1e3:.2f} ms a batch, ÷ raw {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
