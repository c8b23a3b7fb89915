"""Soft labels on disk: what is read is what was written, or nothing at all, and the user hears why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from raydistill.errors import SoftLabelError
from raydistill.soft_labels.store import LabelKey, LabelStore, StoredSource
from raydistill.soft_labels.targets import SoftTargets, fuse

KEY = LabelKey("teacher", "split", 1)


def made_up(num_rows: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 9, (num_rows, 3)).astype(np.float16)


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, heard: list[str]) -> LabelStore:
    return LabelStore(tmp_path / "deep" / "labels", heard.append)


def test_what_was_written_is_read_by_any_store_of_the_folder(store: LabelStore, heard: list[str]) -> None:
    logits = made_up()
    store.write(KEY, logits)
    for reader in (store, LabelStore(store.folder)):
        found = reader.read(KEY, 7)
        assert found is not None and found.dtype == np.float16
        np.testing.assert_array_equal(found, logits)
    assert heard == [] and len(list(store.folder.iterdir())) == 1


def test_labels_in_another_memory_order_are_written_by_value(store: LabelStore) -> None:
    logits = np.asfortranarray(made_up())[::2]
    store.write(KEY, logits)
    found = store.read(KEY, 4)
    assert found is not None
    np.testing.assert_array_equal(found, logits)


def test_writing_again_replaces(store: LabelStore) -> None:
    store.write(KEY, made_up())
    store.write(KEY, made_up(seed=1))
    found = store.read(KEY, 7)
    assert found is not None
    np.testing.assert_array_equal(found, made_up(seed=1))


@pytest.mark.parametrize(
    "other", [LabelKey("teacher2", "split", 1), LabelKey("teacher", "split2", 1), LabelKey("teacher", "split", 2)]
)
def test_another_teacher_split_or_view_is_not_there(store: LabelStore, heard: list[str], other: LabelKey) -> None:
    store.write(KEY, made_up())
    assert store.read(other, 7) is None
    assert heard == []


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_torn_file_is_reported_and_not_read(store: LabelStore, heard: list[str], keep: int) -> None:
    store.write(KEY, made_up())
    file = KEY.path(store.folder)
    file.write_bytes(file.read_bytes()[:keep])
    assert store.read(KEY, 7) is None
    assert len(heard) == 1 and file.name in heard[0] and "made again" in heard[0]


def test_changed_values_are_found_by_their_checksum(store: LabelStore, heard: list[str]) -> None:
    store.write(KEY, made_up())
    file = KEY.path(store.folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert store.read(KEY, 7) is None
    assert "checksum" in heard[0]


def test_a_file_of_another_key_is_foreign(store: LabelStore, heard: list[str]) -> None:
    other = LabelKey("another", "split", 1)
    store.write(other, made_up())
    other.path(store.folder).rename(KEY.path(store.folder))
    assert store.read(KEY, 7) is None
    assert "another teacher or data set" in heard[0]


def test_another_number_of_rows_is_foreign(store: LabelStore, heard: list[str]) -> None:
    store.write(KEY, made_up())
    assert store.read(KEY, 8) is None
    assert "another teacher or data set" in heard[0]


@pytest.mark.parametrize("metadata", [None, {"key": "no json"}, {"key": "[1]"}])
def test_a_file_without_our_card_is_not_read(
    store: LabelStore, heard: list[str], metadata: dict[str, str] | None
) -> None:
    store.write(KEY, made_up())
    file = KEY.path(store.folder)
    save_file(load_file(file), file, metadata=metadata)
    assert store.read(KEY, 7) is None
    assert len(heard) == 1


def test_a_file_without_logits_is_not_read(store: LabelStore, heard: list[str]) -> None:
    store.folder.mkdir(parents=True)
    save_file({"other": made_up()}, KEY.path(store.folder))
    assert store.read(KEY, 7) is None
    assert len(heard) == 1


def test_a_folder_that_is_a_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("in the way", encoding="utf-8")
    with pytest.raises(SoftLabelError, match=r"cannot write soft labels to .*cache_dir"):
        LabelStore(tmp_path / "labels").write(KEY, made_up())
    assert [file.name for file in tmp_path.iterdir()] == ["labels"]


def test_a_failing_write_leaves_no_half_file(store: LabelStore) -> None:
    KEY.path(store.folder).mkdir(parents=True)  # a folder in the file's place: the rename fails
    with pytest.raises(SoftLabelError):
        store.write(KEY, made_up())
    assert [file.name for file in store.folder.iterdir()] == [KEY.path(store.folder).name]


def test_missing_view_or_row_of_a_stored_source_names_the_command_that_makes_it(tiny_data: dict) -> None:
    split = tiny_data["mood"].train
    source = StoredSource({"mood": {"bert": {0: made_up(len(split))}}})
    for views in (split.views([0], view=1),):
        with pytest.raises(SoftLabelError, match=r"'mood'.*view 1.*raydistill label"):
            list(source.stream([{"mood": views}]))
    short = StoredSource({"mood": {"bert": {0: made_up(2)}}})
    with pytest.raises(SoftLabelError, match="'mood'"):
        list(short.stream([{"mood": split.views([5])}]))


def test_fused_logits_are_the_mean_in_single_precision() -> None:
    left, right = made_up(seed=1), made_up(seed=2)
    expected = (left.astype(np.float64) + right.astype(np.float64)) / 2
    fused = SoftTargets({"a": left, "b": right}).fused()
    assert fused.dtype == np.float32
    np.testing.assert_allclose(fused, expected, rtol=1e-6)
    np.testing.assert_array_equal(fuse([left]), left.astype(np.float32))
    huge = np.full((1, 2), 6e4, np.float16)
    np.testing.assert_allclose(fuse([huge, huge, huge]), [[6e4, 6e4]], rtol=1e-2)
