"""Soft labels on disk: what is read is what was written, or nothing at all, and the user hears why."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from raydistill.errors import ConfigError, SoftLabelError
from raydistill.soft_labels import table as table_module
from raydistill.soft_labels import upkeep
from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable
from raydistill.soft_labels.targets import SoftTargets

KEY = LabelKey("teacher", "split", 1)
NUM_ROWS, NUM_CLASSES = 7, 3


def made_up(num_rows: int = NUM_ROWS, seed: int = 0, num_classes: int = NUM_CLASSES) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 9, (num_rows, num_classes)).astype(np.float16)


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, heard: list[str]) -> LabelStore:
    return LabelStore(tmp_path / "deep" / "labels", heard.append)


def opened(store: LabelStore, key: LabelKey = KEY, num_rows: int = NUM_ROWS, **options: object) -> LabelTable:
    return store.table(key, num_rows, options.pop("num_classes", NUM_CLASSES), **options)  # type: ignore[arg-type]


def filled(store: LabelStore, key: LabelKey = KEY) -> Path:
    """Two shards, rows 0–3 and 4–5; row 6 is missing. Returns the table's folder."""
    table = opened(store, key)
    table.write(np.arange(4), made_up()[:4])
    table.flush()
    table.write([4, 5], made_up()[4:6])
    table.close()
    return store.folder / key.digest


def shards(folder: Path) -> list[Path]:
    names = [shard["file"] for shard in json.loads((folder / "index.json").read_text())["shards"]]
    return [folder / name for name in names]


def test_what_was_written_is_read_by_any_store_of_the_folder(store: LabelStore, heard: list[str]) -> None:
    table = opened(store)
    assert not store.folder.exists() and table.num_known == 0 and not table.complete
    order = np.random.default_rng(1).permutation(NUM_ROWS)
    table.write(order[:5], made_up()[order[:5]])
    np.testing.assert_array_equal(table.read(order[:5]), made_up()[order[:5]])  # before any flush
    assert opened(store).num_known == 0
    table.write(order[5:], made_up()[order[5:]])  # complete: flushed at once
    for reader in (table, opened(store), opened(LabelStore(store.folder))):
        assert reader.complete and reader.known(np.arange(NUM_ROWS)).all()
        found = reader.read([3, 1, 3])
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, made_up()[[3, 1, 3]])
    assert heard == []


def test_others_see_what_was_flushed_after_a_refresh(store: LabelStore) -> None:
    writer, reader = opened(store), opened(store)
    writer.write([2], made_up()[:1])
    reader.refresh()
    assert not reader.known([2])[0]
    writer.flush()
    assert not reader.known([2])[0]
    reader.refresh()
    assert reader.known([2, 3]).tolist() == [True, False]


def test_a_row_that_is_missing_is_an_error_that_names_the_command_that_makes_it(store: LabelStore) -> None:
    filled(store)
    table = store.table(KEY, NUM_ROWS, NUM_CLASSES, about={"teacher": "resnet", "split": "train"})
    with pytest.raises(
        SoftLabelError, match=r"1 of 2 rows .*teacher resnet, split train, view 1.*row 6.*raydistill label"
    ):
        table.read([0, 6])


@pytest.mark.parametrize(
    "other", [LabelKey("teacher2", "split", 1), LabelKey("teacher", "split2", 1), LabelKey("teacher", "split", 2)]
)
def test_another_teacher_split_or_view_is_not_there(store: LabelStore, heard: list[str], other: LabelKey) -> None:
    filled(store)
    assert opened(store, other).num_known == 0
    assert heard == []


def test_a_known_row_keeps_what_it_has_and_a_row_given_twice_its_first(store: LabelStore) -> None:
    table = opened(store)
    table.write([1, 1], made_up()[:2])
    table.write([1, 2], made_up(seed=1)[:2])
    np.testing.assert_array_equal(table.read([1, 2]), [made_up()[0], made_up(seed=1)[1]])


