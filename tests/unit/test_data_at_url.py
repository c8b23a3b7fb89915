"""Data at a URL is fetched once and is the same data; a node without the data gets it, or says so in one line."""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tiny

from raydistill.commands.in_job import check_whole
from raydistill.commands.places import places_in
from raydistill.commands.preparing import as_config
from raydistill.config.data import DataConfig, TaskConfig
from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.data.dataset import Prepared, TaskData, load_task_data
from raydistill.errors import ConfigError, DataError
from raydistill.remote.files import Remote

ROWS = [(f"what a {word} film number {number}", word) for number in range(40) for word in ("good", "bad")]


@pytest.fixture(params=["file", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket" if request.param == "file" else f"memory://{uuid.uuid4().hex}"


def put(bucket: str, place: str, path: Path) -> str:
    """A file or a folder, as somebody put it there; its URL."""
    remote = Remote(f"{bucket}/{place}", "here")
    for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
        inside = () if file == path else file.relative_to(path).parts
        if inside:
            remote.write(file.read_bytes(), *inside)
        else:
            Remote(f"{bucket}/{place}".rsplit("/", 1)[0], "here").write(file.read_bytes(), place.rsplit("/", 1)[-1])
    return remote.url


def load(
    cache: Path,
    path: str | Path,
    domain: str = "text",
    source: str = "csv",
    heard: list[str] | None = None,
    prepared: Prepared | None = None,
    **data: Any,
) -> TaskData:
    task = TaskConfig(domain=domain, data=DataConfig(source=source, path=str(path), **data))  # type: ignore[arg-type]
    say = (lambda text: None) if heard is None else heard.append
    return load_task_data("it", task, cache, say, prepared)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    tiny.write_csv(tmp_path / "here" / "texts.csv", ("text", "label"), list(ROWS))
    return tmp_path / "here" / "texts.csv"


def test_a_table_is_fetched_once_and_is_the_same_data(texts: Path, bucket: str, tmp_path: Path) -> None:
    url, heard = put(bucket, "data/texts.csv", texts), []
    data = load(tmp_path / "cache", url, heard=heard)
    assert data.fingerprint == load(tmp_path / "other", texts).fingerprint
    assert any(f"fetching {url}" in line for line in heard)
    heard.clear()
    assert load(tmp_path / "cache", url, heard=heard).fingerprint == data.fingerprint
    assert heard == []
    shutil.rmtree(tmp_path / "cache" / "data")
    load(tmp_path / "cache", url, heard=heard)
    assert heard and not any("fetching" in line for line in heard)


@pytest.mark.parametrize("source", ["imagefolder", "audiofolder", "disk", "json", "parquet", "csv"])
def test_all_kinds_of_files_and_folders_are_fetched(source: str, bucket: str, tmp_path: Path) -> None:
    import datasets

    here, domain, options = tmp_path / "here", "text", {}
    if source == "imagefolder":
        tiny.write_pictures(here, each=6)
        domain, options = "vision", {"image_size": 16}
    elif source == "audiofolder":
        tiny.write_sounds(here, each=6)
        (here / "sounds.csv").unlink()
        domain, options = "speech", {"sample_rate": tiny.RATE}
    else:
        rows = datasets.Dataset.from_dict({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
        if source == "disk":
            rows.save_to_disk(str(here))
        else:
            here.mkdir()
            getattr(rows, f"to_{source}")(str(here / f"train.{source}"))
    url = put(bucket, "data", here)
    one = load(tmp_path / "cache", url, domain, source, **options)
    two = load(tmp_path / "other", here, domain, source, **options)
    assert one.fingerprint == two.fingerprint and one.label_names == two.label_names and len(one.train) > 5


def test_a_table_of_file_names_is_fetched_with_its_folder(bucket: str, tmp_path: Path) -> None:
    tiny.write_sounds(tmp_path / "here", each=6)
    url, options = put(bucket, "data", tmp_path / "here"), {"sample_rate": tiny.RATE}
    data = load(tmp_path / "cache", f"{url}/sounds.csv", "speech", "csv", **options)
    assert data.skipped == () and data.label_names == tiny.LABELS["tones"]
    assert data.fingerprint == load(tmp_path / "other", tmp_path / "here/sounds.csv", "speech", **options).fingerprint


def test_what_changed_at_the_url_is_fetched_again(texts: Path, bucket: str, tmp_path: Path) -> None:
    url = put(bucket, "texts.csv", texts)
    before = load(tmp_path / "cache", url)
    tiny.write_csv(texts, ("text", "label"), [*ROWS, ("one more", "good")])
    put(bucket, "texts.csv", texts)
    after = load(tmp_path / "cache", url)
    assert after.fingerprint != before.fingerprint
    assert after.fingerprint == load(tmp_path / "other", texts).fingerprint


def test_names_that_lead_out_of_the_folder_are_not_fetched(tmp_path: Path, texts: Path) -> None:
    files = fsspec.filesystem("memory")
    root = f"/{uuid.uuid4().hex}"
    files.pipe(f"{root}/data/train.csv", texts.read_bytes())
    files.store[f"{root}/data/../../escaped.csv"] = files.store[f"{root}/data/train.csv"]
    try:
        load(tmp_path / "deep" / "cache", f"memory:/{root}/data")
    finally:
        del files.store[f"{root}/data/../../escaped.csv"]
    assert not list(tmp_path.rglob("escaped.csv"))


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("file:///nowhere/at/all.csv", DataError, "no such file or folder"),
        ("nonsense://data/texts.csv", ConfigError, "no URL that is known"),
        ("ftp://127.0.0.1:1/texts.csv", DataError, "refused"),
    ],
)
def test_a_url_of_no_use_is_one_line_that_names_the_key(
    url: str, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said) as caught:
        load(tmp_path / "cache", url)
    assert url in str(caught.value) and "tasks.it.data.path" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_what_is_wrong_with_the_data_names_the_url(texts: Path, bucket: str, tmp_path: Path) -> None:
    url = put(bucket, "texts.csv", texts)
    with pytest.raises(DataError, match=r"cannot read parquet") as caught:
        load(tmp_path / "cache", url, source="parquet")
    assert url in str(caught.value) and "cache" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_named(texts: Path, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot .*cache"):
        load(tmp_path / "cache", put(bucket, "texts.csv", texts))


def test_a_node_that_has_the_prepared_data_needs_nothing_else(texts: Path, tmp_path: Path) -> None:
    data = load(tmp_path / "cache", texts)
    texts.unlink()
    again = load(tmp_path / "cache", texts, prepared=data.prepared)
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.train.labels, data.train.labels)


def test_a_node_without_the_data_gets_it_where_it_can(texts: Path, bucket: str, tmp_path: Path) -> None:
    for path in (texts, put(bucket, "texts.csv", texts)):
        data = load(tmp_path / "cache", path)
        assert load(tmp_path / "node", path, prepared=data.prepared).fingerprint == data.fingerprint


def test_a_node_without_the_data_says_so_by_name(texts: Path, tmp_path: Path) -> None:
    data = load(tmp_path / "cache", texts)
    texts.unlink()
    with pytest.raises(DataError) as caught:
        load(tmp_path / "node", texts, prepared=data.prepared)
    text = str(caught.value)
    assert f"node {socket.gethostname()} has neither {texts}" in text and "\n" not in text
    assert "storage that every node sees" in text and "tasks.it.data.path be a URL" in text


def test_a_node_with_other_data_is_refused(texts: Path, tmp_path: Path) -> None:
    data = load(tmp_path / "cache", texts)
    tiny.write_csv(texts, ("text", "label"), ROWS[:60])
    with pytest.raises(DataError, match="not what the command began with"):
        load(tmp_path / "node", texts, prepared=data.prepared)


def test_an_error_on_a_node_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"on node {socket.gethostname()}: task 'it': cannot read"):
        load(tmp_path, "file:///nowhere.csv", prepared=Prepared("it-0", "fingerprint"))


def test_a_url_is_no_path_of_the_config(make_config: Callable[..., Config]) -> None:
    tasks = {"it": {"domain": "text", "data": {"source": "csv", "path": "s3://bucket/texts.csv"}}}
    config = as_config(make_config((), tasks=tasks, cache_dir="/shared/cache"))
    assert config.tasks["it"].data.path == "s3://bucket/texts.csv"
    assert "tasks.it.data.path" not in places_in(config)
    check_whole(config)


@pytest.mark.parametrize("key", ["cache_dir", "teachers.expert.checkpoint"])
def test_what_cannot_be_a_url_is_refused(key: str, make_config: Callable[..., Config]) -> None:
    teachers = {"expert": {"task": "mood", "loader": "python", "model": "a:b"}}
    content = make_config(("mood",), teachers=teachers).model_dump(mode="json")
    with pytest.raises(ConfigError, match=rf"{key}.*URL"):
        load_config(content, [f"{key}=s3://bucket/x"])
