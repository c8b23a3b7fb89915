"""Kills by pid, stops, slowness: no answer is lost, repeated or changed, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pool_teachers import LABELS, SUPPORT, pictures, pool_config
from small_runs import wait_until

from raydistill.config.models import Config
from raydistill.errors import TeacherGone
from raydistill.soft_labels.source import Answer
from raydistill.teachers.pool import membership
from raydistill.teachers.pool.client import PoolClient
from raydistill.teachers.pool.finding import supervisor
from raydistill.teachers.pool.launcher import RayLauncher
from raydistill.teachers.pool.names import REPLICA_PREFIX
from raydistill.teachers.pool.opening import Pools, open_pools
from raydistill.teachers.teacher import load_teacher

ROWS = 6


@pytest.fixture(scope="module", autouse=True)
def ray_of_our_own() -> Iterator[None]:
    import ray

    ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@contextlib.contextmanager
def pooled(config: Config, serving: int) -> Iterator[tuple[Pools, PoolClient]]:
    """Pools with a worker's client that knows this many replicas."""
    with open_pools(config, {"digits": LABELS}, lambda _: None) as pools:
        client = pools.client()
        wait_until(lambda: client.link("one").num_serving >= serving)
        yield pools, client
    wait_until(lambda: not RayLauncher().find(REPLICA_PREFIX), 10)


def stream(client: PoolClient, count: int, window: int, on: dict[int, Callable[[], Any]]) -> list[Answer]:
    """Ask about `count` batches, `window` at a time, and do something after some of them, as a student's loop does."""
    answers: list[Answer] = []
    pending = []
    for number in range(count):
        pending.append(client.ask("one", pictures(ROWS, number)))
        if len(pending) == window:
            answers.append(pending.pop(0).result())
            on.get(len(answers), lambda: None)()
    return answers + [request.result() for request in pending]


def assert_right(answers: list[Answer], config: Config) -> None:
    """Each is what the model itself says, bit for bit, in order."""
    local = load_teacher(config, "one", LABELS)
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.logits, local.logits(pictures(ROWS, number)))


def pids(folder: Path) -> list[int]:
    """Of replicas that live."""
    known = [int(path.suffix[1:]) for path in folder.glob("passes.*")]
    return sorted(pid for pid in known if pid != os.getpid() and psutil.pid_exists(pid))


def lines(*clients: PoolClient) -> str:
    return "\n".join(line for client in clients for _, line in client.events())


def supervisor_pid() -> int:
    (pid,) = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0] == "ray::SupervisorActor" and _is_ours(process)
    ]
    return pid


def _is_ours(process: psutil.Process) -> bool:
    return any(parent.pid == os.getpid() for parent in process.parents())