def test_shards_are_merged_when_they_are_many_and_when_the_table_is_complete(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "MANY", 4)
    table, reader = opened(store, num_rows=40), opened(store, num_rows=40)
    logits, order = made_up(40), np.random.default_rng(0).permutation(40)
    folder = store.folder / KEY.digest
    for at in range(0, 40, 4):
        table.write(order[at : at + 4], logits[order[at : at + 4]])
        table.flush()
        reader.refresh()
        np.testing.assert_array_equal(reader.read(order[: at + 4]), logits[order[: at + 4]])
        assert len(shards(folder)) <= 4
    assert len(shards(folder)) == 1 == len(list(folder.glob("shard-*")))
    np.testing.assert_array_equal(load_file(shards(folder)[0])["rows"], np.arange(40))
    monkeypatch.setattr(upkeep, "SHARD_BYTES", 100)
    other = opened(store, LabelKey("bounded", "split", 0), num_rows=40)
    other.write(order, logits[order])
    sizes = [len(load_file(shard)["rows"]) for shard in shards(store.folder / other.key.digest)]
    assert sizes == [10, 10, 10, 10]
    np.testing.assert_array_equal(other.read(order), logits[order])


def test_a_reader_goes_on_when_shards_are_merged_under_it(store: LabelStore) -> None:
    reader_folder = filled(store)
    reader, writer = opened(store), opened(store)
    old = shards(reader_folder)
    writer.write([6], made_up()[6:])
    assert not any(path.exists() for path in old)
    np.testing.assert_array_equal(reader.read(np.arange(6)), made_up()[:6])  # still mapped
    np.testing.assert_array_equal(reader.read([6]), made_up()[6:])  # looks again by itself
    assert reader.complete


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_torn_shard_is_reported_by_name_and_not_read(store: LabelStore, heard: list[str], keep: int) -> None:
    first, second = shards(filled(store))
    first.write_bytes(first.read_bytes()[:keep])
    table = opened(store)
    assert table.known(np.arange(NUM_ROWS)).tolist() == [False] * 4 + [True] * 2 + [False]
    assert len(heard) == 1 and first.name in heard[0] and "torn" in heard[0] and "made again" in heard[0]
    assert not first.exists() and shards(first.parent) == [second]
    table.write(np.arange(4), made_up()[:4])
    np.testing.assert_array_equal(table.read(np.arange(6)), made_up()[:6])


def test_changed_values_are_found_by_their_checksum(store: LabelStore, heard: list[str]) -> None:
    first, second = shards(filled(store))
    content = bytearray(second.read_bytes())
    content[-1] ^= 1
    second.write_bytes(content)
    table = opened(store)
    assert table.num_known == 6 and heard == []
    table.check()
    assert table.num_known == 4 and not second.exists() and first.exists()
    assert len(heard) == 1 and second.name in heard[0] and "checksum" in heard[0]
    table.check()
    assert len(heard) == 1


def test_a_shard_of_another_key_is_foreign(store: LabelStore, heard: list[str]) -> None:
    other = LabelKey("teacheR", "split", 1)
    theirs, ours = shards(filled(store, other)), shards(filled(store))
    theirs[0].replace(ours[0])
    assert opened(store).num_known == 2
    assert len(heard) == 1 and "another teacher or data set" in heard[0]


def test_a_missing_shard_and_one_without_our_card_are_not_read(store: LabelStore, heard: list[str]) -> None:
    first, second = shards(filled(store))
    first.unlink()
    save_file(load_file(second), second)
    index = json.loads((second.parent / "index.json").read_text())
    index["shards"][1]["bytes"] = second.stat().st_size
    (second.parent / "index.json").write_text(json.dumps(index))
    assert opened(store).num_known == 0
    assert "is missing" in heard[0] and "another teacher" in heard[1] and len(heard) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"num_rows": 8}, "7 rows"),
        ({"num_classes": 4}, "3 classes"),
        ({"num_classes": 400, "num_rows": NUM_ROWS}, "dense"),
    ],
)
def test_a_table_of_other_rows_or_form_is_reported_and_made_again(
    store: LabelStore, heard: list[str], changed: dict[str, int], said: str
) -> None:
    folder = filled(store)
    table = opened(store, **changed)
    assert table.num_known == 0 and len(heard) == 1 and said in heard[0] and "made again" in heard[0]
    logits = made_up(1, num_classes=table.num_classes)
    table.write([0], logits)
    table.close()
    assert opened(store, **changed).num_known == 1
    assert len(heard) == 1 and len(list(folder.glob("shard-*"))) == 1


def test_a_table_that_a_living_run_uses_is_not_started_anew_in_another_form(store: LabelStore) -> None:
    table = opened(store, num_classes=100)
    table.write([0], made_up(1, num_classes=100))
    table.flush()
    other = opened(store, num_classes=100, top_k=10)
    with pytest.raises(SoftLabelError, match=r"in use .*top_k"):
        other.write([0], made_up(1, num_classes=100))
    table.close()
    other.write([0], made_up(1, num_classes=100))
    other.close()
    assert opened(store, num_classes=100, top_k=10).num_known == 1


