"""A store at a URL: filled from there, copied back, and one line where it cannot be reached."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest

from raydistill.config.models import Config
from raydistill.errors import ConfigError, RaydistillError, SoftLabelError
from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable, open_store

KEY = LabelKey("teacher", "split", 1)
LOGITS = np.random.default_rng(0).normal(0, 9, (40, 3)).astype(np.float16)
Machine = Callable[[str], LabelStore]


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket" if request.param == "file" else f"memory://{uuid.uuid4().hex}/labels"


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def machine(url: str, tmp_path: Path, make_config: Callable[..., Config], heard: list[str]) -> Machine:
    """The store of one URL as a machine with a cache of its own sees it."""

    def of(name: str) -> LabelStore:
        return open_store(make_config(cache_dir=str(tmp_path / name), store={"path": url}), heard.append)

    return of


def opened(store: LabelStore) -> LabelTable:
    return store.table(KEY, 40, 3, about={"teacher": "resnet"})


def write(store: LabelStore, rows: range) -> None:
    table = opened(store)
    table.write(np.array(rows), LOGITS[list(rows)])
    table.close()


def there(url: str) -> dict[str, object]:
    with fsspec.open(f"{url}/{KEY.digest}/index.json") as file:
        content: dict[str, object] = json.load(file)
    files, root = fsspec.core.url_to_fs(url)
    names = {Path(path).name for path in files.ls(f"{root}/{KEY.digest}", detail=False)}
    assert names == {"index.json", *(shard["file"] for shard in content["shards"])}  # type: ignore[attr-defined]
    return content


def test_what_one_machine_writes_another_one_has(machine: Machine, url: str, heard: list[str]) -> None:
    write(machine("one"), range(10))
    assert opened(machine("two")).num_known == 10
    write(machine("two"), range(10, 20))
    write(machine("one"), range(20, 30))
    table = opened(machine("three"))
    np.testing.assert_array_equal(table.read(np.arange(30)), LOGITS[:30])
    assert len(there(url)["shards"]) == 3  # type: ignore[arg-type]
    assert heard == []


def test_a_complete_table_takes_the_place_of_its_parts(machine: Machine, url: str, heard: list[str]) -> None:
    write(machine("one"), range(10))
    opened(machine("late")).close()
    write(machine("two"), range(10, 40))
    content = there(url)
    assert content["compact"] and len(content["shards"]) == 1  # type: ignore[arg-type]
    late = opened(machine("late"))
    assert late.complete
    np.testing.assert_array_equal(late.read(np.arange(40)), LOGITS)
    late.close()
    assert there(url) == content
    assert len(list(machine("late").folder.glob("*/shard-*"))) == 1
    assert heard == []


def test_writers_at_the_same_time_lose_nothing(machine: Machine, url: str) -> None:
    one, two = opened(machine("one")), opened(machine("two"))
    one.write(np.arange(10), LOGITS[:10])
    two.write(np.arange(5, 15), LOGITS[5:15])
    one.close()
    two.close()
    assert opened(machine("three")).num_known == 15


def test_nothing_is_fetched_or_copied_twice(machine: Machine, url: str) -> None:
    write(machine("one"), range(10))
    before = there(url)
    store = machine("two")
    opened(store).close()
    shard = next(store.folder.glob("*/shard-*"))
    fetched = shard.stat().st_mtime_ns
    opened(store).close()
    assert shard.stat().st_mtime_ns == fetched and there(url) == before


def test_a_damaged_copy_is_reported_not_read_and_replaced(machine: Machine, url: str, heard: list[str]) -> None:
    write(machine("one"), range(10))
    write(machine("one"), range(10, 20))
    name = there(url)["shards"][0]["file"]  # type: ignore[index]
    with fsspec.open(f"{url}/{KEY.digest}/{name}", "wb") as file:
        file.write(b"nothing of use")
    table = opened(machine("two"))
    assert table.num_known == 10 and len(heard) == 1 and name in heard[0] and "torn" in heard[0]
    table.write(np.arange(10), LOGITS[:10])
    table.close()
    assert opened(machine("three")).num_known == 20 and len(heard) == 1


def test_a_damaged_local_copy_is_fetched_again(machine: Machine, heard: list[str]) -> None:
    write(machine("one"), range(10))
    store = machine("one")
    shard = next(store.folder.glob("*/shard-*"))
    shard.write_bytes(b"torn")
    assert opened(store).num_known == 10
    assert len(heard) == 1 and "torn" in heard[0]


def test_the_listing_has_what_is_only_there(machine: Machine) -> None:
    write(machine("one"), range(10))
    (table,) = machine("two").tables()
    assert table.about == {"teacher": "resnet"} and table.num_known == 10
    assert machine("two").prune(0) == [] and len(machine("one").prune(0)) == 1
    assert opened(machine("one")).num_known == 10  # from the URL again


def test_a_table_of_another_form_at_the_url_is_reported_and_replaced(machine: Machine, heard: list[str]) -> None:
    write(machine("one"), range(10))
    table = machine("two").table(KEY, 40, 3, top_k=2)
    assert table.num_known == 0 and "another form" in heard[0]
    table.write(np.arange(5), LOGITS[:5])
    table.close()
    assert machine("three").table(KEY, 40, 3, top_k=2).num_known == 5


def test_a_url_that_cannot_be_written_any_more_costs_the_copy_only(
    tmp_path: Path, make_config: Callable[..., Config], heard: list[str]
) -> None:
    config = make_config(cache_dir=str(tmp_path / "cache"), store={"path": f"file://{tmp_path}/bucket"})
    table = opened(open_store(config, heard.append))
    table.write(np.arange(10), LOGITS[:10])
    (tmp_path / "bucket").write_text("in the way")
    table.close()
    assert len(heard) == 1 and "copied next time" in heard[0] and "store.path file://" in heard[0]
    (tmp_path / "bucket").unlink()
    opened(open_store(config)).close()
    other = config.model_copy(update={"cache_dir": str(tmp_path / "other")})
    assert opened(open_store(other)).num_known == 10


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("nonsense://bucket/labels", ConfigError, "nonsense"),
        ("ftp://127.0.0.1:1/labels", SoftLabelError, "refused"),
        ("file:///dev/null/labels", SoftLabelError, "store.path file:///dev/null/labels"),
    ],
)
def test_an_unknown_or_unreachable_url_is_one_line(
    path: str, kind: type[RaydistillError], said: str, tmp_path: Path, make_config: Callable[..., Config]
) -> None:
    with pytest.raises(kind, match=said) as caught:
        open_store(make_config(cache_dir=str(tmp_path / "cache"), store={"path": path}))
    assert "store.path" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()
