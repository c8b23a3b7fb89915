"""Several processes that know nothing of each other share a store; some of them are killed.

The processes run this very file: see the end of it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import SoftLabelError
from raydistill.soft_labels import table as table_module
from raydistill.soft_labels.store import LabelKey, LabelStore, LabelTable

KEY = LabelKey("teacher", "split", 1)
NUM_ROWS, NUM_CLASSES, BATCH = 3_000, 20, 50


def opened(folder: Path) -> LabelTable:
    return LabelStore(folder).table(KEY, NUM_ROWS, NUM_CLASSES)


def teacher(rows: np.ndarray) -> np.ndarray:
    """What it says on these rows: whoever asks hears the same."""
    return np.sin(np.asarray(rows)[:, None] * 7.0 + np.arange(NUM_CLASSES)).astype(np.float16)


class Processes:
    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self, what: str, *arguments: object, preexec_fn: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, what, *map(str, arguments)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=preexec_fn,
        )  # fmt: skip
        self.running.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def end_all(self) -> None:
        for process in self.running:
            if process.poll() is None:
                self.kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.end_all()


def hear(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(word), line + process.stdout.read()
    return line


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    return said


def assert_sound(folder: Path) -> LabelTable:
    """Nothing damaged, nothing half written, and every known row is what the teacher says."""
    assert LabelStore(folder).verify() == []
    table = opened(folder)
    rows = np.flatnonzero(table.known(np.arange(NUM_ROWS)))
    np.testing.assert_array_equal(table.read(rows), teacher(rows))
    return table


def test_a_killed_owner_loses_his_claims_at_once(tmp_path: Path, processes: Processes) -> None:
    owner = processes.start("claim", tmp_path, 0, 100)
    hear(owner, "claimed 100")
    table = opened(tmp_path)
    assert table.claim(np.arange(50, 150)).tolist() == [False] * 50 + [True] * 50
    processes.kill(owner)
    assert table.claim(np.arange(100)).all()


def test_children_of_a_killed_owner_do_not_keep_his_claims(tmp_path: Path, processes: Processes) -> None:
    owner = processes.start("claim_and_fork", tmp_path, 0, 100)
    children = [int(pid) for pid in hear(owner, "children").split()[1:]]
    try:
        table = opened(tmp_path)
        assert not table.claim(np.arange(100)).any()
        processes.kill(owner)
        assert table.claim(np.arange(100)).all()
        for child in children:
            os.kill(child, 0)  # they live
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)


def test_two_processes_fill_one_table_and_compute_every_row_once(tmp_path: Path, processes: Processes) -> None:
    fillers = [processes.start("fill", tmp_path / "labels", seed) for seed in (1, 2)]
    for filler in fillers:
        hear(filler, "ready")
    for filler in fillers:
        assert filler.stdin is not None
        filler.stdin.write("go\n")
        filler.stdin.flush()
    computed = [[int(row) for row in finish(filler).split()] for filler in fillers]
    assert sorted(computed[0] + computed[1]) == list(range(NUM_ROWS))
    assert min(len(rows) for rows in computed) > 0
    table = assert_sound(tmp_path / "labels")
    assert table.complete
    assert len(list((tmp_path / "labels" / KEY.digest).glob("shard-*"))) == 1


def test_a_filler_that_is_killed_costs_only_what_it_had_not_flushed(tmp_path: Path, processes: Processes) -> None:
    victim, survivor = processes.start("fill", tmp_path, 1), processes.start("fill", tmp_path, 2)
    for filler in (victim, survivor):
        hear(filler, "ready")
        assert filler.stdin is not None
        filler.stdin.write("go\n")
        filler.stdin.flush()
    table = opened(tmp_path)
    while table.num_known < NUM_ROWS // 4:
        time.sleep(0.01)
        table.refresh()
    processes.kill(victim)
    computed = [int(row) for row in finish(survivor).split()]
    assert len(computed) == len(set(computed)) < NUM_ROWS
    assert assert_sound(tmp_path).complete


def test_a_writer_killed_at_any_moment_tears_nothing(tmp_path: Path, processes: Processes) -> None:
    generator = np.random.default_rng(0)
    before = 0
    for _ in range(8):
        writer = processes.start("write_forever", tmp_path)
        hear(writer, "ready")
        time.sleep(generator.uniform(0.0, 0.15))
        processes.kill(writer)
        table = assert_sound(tmp_path)
        assert table.num_known >= before
        before = table.num_known
        table.close()
    assert before > 0


def test_a_writer_killed_between_shard_and_index_leaves_the_table_as_it_was(
    tmp_path: Path, processes: Processes
) -> None:
    table = opened(tmp_path)
    table.write(np.arange(10), teacher(np.arange(10)))
    table.close()
    writer = processes.start("die_before_index", tmp_path)
    writer.wait(timeout=60)
    assert writer.returncode == -signal.SIGKILL
    assert len(list((tmp_path / KEY.digest).glob("shard-*"))) == 2
    table = assert_sound(tmp_path)
    assert table.num_known == 10 and table.claim(np.arange(10, 20)).all()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path, processes: Processes) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    said = finish(processes.start("write_much", tmp_path, preexec_fn=limit)).splitlines()
    assert len(said) == 3 and said[0] == said[1]
    assert f"cannot write soft labels to {tmp_path / KEY.digest} (File too large)" in said[0]
    assert "free some space or set store.path" in said[0]
    assert said[2] == "still known here: 1000"
    names = {path.name for path in (tmp_path / KEY.digest).iterdir()}
    assert names <= {"in_use", "lock", "claims", "owners"}
    assert "still known here: 1000" in finish(processes.start("write_much", tmp_path))
    assert assert_sound(tmp_path).num_known == 1000


def test_a_read_only_store_is_read_and_its_writers_hear_why(processes: Processes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, rows in ((KEY, NUM_ROWS), (LabelKey("partly", "split", 1), 10)):
            table = LabelStore(folder).table(key, NUM_ROWS, NUM_CLASSES)
            table.write(np.arange(rows), teacher(np.arange(rows)))
            table.close()
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            said = finish(processes.start("read_only", folder)).splitlines()
        finally:
            for path in (folder, *folder.glob("*/")):
                path.chmod(0o755)
        assert said[0] == "read"
        assert len(said) == 3 and said[1] == said[2]
        assert "cannot write soft labels to" in said[1] and "(Permission denied)" in said[1]
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# What the processes do.


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def claim(folder: Path, first: str, end: str) -> None:
    table = opened(folder)
    say("claimed", table.claim(np.arange(int(first), int(end))).sum())
    signal.pause()


def claim_and_fork(folder: Path, first: str, end: str) -> None:
    table = opened(folder)
    assert table.claim(np.arange(int(first), int(end))).all()
    forked = os.fork()
    if not forked:
        assert not table.known([0])[0] and table.num_rows == NUM_ROWS
        signal.pause()
    command = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    say("children", forked, command.pid)
    signal.pause()


def fill(folder: Path, seed: str) -> None:
    """As a training epoch does: batches in an order of its own, each needed before the next one."""
    table, computed = opened(folder), []
    say("ready")
    sys.stdin.readline()
    order = np.random.default_rng(int(seed)).permutation(NUM_ROWS)
    for start in range(0, NUM_ROWS, BATCH):
        rows = order[start : start + BATCH]
        while not table.known(rows).all():
            mine = rows[table.claim(rows)]
            if len(mine):
                time.sleep(0.005)  # the teacher
                table.write(mine, teacher(mine))
                computed += mine.tolist()
            else:
                table.flush()
                time.sleep(0.005)
        np.testing.assert_array_equal(table.read(rows), teacher(rows))
    table.close()
    say(*computed)


def write_forever(folder: Path) -> None:
    table_module.FLUSH_BYTES = 2_000
    say("ready")
    table = opened(folder)
    while True:
        rows = np.random.default_rng().permutation(NUM_ROWS)[:BATCH]
        mine = rows[table.claim(rows)]
        table.write(mine, teacher(mine))


def die_before_index(folder: Path) -> None:
    table = opened(folder)
    write_shard = table_module.write_shard

    def and_die(*arguments: object) -> None:
        write_shard(*arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    table_module.write_shard = and_die  # type: ignore[assignment]
    rows = np.arange(10, 20)
    table.claim(rows)
    table.write(rows, teacher(rows))
    table.close()


def write_much(folder: Path) -> None:
    table, rows = opened(folder), np.arange(1_000)
    table.write(rows, teacher(rows))
    for attempt in (table.flush, table.close):
        try:
            attempt()
        except SoftLabelError as error:
            say(error)
    say("still known here:", table.known(rows).sum())


def read_only(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:
        warm = opened(Path(elsewhere))  # imports whatever is imported late
        warm.write([0], teacher(np.array([0])))
        warm.close()
        np.testing.assert_array_equal(warm.read([0]), teacher(np.array([0])))
    if os.getuid() == 0:  # root may write anything
        os.setuid(65534)
    table, rows = opened(folder), np.arange(NUM_ROWS)
    np.testing.assert_array_equal(table.read(rows), teacher(rows))
    assert table.complete and not table.claim(rows).any()
    table.check()
    assert table.complete
    table.close()
    say("read")
    partly = LabelStore(folder).table(LabelKey("partly", "split", 1), NUM_ROWS, NUM_CLASSES)
    np.testing.assert_array_equal(partly.read(rows[:10]), teacher(rows[:10]))
    for attempt in (lambda: partly.claim([20]), lambda: partly.write([20], teacher(np.array([20])))):
        try:
            attempt()
        except SoftLabelError as error:
            say(error)
    partly.close()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