@pytest.mark.parametrize("content", ["", "no json", "[1]", '{"format": 1}', '{"format": 2}'])
def test_an_index_that_is_none_is_reported_and_made_again(store: LabelStore, heard: list[str], content: str) -> None:
    folder = filled(store)
    (folder / "index.json").write_text(content)
    table = opened(store)
    assert table.num_known == 0 and len(heard) == 1 and "made again" in heard[0]
    table.write([1], made_up()[:1])
    table.close()
    assert opened(store).num_known == 1


def test_a_table_of_a_newer_version_is_one_line(store: LabelStore) -> None:
    folder = filled(store)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({"format": 3, "shards": index["shards"]}))
    with pytest.raises(SoftLabelError, match=r"newer raydistill \(format 3.*upgrade, or set store.path"):
        opened(store)
    assert "newer" in store.tables()[0].problem


def test_more_logits_than_classes_are_one_line(store: LabelStore) -> None:
    with pytest.raises(ConfigError, match=r"store.top_k is 4, but there are 3 classes"):
        opened(store, top_k=4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(store: LabelStore, bad: float) -> None:
    logits = made_up()
    logits[2, 1] = bad
    table = opened(store)
    with pytest.raises(SoftLabelError, match="NaN or infinite"):
        table.write(np.arange(NUM_ROWS), logits)
    assert table.num_known == 0


def test_a_folder_that_is_a_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("in the way", encoding="utf-8")
    table = opened(LabelStore(tmp_path / "labels"))
    with pytest.raises(SoftLabelError, match=r"cannot write soft labels to .*store.path"):
        table.write([0], made_up()[:1])
    assert [file.name for file in tmp_path.iterdir()] == ["labels"]


def test_a_table_travels_and_opens_itself_where_it_arrives(store: LabelStore) -> None:
    table = opened(store)
    table.write([0], made_up()[:1])
    table.flush()
    table.write([1], made_up()[1:2])
    there: LabelTable = pickle.loads(pickle.dumps(table))
    assert there.known([0, 1]).tolist() == [True, False] and there.key == KEY and str(there) == str(table)
    assert pickle.loads(pickle.dumps(store)).folder == store.folder
    there.write([2], made_up()[2:3])
    there.close()
    table.close()
    assert opened(store).num_known == 3


def test_the_buffer_is_flushed_when_large_when_old_and_soon_where_others_wait(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = opened(store, num_rows=100)

    def others_know(rows: list[int]) -> bool:
        reader.refresh()
        return bool(reader.known(rows).all())

    writer = opened(store, num_rows=100)
    monkeypatch.setattr(table_module, "FLUSH_BYTES", 10 * 10)
    writer.write(np.arange(12), made_up(12))
    assert others_know(list(range(12)))
    writer.write([20], made_up(1))
    assert not others_know([20])
    waiting = opened(store, num_rows=100)
    assert waiting.claim([50]).all()
    until(lambda: others_know([20]))  # 0.5 s
    waiting.close()
    monkeypatch.setattr(table_module, "FLUSH_S", 0.2)
    writer.write([21], made_up(1))
    until(lambda: others_know([21]))
    writer.close()


def until(condition: object, timeout_s: float = 10.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if condition():  # type: ignore[operator]
            return
        pause.wait(0.02)
    raise AssertionError("it did not come true")


def test_many_threads_write_one_table(store: LabelStore) -> None:
    table, logits = opened(store, num_rows=2_000), made_up(2_000)

    def work(part: int) -> None:
        for start in range(part * 10, 2_000, 80):
            rows = np.arange(start, start + 10)
            assert table.claim(rows).all()
            table.write(rows, logits[rows])
            np.testing.assert_array_equal(table.read(rows), logits[rows])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.complete
    table.close()
    np.testing.assert_array_equal(opened(store, num_rows=2_000).read(np.arange(2_000)), logits)


def test_teachers_are_stacked_in_the_order_asked_for_and_silent_ones_are_nan() -> None:
    left, right = made_up(seed=1), made_up(seed=2)
    stacked = SoftTargets({"a": left, "b": right}).stacked(["b", "lost", "a"])
    assert stacked.dtype == np.float16
    np.testing.assert_array_equal(stacked[0], right)
    assert np.isnan(stacked[1]).all()
    np.testing.assert_array_equal(stacked[2], left)
