"""Who computes which row: nobody twice, and no row is lost with its owner. Processes are in tests/distributed."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from raydistill.soft_labels.claims import SPAN_ROWS
from raydistill.soft_labels.locks import acquire, is_locked
from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable

KEY = LabelKey("teacher", "split", 0)
LOGITS = np.random.default_rng(0).normal(0, 9, (50, 3)).astype(np.float16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def opened(folder: Path, num_rows: int = 50) -> LabelTable:
    return LabelStore(folder).table(KEY, num_rows, 3)


def test_a_row_is_claimed_once_between_tables_and_within_one(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    assert one.claim([1, 2, 1, 3]).tolist() == [True, True, False, True]
    assert one.claim([3, 4]).tolist() == [False, True]
    assert other.claim([0, 1, 2, 3, 4]).tolist() == [True, False, False, False, False]


def test_what_was_given_back_can_be_claimed_and_others_claims_cannot_be_given_back(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    one.claim([1, 2])
    other.claim([3])
    other.release([1, 2, 3])
    assert other.claim([1, 2]).tolist() == [False, False]
    one.release([1])
    assert other.claim([1, 2, 3]).tolist() == [True, False, True]


def test_a_known_row_is_nobodys_to_compute_flushed_or_not(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    assert one.claim([1, 2]).all()
    one.write([1], LOGITS[:1])
    assert not other.claim([1])[0]  # in the buffer of its owner
    one.flush()
    assert other.claim([1, 2, 3]).tolist() == [False, False, True]
    assert other.known([1])[0]  # claiming looks at what others flushed


def test_a_row_whose_shard_turned_out_damaged_can_be_claimed_again(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    one.claim([1])
    other.write([1], LOGITS[:1])
    other.flush()
    one.refresh()
    one.write([1], LOGITS[:1])  # too late, and of no matter
    shard = next((folder / KEY.digest).glob("shard-*"))
    shard.write_bytes(b"x" * shard.stat().st_size)
    one.check()
    assert one.claim([1])[0]


def test_who_closes_gives_back(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    one.claim(np.arange(10))
    one.write([0, 1], LOGITS[:2])
    one.close()
    one.close()
    assert other.claim(np.arange(10)).tolist() == [False] * 2 + [True] * 8
    assert one.claim([20])[0] and one.read([0]).shape == (1, 3)  # it opens itself again


def test_who_is_forgotten_gives_back(folder: Path) -> None:
    one, other = opened(folder), opened(folder)
    assert one.claim([5])[0]
    del one
    assert other.claim([5])[0]


def test_rows_far_apart_are_claimed_like_neighbours(folder: Path) -> None:
    num_rows = 3 * SPAN_ROWS
    one, other = opened(folder, num_rows), opened(folder, num_rows)
    rows = np.array([num_rows - 1, 0, SPAN_ROWS, 7])
    assert one.claim(rows).all()
    assert not other.claim(rows).any() and not other.claim([7]).any() and other.claim([8]).all()
    one.release(rows)
    assert other.claim(rows).all()
    assert (folder / KEY.digest / "claims").stat().st_size == 4 * (num_rows + 2)


def test_threads_with_a_table_each_claim_every_row_once(folder: Path) -> None:
    claimed: list[np.ndarray] = []

    def work(seed: int) -> None:
        table = opened(folder)
        order = np.random.default_rng(seed).permutation(50)
        for start in range(0, 50, 5):
            rows = order[start : start + 5]
            mine = rows[table.claim(rows)]
            claimed.append(mine)
            table.write(mine, LOGITS[mine])
        table.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(np.concatenate(claimed).tolist()) == list(range(50))
    table = opened(folder)
    np.testing.assert_array_equal(table.read(np.arange(50)), LOGITS)


def test_a_lock_moves_to_the_file_that_is_there_now(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = acquire(path)
    assert held is not None and is_locked(path) and acquire(path) is None
    path.unlink()
    assert not is_locked(path)
    again = acquire(path)
    assert again is not None
    held.release()
    assert is_locked(path)
    again.release()
    shared = [acquire(path, shared=True), acquire(path, shared=True)]
    assert all(shared) and acquire(path) is None
