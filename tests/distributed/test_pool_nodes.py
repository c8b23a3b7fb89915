"""A node that is lost takes its replicas with it, and no answer."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from pool_teachers import LABELS, pictures, pool_config
from small_runs import wait_until

from raydistill.teachers.pool.opening import open_pools
from raydistill.teachers.teacher import load_teacher


def test_a_lost_node(tmp_path: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1, resources={"teachers": 1})
        second = cluster.add_node(num_cpus=1, resources={"teachers": 1})
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        placement = {"num_cpus": 1, "resources": {"teachers": 1}}
        config = pool_config(tmp_path, "one", min_replicas=2, placement=placement, hedge_s=0.5)
        local = load_teacher(config, "one", LABELS)
        with open_pools(config, {"digits": LABELS}, lambda _: None) as pools:
            client = pools.client()
            wait_until(lambda: client.link("one").num_serving == 2)
            worst_gap_s = 0.0
            for number in range(60):
                if number == 20:
                    cluster.remove_node(second, allow_graceful=False)
                    began = time.monotonic()
                requests = [client.ask("one", pictures(5, seed)) for seed in range(3)]
                for seed, request in enumerate(requests):
                    answer = request.result()
                    np.testing.assert_array_equal(answer.logits, local.logits(pictures(5, seed)))
                    worst_gap_s = max(worst_gap_s, answer.gap_s)
            assert time.monotonic() - began < 20
            assert worst_gap_s < 5
            wait_until(lambda: client.link("one").num_serving == 1)
            cluster.add_node(num_cpus=1, resources={"teachers": 1})
            wait_until(lambda: client.link("one").num_serving == 2)
    finally:
        ray.shutdown()
        cluster.shutdown()