def test_a_replica_killed_in_mid_batch_changes_nothing(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", min_replicas=2), tmp_path / "one"
    (folder / "slow").write_text("0.02")
    with pooled(config, 2) as (_, client):
        stream(client, 12, 4, {})
        victims = pids(folder)
        assert len(victims) == 2
        answers = stream(client, 80, 4, {20: lambda: os.kill(victims[0], signal.SIGKILL)})
        assert_right(answers, config)
        assert 1 <= sum(answer.failovers for answer in answers) <= 4
        worst_gap_s = max(answer.gap_s for answer in answers)
        assert 0 < worst_gap_s < 1
        wait_until(lambda: client.link("one").num_serving == 2)
        told = lines(client)
        assert "its process ended; " in told
        assert "to another one" in told
        assert "lost: its process ended" in told
        assert "serves in the lost one's place" in told


def test_one_that_stops_is_overtaken_and_replaced(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", min_replicas=2, hedge_s=0.5, timeout_s=4), tmp_path / "one"
    with pooled(config, 2) as (_, client):
        stream(client, 20, 4, {})
        victim = pids(folder)[0]
        answers = stream(client, 40, 4, {10: lambda: os.kill(victim, signal.SIGSTOP)})
        assert_right(answers, config)
        assert 0.4 < max(answer.gap_s for answer in answers) < 3
        assert sum(answer.hedges for answer in answers) >= 1
        wait_until(lambda: not psutil.pid_exists(victim))
        wait_until(lambda: client.link("one").num_serving == 2)
        told = lines(client)
        assert told.count("is slow; another one was asked after 0.5 s") == 1
        assert "lost: was silent for" in told or "lost: gave no answer" in told


def test_one_that_hangs_in_a_pass_is_replaced(tmp_path: Path) -> None:
    """Its process answers pings; only its student sees it."""
    config, folder = pool_config(tmp_path, "one", timeout_s=2), tmp_path / "one"
    with pooled(config, 1) as (_, client):
        (pid,) = (stream(client, 4, 2, {}), pids(folder))[1]
        (folder / f"slow.{pid}").write_text("1000")
        answers = stream(client, 6, 3, {})
        assert_right(answers, config)
        assert [answer.failovers for answer in answers[:3]] == [1, 1, 1]
        assert not psutil.pid_exists(pid)
        assert "no answer within 2 s" in lines(client)


def test_one_that_hangs_is_replaced_while_another_answers_for_it(tmp_path: Path) -> None:
    """Its student has the answer from the other one, and waits no more."""
    config, folder = pool_config(tmp_path, "one", min_replicas=2, hedge_s=0.3, timeout_s=3), tmp_path / "one"
    with pooled(config, 2) as (_, client):
        stream(client, 20, 4, {})
        victim = pids(folder)[0]
        (folder / f"slow.{victim}").write_text("1000")
        assert_right(stream(client, 12, 4, {}), config)
        wait_until(lambda: "no answer within 3 s" in lines(client), 15)
        wait_until(lambda: not psutil.pid_exists(victim), 15)


def test_one_that_is_busy_with_other_students_does_not_hang(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", timeout_s=4), tmp_path / "one"
    with pooled(config, 1) as (pools, client):
        (pid,) = (stream(client, 4, 2, {}), pids(folder))[1]
        (folder / "slow").write_text("0.5")
        others = [pools.labeller.ask("one", pictures(ROWS, seed)) for seed in range(16)]
        answers = stream(client, 1, 1, {})
        assert_right(answers, config)
        assert answers[0].failovers == 0
        assert all(other.result().failovers == 0 for other in others)
        assert pids(folder) == [pid]


def test_who_leaves_waits_no_more(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one"), tmp_path / "one"
    with pooled(config, 1) as (_, client), ThreadPoolExecutor(1) as threads:
        (folder / "slow").write_text("5")
        waiting = threads.submit(client.ask("one", pictures(ROWS)).result)
        time.sleep(0.3)
        client.close()
        with pytest.raises(TeacherGone, match="teacher 'one': this run has left its pool"):
            waiting.result(2)
        with pytest.raises(TeacherGone, match="teacher 'one': this run has left its pool"):
            client.ask("one", pictures(ROWS)).result()
        (folder / "slow").unlink()


def test_a_request_that_no_replica_answers_is_an_error(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", timeout_s=2), tmp_path / "one"
    with pooled(config, 1) as (_, client):
        (folder / "hangs").touch()
        with pytest.raises(TeacherGone, match=r"no reply within 2 s, from 2 replicas in turn; raise teachers.one.time"):
            client.ask("one", pictures(ROWS)).result()


def test_a_slow_one_is_overtaken(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", min_replicas=2), tmp_path / "one"
    with pooled(config, 2) as (_, client):
        stream(client, 20, 4, {})
        slow = pids(folder)[0]
        (folder / f"slow.{slow}").write_text("4")
        began = time.monotonic()
        answers = stream(client, 40, 4, {})
        assert_right(answers, config)
        assert sum(answer.hedges for answer in answers) >= 1
        assert sum(answer.failovers for answer in answers) == 0
        assert time.monotonic() - began < 8
        assert psutil.pid_exists(slow)


def test_all_killed_are_waited_for(tmp_path: Path) -> None:
    config, folder = pool_config(tmp_path, "one", min_replicas=2), tmp_path / "one"
    with pooled(config, 2) as (_, client):
        stream(client, 20, 4, {})
        answers = stream(client, 30, 4, {10: lambda: [os.kill(pid, signal.SIGKILL) for pid in pids(folder)]})
        assert_right(answers, config)
        # What went from one dead replica to the other counts twice.
        assert 3 <= sum(answer.failovers for answer in answers) <= 8
        assert client.link("one").num_serving >= 1


def test_a_teacher_that_is_gone_for_good_is_an_error_in_time(tmp_path: Path) -> None:
    rules = {"on_teacher_loss": "stored", "teacher_loss_after_s": 2}
    config, folder = pool_config(tmp_path, "one", distill=rules), tmp_path / "one"
    with pooled(config, 1) as (_, client):
        stream(client, 3, 1, {})
        (folder / "slow").write_text("1000")  # whoever comes up stays at its canary
        os.kill(pids(folder)[0], signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(TeacherGone, match=r"teacher 'one': no replica for 2 s: .*; see distill.on_teacher_loss"):
            client.ask("one", pictures(ROWS)).result()
        assert 1.5 < time.monotonic() - began < 5
        assert "gone: no replica for 2 s" in lines(client)
        (folder / "slow").unlink()


@pytest.mark.parametrize("how", ["SIGKILL", "ray.kill"])
def test_students_go_on_without_the_supervisor_and_a_new_one_adopts_the_replicas(tmp_path: Path, how: str) -> None:
    import ray

    config, folder = pool_config(tmp_path, "one", min_replicas=2), tmp_path / "one"
    with pooled(config, 2) as (pools, client):
        stream(client, 20, 4, {})
        before, old = pids(folder), supervisor_pid()

        def kill() -> None:
            if how == "SIGKILL":
                os.kill(old, signal.SIGKILL)
            else:
                ray.kill(supervisor())

        answers = stream(client, 60, 4, {10: kill})
        assert_right(answers, config)
        assert all(answer.failovers == 0 for answer in answers)
        wait_until(lambda: not psutil.pid_exists(old), 10)

        def adopted() -> bool:
            with contextlib.suppress(ray.exceptions.RayError):
                status = ray.get(supervisor().status.remote(), timeout=5)
                return bool(status) and len(status[0].replicas) == 2 and len(status[0].leases) == 2
            return False

        wait_until(adopted)
        assert pids(folder) == before
        assert "the teachers' supervisor was " in lines(client, pools.labeller)
        # It does its work: a replica that dies now is replaced.
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(set(pids(folder)) - set(before)) == 1)
        assert_right(stream(client, 20, 4, {}), config)


def test_a_supervisor_that_comes_up_slowly_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes longer than these to come up, as it takes longer than seconds on a loaded machine."""
    import ray

    ray.kill(supervisor())
    monkeypatch.setattr(membership, "REPLY_S", 0.05)
    monkeypatch.setattr(membership, "SILENT_S", 0.05)
    monkeypatch.setattr("raydistill.teachers.pool.opening.LOAD_LEAST_S", 30.0)
    with pooled(pool_config(tmp_path, "one", timeout_s=5), 1) as (_, client):
        assert_right(stream(client, 3, 1, {}), pool_config(tmp_path, "one"))


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import ray, pool_teachers
from pathlib import Path
from raydistill.teachers.pool.opening import open_pools
ray.init(address=sys.argv[3], log_to_driver=False, logging_level="ERROR")
config = pool_teachers.pool_config(Path(sys.argv[2]), "one", min_replicas=2)
with open_pools(config, {"digits": pool_teachers.LABELS}, lambda _: None) as pools:
    pools.labeller.ask("one", pool_teachers.pictures(6)).result()
    print("ready", flush=True)
    time.sleep(1000)
"""


def test_a_killed_driver_gives_back_its_teachers(tmp_path: Path) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(SUPPORT), str(tmp_path), address], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline().strip() == "ready"
        assert RayLauncher().find(REPLICA_PREFIX)
        replicas = pids(tmp_path / "one")
    finally:
        driver.kill()
        driver.wait()
        assert driver.stdout is not None
        driver.stdout.close()
    wait_until(lambda: not RayLauncher().find(REPLICA_PREFIX), 15)
    wait_until(lambda: not any(map(psutil.pid_exists, replicas)), 10)


def test_an_orphan_ends_itself(tmp_path: Path) -> None:
    import ray

    from raydistill.teachers.pool.identity import pool_spec
    from raydistill.teachers.pool.replica import replica_actor

    spec = pool_spec(pool_config(tmp_path, "one"), "one", LABELS)
    actor = replica_actor(spec).remote(spec, orphan_after_s=1.0)
    pid = ray.get(actor.load.remote(), timeout=60).description["pid"]
    for _ in range(4):
        time.sleep(0.5)
        assert ray.get(actor.ping.remote(), timeout=10).pid == pid
    wait_until(lambda: not psutil.pid_exists(pid), 10)
