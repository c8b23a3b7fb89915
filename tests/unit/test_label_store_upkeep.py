"""Listing, verifying and pruning a store, and the command behind them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from raydistill.commands.store import list_store, parse_size, prune_store, readable, verify_store
from raydistill.errors import ConfigError
from raydistill.soft_labels import upkeep
from raydistill.soft_labels.store import LabelKey, LabelStore, open_store

LOGITS = np.random.default_rng(0).normal(0, 9, (100, 10)).astype(np.float16)
NAMES = ("old", "middle", "new")


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    """Three tables of one size, used one after the other."""
    store = LabelStore(tmp_path / "cache" / "soft_labels")
    for age, name in enumerate(reversed(NAMES)):
        table = store.table(LabelKey(name, "split", 2), 100, 10, about={"teacher": name})
        table.write(np.arange(60), LOGITS[:60])
        table.close()
        for file in (store.folder / table.key.digest).iterdir():
            os.utime(file, (time.time() - 3_700 * age,) * 2)
    return store


def sizes(store: LabelStore) -> dict[str, int]:
    return {table.about["teacher"]: table.size_bytes for table in store.tables()}


def damage(store: LabelStore, name: str) -> Path:
    shard = next((store.folder / LabelKey(name, "split", 2).digest).glob("shard-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 255
    shard.write_bytes(content)
    return shard


def test_a_listing_says_whose_word_on_what(store: LabelStore) -> None:
    table = store.tables()[0]
    assert table.about == {"teacher": "middle"} and table.key == LabelKey("middle", "split", 2)
    assert (table.num_known, table.num_rows, table.num_classes, table.encoding) == (60, 100, 10, "dense")
    assert 60 * 24 < table.size_bytes < 60 * 24 + 1_000
    assert 3_600 < time.time() - table.used_at < 3_800


def test_tables_with_and_without_words_are_listed_together(store: LabelStore) -> None:
    plain = store.table(LabelKey("plain", "split", 0), 100, 10)
    plain.write([0], LOGITS[:1])
    plain.close()
    assert next(table.about for table in store.tables()) == {} and len(store.tables()) == 4


def test_verifying_names_and_drops_what_is_damaged(store: LabelStore) -> None:
    assert store.verify() == []
    shard = damage(store, "new")
    (found,) = store.verify()
    assert (found.file, found.about["teacher"]) == (shard.name, "new") and "checksum" in found.problem
    assert store.verify() == [] and not shard.exists()
    assert store.table(found_key := LabelKey("new", "split", 2), 100, 10).num_known == 0
    assert found_key.digest == found.table


def test_tables_that_changed_places_are_noticed_and_left_for_the_user(store: LabelStore) -> None:
    one, other = (store.folder / LabelKey(name, "split", 2).digest for name in ("old", "new"))
    one.rename(store.folder / "between")
    other.rename(one)
    (store.folder / "between").rename(other)
    assert {found.table for found in store.verify()} == {one.name, other.name}
    assert {found.file for found in store.verify()} == {"index.json"}


@pytest.mark.parametrize(
    ("what", "value"),
    [("num_rows", "many"), ("shards", [{"file": "a", "num_rows": 1, "sha256": "", "bytes": "many"}]), ("about", [1]),
     ("key", {"teacher": "new", "split": "split", "view": None}), ("merged", 7), ("shards", ["a"])],
)  # fmt: skip
def test_an_index_of_other_types_is_told_and_the_other_tables_go_on(
    store: LabelStore, what: str, value: object
) -> None:
    index = store.folder / LabelKey("new", "split", 2).digest / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), what: value}))
    (found,) = store.verify()
    assert found.file == "index.json" and "is not a table of soft labels" in found.problem
    assert [bool(table.problem) for table in store.tables()].count(True) == 1


def test_pruning_takes_the_least_recently_used_first(store: LabelStore) -> None:
    total = sum(sizes(store).values())
    assert store.prune(total) == []
    assert [table.about["teacher"] for table in store.prune(total - 1)] == ["old"]
    assert set(sizes(store)) == {"middle", "new"}
    store.table(LabelKey("middle", "split", 2), 100, 10).close()  # used again: younger than "new" now
    assert [table.about["teacher"] for table in store.prune(sizes(store)["middle"])] == ["new"]
    assert len(store.prune(0)) == 1 and list(store.folder.iterdir()) == []


def test_pruning_leaves_what_is_open(store: LabelStore) -> None:
    reading = store.table(LabelKey("old", "split", 2), 100, 10)
    claiming = store.table(LabelKey("nothing yet", "split", 2), 100, 10)
    claiming.claim([1])
    assert [table.about["teacher"] for table in store.prune(0)] == ["middle", "new"]
    np.testing.assert_array_equal(reading.read(np.arange(60)), LOGITS[:60])
    assert (store.folder / claiming.key.digest).exists()
    reading.close()
    claiming.close()
    store.prune(0)
    assert list(store.folder.iterdir()) == []
    assert reading.num_known == 60  # as of the last look
    reading.refresh()
    assert reading.num_known == 0


def test_what_killed_writers_left_is_swept_once_it_is_old(store: LabelStore) -> None:
    folder = store.folder / LabelKey("old", "split", 2).digest
    young, old = folder / "shard-1.safetensors", folder / ".shard-2.safetensors.abc"
    for file in (young, old):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * upkeep.LEFTOVER_S,) * 2)
    table = store.table(LabelKey("old", "split", 2), 100, 10)
    table.claim([80])
    assert young.exists() and not old.exists() and table.num_known == 60


def test_the_command_prints_verifies_and_prunes(
    store: LabelStore, tiny_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "name": "x", "cache_dir": str(store.folder.parent),
        "tasks": {"mood": {"domain": "text", "data": {"source": "csv", "path": str(tiny_root / "texts.csv")}}},
    }  # fmt: skip
    assert len(list_store(config)) == 3
    said = capsys.readouterr().out
    assert "teacher middle" in said and "60 of 100" in said and "3 tables" in said and "1 h ago" in said
    damage(store, "new")
    assert len(verify_store(config)) == 1
    assert "teacher new" in capsys.readouterr().out
    assert verify_store(config) == []
    assert "is sound" in capsys.readouterr().out
    assert len(prune_store(config, size="0")) == 3
    assert "3 tables removed" in capsys.readouterr().out
    nowhere = [f"store.path={store.folder / 'none'}"]
    assert list_store(config, nowhere) == verify_store(config, nowhere) == []
    assert "is sound" not in capsys.readouterr().out


def test_without_a_config_the_default_cache_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list_store() == [] and verify_store() == [] and prune_store() == []
    assert str(tmp_path / ".cache" / "raydistill" / "soft_labels") in capsys.readouterr().out.replace("\n", "")


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("10GB", 10**10), ("1.5 kB", 1_500), ("2GiB", 2**31), ("7", 7), ("3b", 3), ("4 m", 4 * 10**6), ("1T", 10**12)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "10 pounds", "-1GB", "1e9", "ten"])
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a size; write a number with a unit, such as"):
        parse_size(text)
    with pytest.raises(ConfigError):
        prune_store(size=text)


def test_sizes_for_people() -> None:
    assert [readable(size) for size in (0, 999, 1_000, 171_234_567, 3 * 10**13)] == [
        "0 B", "999 B", "1.0 KB", "171.2 MB", "30.0 TB",
    ]  # fmt: skip


def test_a_store_path_that_is_a_file_is_one_line(tmp_path: Path, make_config: object) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"store.path .*is a file"):
        open_store(make_config(store={"path": str(tmp_path / "file")}))  # type: ignore[operator]
    folder = tmp_path / "labels"
    assert open_store(make_config(store={"path": str(folder)})).folder == folder  # type: ignore[operator]
    assert open_store(make_config()).folder.name == "soft_labels"  # type: ignore[operator]
