"""A store that is damaged, foreign, read-only or not one at all: one clear line, nothing wrong read, nothing lost."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import Lab, assert_nothing_half_written, assert_refused, checkpoint_of, report_of, teacher

import raydistill
from raydistill.errors import ConfigError
from raydistill.soft_labels.index import FORMAT, INDEX

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # <linux/prctl.h>, <linux/capability.h>


def heed_modes() -> None:
    """Between fork and exec: makes root heed the modes of files, too."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@contextlib.contextmanager
def read_only(store: Path) -> Iterator[None]:
    folders = [store, *store.glob("*/")]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.fixture(scope="module")
def filled(lab: Lab) -> Path:
    """A store with every soft label of the lab's usual run."""
    store = lab.new("store")
    done = lab.run("label", lab.config(), f"store.path={store}", "--out", lab.new("run"))
    assert done.code == 0, done.stderr
    return store


@pytest.fixture
def store(lab: Lab, filled: Path) -> Path:
    """One of the test's own, full."""
    return shutil.copytree(filled, lab.new("store"))


def tables(store: Path) -> dict[str, Path]:
    """Their folders, by split and view."""
    found = {}
    for path in store.glob(f"*/{INDEX}"):
        index = json.loads(path.read_text())
        found[f"{index['about']['split']} {index['key']['view']}"] = path.parent
    return found


def shard(table: Path) -> Path:
    (path,) = table.glob("shard-*")
    return path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def change_index(table: Path, **changes: object) -> None:
    path = table / INDEX
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damaged_shards_are_named_and_dropped_by_verify(
    lab: Lab, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tables(store)
    flipped, torn = shard(there["train 1"]), shard(there["train 2"])
    flip_a_bit(flipped)
    os.truncate(torn, 100)
    raydistill.verify_store(lab.config(), [f"store.path={store}"])
    lines = capsys.readouterr().out.splitlines()
    said = {file.name: [line for line in lines if file.name in line] for file in (flipped, torn)}
    assert len(said[flipped.name]) == 1 and "wrong checksum" in said[flipped.name][0]
    assert len(said[torn.name]) == 1 and "torn" in said[torn.name][0]
    assert not flipped.exists() and not torn.exists()
    assert shard(there["validation 0"]).exists()


def test_a_store_of_a_newer_version_is_refused_and_left_alone(lab: Lab, store: Path) -> None:
    table, out = tables(store)["train 1"], lab.new("run")
    change_index(table, format=FORMAT + 1)
    before = {path.name: path.stat().st_mtime_ns for path in table.iterdir() if path.is_file()}
    done = lab.run("label", lab.config(), f"store.path={store}", "--out", out)
    assert_refused(done, str(table), "newer raydistill", "store.path")
    assert_nothing_half_written(out, store)
    after = {path.name: path.stat().st_mtime_ns for path in table.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before


def test_a_damaged_shard_of_a_read_only_store_is_never_read(lab: Lab, store: Path) -> None:
    out = lab.new("run")
    flip_a_bit(shard(tables(store)["train 1"]))
    with read_only(store):
        done = lab.run("distill", lab.config(), f"store.path={store}", "--out", out, preexec_fn=heed_modes)
    # It may refuse, or ask the teacher without keeping what it says.
    assert done.code == 2 or report_of(out)["cost"]["teacher_samples"] > 0


def test_prune_leaves_folders_of_something_else_alone(lab: Lab) -> None:
    projects = lab.new("projects")
    for name, file in (("website", "index.json"), ("tool", "lock")):
        (projects / name).mkdir(parents=True)
        (projects / name / file).write_text("[]")
        (projects / name / "thesis.txt").write_text("chapter one")
    raydistill.prune_store(lab.config(), [f"store.path={projects}"], size="0")
    assert {path.parent.name for path in projects.glob("*/thesis.txt")} == {"website", "tool"}


def test_an_empty_path_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match=r"store\.path"):
        raydistill.list_store(lab.config(store={"path": ""}))


def test_an_unknown_kind_of_url_is_refused_before_a_teacher_is_trained(lab: Lab) -> None:
    out, cache = lab.new("run"), lab.new("cache")
    done = lab.run("label", lab.config(cache_dir=str(cache)), "store.path=foo://labels", "--out", out)
    assert_refused(done, "store.path", "foo")
    assert not list((cache / "teachers").glob("*"))


def test_a_teacher_that_fails_in_this_process_is_named(lab: Lab, filled: Path) -> None:
    broken = {"expert": teacher(checkpoint=str(checkpoint_of(lab.config())), options={"broken": "a headache"})}
    config = lab.config(teachers=broken, store={"path": str(lab.new("store"))})
    assert_refused(lab.run("label", config, "--out", lab.new("run")), "'expert'", "a headache")
