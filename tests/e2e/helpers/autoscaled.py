"""cluster.yaml's node types under Ray's own autoscaler, whose nodes are processes of this machine: see `ray_head`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

LAUNCHER = Path(__file__).parents[3] / "cluster.yaml"
MACHINES = {"m6i.2xlarge": {"CPU": 8}, "g6.xlarge": {"CPU": 4, "GPU": 1}, "g6e.4xlarge": {"CPU": 16, "GPU": 1}}
FAKE = "ray.autoscaler._private.fake_multi_node.node_provider"
# Of the environment of its head.
FAKE_HEAD = {
    "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}  # fmt: skip


def launcher_config(port: int) -> dict[str, Any]:
    """The launcher's node types, with what the cloud would say of its machines, on a provider that starts processes."""
    import ray.util

    launcher = yaml.safe_load(LAUNCHER.read_text(encoding="utf-8"))
    kinds = {
        "ray.head.default" if name == "head" else name: {
            **kind,
            "node_config": {},
            "resources": {**MACHINES[kind["node_config"]["InstanceType"]], **kind["resources"]},
            "max_workers": kind.get("max_workers", 0),
        }
        for name, kind in launcher["available_node_types"].items()
    }
    nothing = ("setup", "head_setup", "worker_setup", "initialization", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "processes",
        "max_workers": launcher["max_workers"],
        "head_node_type": "ray.head.default",
        "available_node_types": kinds,
        "provider": {
            "type": "external", "module": f"{FAKE}.FakeMultiNodeProvider", "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID, "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
            "disable_node_updaters": True,
        },
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10, **{f"{each}_commands": [] for each in nothing},
    }  # fmt: skip
