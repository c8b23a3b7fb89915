"""Pools as runs see them: the same answers, shared, placed, scaled, and gone when nobody needs them."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pool_teachers
import pytest
from pool_teachers import LABELS, pictures, pool_config
from small_runs import wait_until

from raydistill.commands.teachers import list_teachers, stop_teachers
from raydistill.errors import TeacherError, TeacherGone
from raydistill.teachers.pool.launcher import RayLauncher
from raydistill.teachers.pool.names import ANY_REPLICA_PREFIX, REPLICA_PREFIX, SUPERVISOR_PREFIX, new_replica_name
from raydistill.teachers.pool.opening import Pools, open_pools
from raydistill.teachers.pool.placement import shared_actor
from raydistill.teachers.teacher import load_teacher

NAMES = {"digits": LABELS}
SIZES = (2, 3, 5, 6)


@pytest.fixture(scope="module", autouse=True)
def ray_of_our_own() -> Iterator[None]:
    import ray

    ray.init("local", num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def replicas() -> list[str]:
    return sorted(RayLauncher().find(REPLICA_PREFIX))


def nothing(message: str) -> None:
    pass


def test_a_pool_answers_like_the_model_itself_and_ends_with_the_run(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one")
    local = load_teacher(config, "one", LABELS)
    said: list[str] = []
    with open_pools(config, NAMES, said.append) as pools:
        assert pools.descriptions["one"]["fingerprint"] == local.fingerprint
        assert pools.descriptions["one"]["num_parameters"] == local.num_parameters
        client = pickle.loads(pickle.dumps(pools.client))()  # as it reaches a worker
        requests = [client.ask("one", pictures(8, seed)) for seed in range(20)]
        for seed, request in enumerate(requests):
            answer = request.result()
            np.testing.assert_array_equal(answer.logits, local.logits(pictures(8, seed)))
            assert (answer.failovers, answer.hedges, answer.gap_s) == (0, 0, 0.0)
            assert answer.busy_s > 0
        with pytest.raises(TeacherError, match="teacher 'one' failed: RuntimeError: thirteen rows are too many"):
            client.ask("one", pictures(13)).result()
        assert len(client.ask("one", pictures(3)).result().logits) == 3
        assert pools.latency_ms("one", pictures(4)) > 0
        client.close()
        client.close()
        assert len(replicas()) == 1
    assert any("one is" in text for text in said)
    wait_until(lambda: not replicas(), 5)


def test_runs_with_the_same_teacher_share_it(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one")
    other = config.model_copy(update={"name": "another", "seed": 5})
    with open_pools(config, NAMES, nothing) as first:
        began = time.monotonic()
        with open_pools(other, NAMES, nothing) as second:
            assert time.monotonic() - began < 2  # nothing was loaded
            assert first.descriptions == second.descriptions
            for pools in (first, second):
                pools.client().ask("one", pictures(5)).result()
            assert len(pool_teachers.processes(tmp_path / "one")) == 1
        assert len(replicas()) == 1
        first.client().ask("one", pictures(5)).result()
    wait_until(lambda: not replicas(), 5)
    assert pool_teachers.passes(tmp_path / "one") == [5, 5, 5]


def test_students_begin_with_replicas_of_their_own(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one", min_replicas=2, hedge_s=60)  # however slow the machine is
    with open_pools(config, NAMES, nothing) as first, open_pools(config, NAMES, nothing) as second:
        wait_until(lambda: all(pools.labeller.link("one").num_serving == 2 for pools in (first, second)))
        one, other = wait_until(lambda: all(asked_by_now(first)) and asked_by_now(first))  # loading counts
        for pools, count in ((first, 5), (second, 7)):
            for _ in range(count):  # one at a time: none ever owes it less than another one
                pools.labeller.ask("one", pictures(3)).result()
        wait_until(lambda: sum(asked_by_now(first)) >= one + other + 12)
        assert asked_by_now(first) == [one + 5, other + 7]


def asked_by_now(pools: Pools) -> list[int]:
    """Requests that each replica was done with, as its student's view has it."""
    view = pools.labeller.link("one").view
    assert view is not None
    return [view.ended.get(name, 0) for name, _ in view.replicas]


