"""The doctor on a real cluster of two nodes: what is well, and what is not, is told from every node."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_runs import Finished, Lab, assert_refused

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=2, labels={"role": "teacher"}, env_vars={"HOME": sys.argv[1]})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
TOKEN = "0123456789abcdef" * 4


@contextmanager
def running(lab: Lab, home: Path, **environment: str) -> Iterator[str]:
    """A cluster of two nodes, in a process of its own; the second one has another home. Gives its address."""
    home.mkdir()
    heads_home = lab.new("home")
    heads_home.mkdir()
    settings = {**lab.environment(), "HOME": str(heads_home), "RAY_AUTH_MODE": "disabled", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=settings, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = next(line.strip() for line in process.stdout if ":" in line)
        yield address
    finally:
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[str]:
    with running(lab, lab.new("home")) as address:
        yield address


def doctor(lab: Lab, *words: object, **environment: str) -> Finished:
    """`raydistill doctor WORDS…`, of a user with an empty home."""
    home = lab.new("user")
    (home / ".ray").mkdir(parents=True)
    settings = {
        "HOME": str(home), "RAY_TMPDIR": str(lab.folder / "no-ray"), "RAY_AUTH_MODE": "disabled", **environment
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        if not settings["RAY_AUTH_MODE"]:
            patch.delenv("RAY_AUTH_MODE")
        done = lab.run("doctor", *words)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.errors == [] and "\x1b" not in done.stdout
    return done


def lines(done: Finished, name: str) -> list[str]:
    """Those of one name, with their marks."""
    return [line for line in done.stdout.splitlines() if line[2:].startswith(f"{name}:")]


def left_over(*places: Path) -> list[Path]:
    return [path for place in places for path in place.rglob(".raydistill-doctor*")]


def test_without_ray_all_is_well_and_nothing_is_left(lab: Lab) -> None:
    cache, out = lab.new("cache"), lab.new("runs")
    done = doctor(lab, lab.config(cache_dir=str(cache), ray={}), "--out", out)
    assert done.code == 0, done.stdout
    assert lines(done, "Ray") == ["✓ Ray: none runs here: a command starts its own and ends it"]
    assert lines(done, "cache_dir") == [f"✓ cache_dir: {cache} can be written"]
    assert lines(done, "versions")[0].startswith("✓ versions: Python ")
    assert lines(done, "imports")[0].startswith("✓ ") and lines(done, "GPUs") and lines(done, "space")
    assert not cache.exists() and not out.exists()


def test_two_nodes_that_share_everything_are_well(lab: Lab, cluster: str) -> None:
    cache = lab.new("cache")
    config = lab.config(cache_dir=str(cache), store={"path": f"file://{lab.new('labels')}"}, ray={"address": cluster})
    done = doctor(lab, config, "--out", lab.new("runs"))
    assert done.code == 0, done.stdout
    assert "2 nodes" in lines(done, "Ray")[0] and cluster in lines(done, "Ray")[0]
    assert len(lines(done, "node")) == 2 and any(
        "2 CPU" in line and "role=teacher" in line for line in lines(done, "node")
    )
    for place in ("cache_dir", "store.path", "run folder"):
        assert "one and the same for 3 writers" in lines(done, place)[0] and lines(done, place)[0].startswith("✓")
    assert lines(done, "clock")[0].startswith("✓") and len(lines(done, "space")) == 2
    assert left_over(lab.folder) == []


def test_a_folder_that_is_another_one_on_a_node_is_found(lab: Lab, cluster: str) -> None:
    """`~` is not the same folder for the second node."""
    done = doctor(lab, lab.config(cache_dir="~/cache", ray={"address": cluster}), "--out", lab.new("runs"))
    assert done.code == 1, done.stdout
    (line,) = lines(done, "cache_dir")
    assert line.startswith("✗") and "is not there on" in line
    assert "fix: set cache_dir to a folder on storage that every node mounts" in done.stdout
    assert lines(done, "run folder")[0].startswith("✓")
    assert left_over(lab.folder) == []


def test_storage_of_one_process_is_no_shared_storage(lab: Lab, cluster: str) -> None:
    config = lab.config(store={"path": "memory://labels"}, ray={"address": cluster})
    done = doctor(lab, config, "--out", lab.new("runs"))
    assert done.code == 1 and "is not one place" in lines(done, "store.path")[0], done.stdout


def test_another_version_of_ray_is_told(lab: Lab, cluster: str) -> None:
    mine = lab.new("site")
    mine.mkdir()
    (mine / "sitecustomize.py").write_text("import ray\nray.__version__ = '1.2.3'\n")
    path = os.pathsep.join([str(mine), lab.environment()["PYTHONPATH"]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "environment", lambda gate=None: {**Lab.environment(lab, gate), "PYTHONPATH": path})
        done = doctor(lab, lab.config(ray={"address": cluster}))
    assert done.code == 1 and "this is Ray" in lines(done, "Ray")[0], done.stdout
    assert "pip install ray==" in done.stdout


def test_a_token_that_is_asked_for(lab: Lab) -> None:
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with running(lab, lab.new("home"), **ours) as address:
        config = lab.config(ray={"address": address})
        refused = doctor(lab, config)
        assert refused.code == 1 and "asks for a token" in lines(refused, "Ray")[0], refused.stdout
        assert "fix: export RAY_AUTH_MODE=token" in refused.stdout
        wrong = doctor(lab, config, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64)
        assert wrong.code == 1 and "asks for a token" in lines(wrong, "Ray")[0], wrong.stdout
        right = doctor(lab, config, **ours)
        assert "✓ token: the cluster asks for one, and ours is right" in right.stdout
        assert TOKEN not in refused.stdout + wrong.stdout + right.stdout
        distilled = lab.run("distill", config, "distill.soft_labels=remote", "--out", lab.new("run"))
        assert_refused(distilled, address, "asks for a token, and this side has none or another one", "RAY_AUTH_TOKEN")


def test_an_address_where_nobody_is_costs_seconds(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = lab.config(ray={"address": f"127.0.0.1:{taken.getsockname()[1]}"})
        began = time.monotonic()
        done = doctor(lab, config)
    assert done.code == 1 and lines(done, "Ray")[0].startswith("✗ Ray: no Ray answers"), done.stdout
    assert "fix: start one with `ray start --head`" in done.stdout
    assert lines(done, "cache_dir")  # the rest is looked at all the same
    assert time.monotonic() - began < 120  # most of it imports libraries


def test_what_speaks_like_ray_and_is_none_is_given_up(lab: Lab) -> None:
    grpc = pytest.importorskip("grpc")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        began = time.monotonic()
        done = doctor(lab, lab.config(cache_dir=str(lab.new("cache")), ray={"address": f"127.0.0.1:{port}"}))
    finally:
        server.stop(None)
    assert done.code == 1 and lines(done, "Ray")[0].startswith("✗"), done.stdout
    assert lines(done, "cache_dir")[0].startswith("✓") and left_over(lab.folder) == []
    assert time.monotonic() - began < 150


def test_a_config_that_cannot_be_read_is_another_exit_code(lab: Lab) -> None:
    done = lab.run("doctor", "nothing.yaml")
    assert done.code == 2 and done.stderr.startswith("error: no config file")