def test_teachers_have_devices_of_their_own(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one", "two", placement={"num_cpus": 1, "num_gpus": 1})
    with open_pools(config, NAMES, nothing) as pools:
        ids = [pools.descriptions[name]["gpu_ids"] for name in ("one", "two")]
        assert sorted(map(tuple, ids)) == [("0",), ("1",)]


def test_small_requests_are_merged_within_a_tolerance(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one", max_batch_size=64, max_wait_ms=20)
    local = load_teacher(config, "one", LABELS)
    with open_pools(config, NAMES, nothing) as pools:
        clients = [pools.client() for _ in range(4)]

        def student(number: int) -> None:
            requests = [(seed, clients[number].ask("one", pictures(SIZES[number], seed))) for seed in range(25)]
            for seed, request in requests:
                expected = local.logits(pictures(SIZES[number], seed))
                np.testing.assert_allclose(request.result().logits, expected, rtol=2e-3, atol=2e-3)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(student, range(4)))
    passes = pool_teachers.passes(tmp_path / "one")
    assert sum(passes) == 25 * sum(SIZES)
    assert max(passes) > max(SIZES)
    assert len(passes) < 60


def test_a_pool_grows_while_students_wait(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one", max_replicas=2)
    (tmp_path / "one" / "slow").write_text("0.1")
    with open_pools(config, NAMES, nothing) as pools:
        client = pools.client()

        def grown() -> bool:
            [request.result() for request in [client.ask("one", pictures(2)) for _ in range(8)]]
            return client.link("one").num_serving == 2

        wait_until(grown)
        assert any("1 → 2 replicas: students wait" in line for _, line in client.events())
        [request.result() for request in [client.ask("one", pictures(2)) for _ in range(4)]]
        assert len(pool_teachers.processes(tmp_path / "one")) == 2


def test_a_teacher_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    config = pool_config(tmp_path, "one")
    (tmp_path / "one" / "broken").write_text("it has no body")
    with (
        pytest.raises(
            TeacherError, match=r"^teacher 'one': cannot build python model 'pool_teachers:steered': it has no body"
        ) as caught,
        open_pools(config, NAMES, nothing),
    ):
        pass
    assert "\n" not in str(caught.value)
    wait_until(lambda: not replicas(), 5)


def test_no_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.teachers.pool.opening.LOAD_LEAST_S", 1.0)
    config = pool_config(tmp_path, "one", placement={"num_cpus": 7}, timeout_s=1, ray={"wait_s": 2})
    with pytest.raises(TeacherError, match=r"the cluster has no room for one \(it takes CPU 7\)"):
        open_pools(config, NAMES, nothing).__enter__()
    wait_until(lambda: not replicas(), 5)


def test_a_replica_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with open_pools(pool_config(tmp_path, "one"), NAMES, nothing) as pools:
        (folder / "wrong").touch()
        more = pool_config(tmp_path, "one", min_replicas=2)
        with open_pools(more, NAMES, nothing) as wider:
            link = wider.labeller.link("one")
            events: list[str] = []

            def refused() -> bool:
                events.extend(line for _, line in pools.events())
                return any("refused: its answer to the canary differs" in line for line in events)

            wait_until(refused)
            assert link.num_serving == 1
            (folder / "wrong").unlink()
            wait_until(lambda: link.num_serving == 2)


def test_the_command_lists_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_pools(pool_config(tmp_path, "one", distill={"teacher_loss_after_s": 1}), NAMES, nothing) as pools:
        client = pools.labeller
        client.ask("one", pictures(9)).result()
        wait_until(lambda: list_teachers().pools[0].rows == 9, 5)
        printed = capsys.readouterr().out
        assert "1 serving" in printed
        assert "one: leased by pooled@" in printed
        stopped = stop_teachers()
        assert [pool.teacher for pool in stopped.pools] == ["one"]
        assert "ended one: 1 replicas, 1 leases, 9 rows" in capsys.readouterr().out
        assert replicas() == []
        with pytest.raises(TeacherGone, match="ended by `raydistill teachers --stop`"):
            client.ask("one", pictures(2)).result()
    list_teachers()
    assert "no teachers are running" in capsys.readouterr().out


def test_the_command_tells_orphans_from_what_it_cannot_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    class Nobody:
        """Has a name."""

    def named(name: str) -> Any:
        actor: Any = ray.remote(Nobody)
        handle = actor.options(**shared_actor(name), num_cpus=0).remote()
        ray.get(handle.__ray_ready__.remote(), timeout=60)
        return handle

    names = [f"{SUPERVISOR_PREFIX}9.9", f"{ANY_REPLICA_PREFIX}9.9-{'0' * 16}-abc123", new_replica_name("1" * 64)]
    actors = [named(name) for name in names]
    try:
        status = list_teachers()
        assert status.supervisors == (names[0],)
        assert status.others == (names[1],)
        assert status.orphans == (names[2],)
        assert f"of {names[0]}: {names[1]}" in capsys.readouterr().out.replace("\n", "")
        assert stop_teachers() == status
        wait_until(lambda: not RayLauncher().find("raydistill-"), 10)
    finally:
        for actor in actors:
            ray.kill(actor)


def test_where_no_ray_runs_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def nobody(*_: Any, **__: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody)
    list_teachers()
    stop_teachers()
    assert capsys.readouterr().out.splitlines() == ["no teachers are running: there is no Ray on this machine"] * 2
