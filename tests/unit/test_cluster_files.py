"""cluster.yaml and kuberay.yaml: what Ray and KubeRay would say of them, and whether the recipe for them fits them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.commands.preflight import asks_for, check_nodes
from raydistill.config.loader import load_config
from raydistill.config.models import Config, PlacementConfig
from raydistill.errors import ConfigError

ROOT = Path(__file__).parents[2]
LAUNCHER, KUBERAY = ROOT / "cluster.yaml", ROOT / "kuberay.yaml"
KNOWN = json.loads((ROOT / "tests" / "support" / "kuberay_fields.json").read_text(encoding="utf-8"))
# What the cloud says of its machines; Ray asks it when it launches them.
MACHINES = {
    "m6i.2xlarge": {"CPU": 8.0},
    "g6.xlarge": {"CPU": 4.0, "GPU": 1.0},
    "g6e.4xlarge": {"CPU": 16.0, "GPU": 1.0},
}
Nodes = list[dict[str, Any]]


@pytest.fixture
def launcher() -> dict[str, Any]:
    return yaml.safe_load(LAUNCHER.read_text(encoding="utf-8"))


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(KUBERAY.read_text(encoding="utf-8"))}


def launched(launcher: dict[str, Any]) -> Nodes:
    """What `ray.nodes()` has as soon as the cluster is up."""
    return [
        {
            "Alive": True,
            "Resources": {**MACHINES[kind["node_config"]["InstanceType"]], **kind["resources"]},
            "Labels": kind["labels"],
        }
        for kind in launcher["available_node_types"].values()
        for _ in range(kind.get("min_workers", 1))
    ]


def pods(job: dict[str, Any]) -> Nodes:
    """The same of the RayJob."""
    cluster, found = job["spec"]["rayClusterSpec"], []
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        limits = container(group)["resources"]["limits"]
        there = {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}
        there |= {key: float(value) for key, value in group.get("resources", {}).items()}
        found += [{"Alive": True, "Resources": there, "Labels": group["labels"]}] * group.get("minReplicas", 1)
    return found


def container(group: dict[str, Any]) -> dict[str, Any]:
    [only] = group["template"]["spec"]["containers"]
    return only


def check_recipe(config: Config, nodes: Nodes) -> None:
    """What the preflight says of all that the recipe asks for."""
    for name, teacher in config.teachers.items():
        assert teacher.train is not None and teacher.train.placement is not None
        check_nodes([(f"teachers.{name}.train.placement", teacher.train.placement, 1)], nodes)
        check_nodes([(f"teachers.{name}.placement", teacher.placement, teacher.min_replicas)], nodes)
    check_nodes([("training.placement", config.training.placement, config.training.num_workers)], nodes)
    together: dict[str, float] = {}
    for teacher in config.teachers.values():
        for resource, amount in asks_for(teacher.placement).items():
            together[resource] = together.get(resource, 0.0) + amount * teacher.min_replicas
    everyone = PlacementConfig(
        num_cpus=together["CPU"], num_gpus=together["GPU"], label_selector=teacher.placement.label_selector
    )
    check_nodes([("all teachers at one time", everyone, 1)], nodes)


def changes(path: Path) -> list[int]:
    """The numbers of the lines that are the user's."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [int(found[1]) for line in lines if (found := re.search(r"# CHANGE (\d)", line)) and line.strip()[0] != "#"]


def test_the_launcher_file_is_what_ray_reads(launcher: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(max_worker=3),
        lambda content: content["available_node_types"]["teacher"].update(label={"role": "teacher"}),
        lambda content: content["available_node_types"]["teacher"].update(labels={"role": 1}),
        lambda content: content["docker"].update(run_option=[]),
        lambda content: content.update(max_workers=1),
        lambda content: content.update(head_node_type="haed"),
    ],
    ids=["a key", "a key of a node type", "a label", "a key of docker", "fewer than the least", "the head's type"],
)
def test_a_slip_in_the_launcher_file_is_found(launcher: dict[str, Any], spoil: Callable[[Any], None]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    spoil(launcher)
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(launcher))


def test_the_autoscaler_that_reads_labels_knows_each_node_types(launcher: dict[str, Any]) -> None:
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

    kinds = AutoscalingConfig(launcher, skip_content_hash=True).get_node_type_configs()
    assert {name: kind.labels for name, kind in kinds.items()} == {
        name: {"role": name} for name in ("head", "teacher", "student")
    }
    assert {name: (kind.min_worker_nodes, kind.max_worker_nodes) for name, kind in kinds.items()} == {
        "head": (0, 1), "teacher": (1, 4), "student": (1, 2),
    }  # fmt: skip


@pytest.mark.parametrize("path", [LAUNCHER, KUBERAY], ids=lambda path: path.name)
def test_five_lines_are_the_users(path: Path) -> None:
    assert sorted(changes(path)) == [1, 2, 3, 4, 5]


def test_the_recipe_fits_the_launchers_nodes(launcher: dict[str, Any]) -> None:
    check_recipe(load_config("demo_cluster"), launched(launcher))


def test_the_recipe_fits_the_pods(manifests: dict[str, Any]) -> None:
    check_recipe(load_config("demo_cluster"), pods(manifests["RayJob"]))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_without_a_node_type_the_recipe_is_refused_by_name(launcher: dict[str, Any], role: str) -> None:
    nodes = [node for node in launched(launcher) if node["Labels"]["role"] != role]
    with pytest.raises(ConfigError, match=rf"no node of the cluster has the labels .*{role}"):
        check_recipe(load_config("demo_cluster"), nodes)


def test_all_nodes_see_the_shared_storage(launcher: dict[str, Any], manifests: dict[str, Any]) -> None:
    config = load_config("demo_cluster")
    assert config.cache_dir.startswith("/shared/")
    assert "--volume /shared:/shared" in launcher["docker"]["run_options"]
    assert any(re.search(r"mount -t nfs4 .*:/ /shared$", line) for line in launcher["initialization_commands"])
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        [mount] = container(group)["volumeMounts"]
        [volume] = group["template"]["spec"]["volumes"]
        assert mount == {"name": volume["name"], "mountPath": "/shared"}
        claim = manifests["PersistentVolumeClaim"]
        assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_a_token_is_asked_for_and_no_port_is_open(launcher: dict[str, Any], manifests: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in launcher["docker"]["run_options"]
    assert launcher["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "--dashboard-host=127.0.0.1" in launcher["head_start_ray_commands"][-1]
    assert "security_group" not in launcher["provider"]  # Ray's own lets SSH in, and nothing else
    cluster = manifests["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]


def test_both_files_pin_the_locked_ray(launcher: dict[str, Any], manifests: dict[str, Any]) -> None:
    [locked] = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert launcher["docker"]["image"] == f"rayproject/ray:{locked}-py311-gpu"
    assert manifests["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == locked
    assert f"rayproject/ray:{locked}-py311-gpu" in KUBERAY.read_text(encoding="utf-8")


def test_what_the_launcher_copies_is_there_and_enough_to_install(launcher: dict[str, Any]) -> None:
    copied = [local for local in launcher["file_mounts"].values() if not local.startswith("~")]
    assert all((ROOT / local).exists() for local in copied)
    needed = {"pyproject.toml", "README.md", "LICENSE", "raydistill", "search_spaces", "requirements.lock"}
    assert set(copied) == needed
    for path in needed:
        assert path in KUBERAY.read_text(encoding="utf-8")  # its image is made of the same


def mistakes(content: Any, kind: str, place: str = "") -> Iterator[str]:
    """What the operator, or the API server, would refuse or drop."""
    inner = re.fullmatch(r"(list|map)<(.+)>", kind)
    if kind.startswith("enum:"):
        if content not in kind.removeprefix("enum:").split("|"):
            yield f"{place}: {content!r} is none of {kind}"
    elif inner and inner[1] == "list":
        if not isinstance(content, list):
            yield f"{place}: no list"
            return
        for index, each in enumerate(content):
            yield from mistakes(each, inner[2], f"{place}[{index}]")
    elif inner:
        if not isinstance(content, dict):
            yield f"{place}: no map"
            return
        for key, each in content.items():
            yield from mistakes(each, inner[2], f"{place}.{key}")
    elif kind in KNOWN["types"]:
        fields = KNOWN["types"][kind]
        if not isinstance(content, dict):
            yield f"{place}: no {kind}"
            return
        for key in set(KNOWN["required"].get(kind, ())) - set(content):
            yield f"{place}: {kind} has to have {key}"
        for key, each in content.items():
            if key not in fields:
                yield f"{place}.{key}: {kind} has no such field"
            else:
                yield from mistakes(each, fields[key], f"{place}.{key}".lstrip("."))
    elif kind == "quantity":
        if not re.fullmatch(r"\d+(\.\d+)?(m|[kMGT]i?)?", str(content)):
            yield f"{place}: {content!r} is no quantity"
    elif kind != "any":
        types = {"string": str, "integer": int, "number": (int, float), "boolean": bool}[kind]
        if not isinstance(content, types) or (isinstance(content, bool) and kind != "boolean"):
            yield f"{place}: {content!r} is no {kind}"


def as_ray_cluster(job: dict[str, Any]) -> dict[str, Any]:
    """As the head of the file says."""
    return {
        "apiVersion": job["apiVersion"], "kind": "RayCluster", "metadata": {"name": "raydistill"},
        "spec": job["spec"]["rayClusterSpec"],
    }  # fmt: skip


def test_every_field_of_the_manifests_is_known(manifests: dict[str, Any]) -> None:
    assert set(manifests) == {"PersistentVolumeClaim", "RayJob"}
    for kind, content in manifests.items():
        assert list(mistakes(content, kind)) == []


def test_its_cluster_can_stand_alone(manifests: dict[str, Any]) -> None:
    assert list(mistakes(as_ray_cluster(manifests["RayJob"]), "RayCluster")) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda job: job["spec"].update(entryPoint="true"), "spec.entryPoint: RayJobSpec has no such field"),
        (lambda job: cluster_of(job).update(authOption={}), "authOption: RayClusterSpec has no such field"),
        (lambda job: cluster_of(job)["authOptions"].update(mode="tokens"), "'tokens' is none of enum:disabled|token"),
        (lambda job: cluster_of(job)["workerGroupSpecs"][1].update(label={}), "[1].label: WorkerGroupSpec has no such"),
        (lambda job: cluster_of(job)["workerGroupSpecs"][0].update(minReplicas="1"), "'1' is no integer"),
        (lambda job: cluster_of(job)["headGroupSpec"]["resources"].update(CPU=0), "0 is no string"),
        (lambda job: cluster_of(job)["workerGroupSpecs"][0].pop("groupName"), "has to have groupName"),
        (lambda job: a_container(job).update(volumeMount=[]), "volumeMount: Container has no such field"),
        (lambda job: a_container(job)["resources"]["limits"].update(memory="14GiB"), "'14GiB' is no quantity"),
        (lambda job: a_container(job)["env"].append({"nam": "A"}), "nam: EnvVar has no such field"),
        (lambda job: tolerations_of(job)[0].update(effect="NoSchedul"), "'NoSchedul' is none of"),
    ],
)
def test_a_slip_in_the_manifest_is_found(manifests: dict[str, Any], spoil: Callable[[Any], None], said: str) -> None:
    job = copy.deepcopy(manifests["RayJob"])
    spoil(job)
    assert any(said in mistake for mistake in mistakes(job, "RayJob"))


def cluster_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]


def a_container(job: dict[str, Any]) -> dict[str, Any]:
    return container(cluster_of(job)["workerGroupSpecs"][0])


def tolerations_of(job: dict[str, Any]) -> list[dict[str, Any]]:
    return cluster_of(job)["workerGroupSpecs"][0]["template"]["spec"]["tolerations"]


def test_the_job_runs_the_recipe_and_writes_to_shared_storage(manifests: dict[str, Any]) -> None:
    words = manifests["RayJob"]["spec"]["entrypoint"].split()
    assert words[:3] == ["raydistill", "distill", "demo_cluster"]
    assert words[3] == "--out" and words[4].startswith("/shared/")
    assert yaml.safe_load(manifests["RayJob"]["spec"]["runtimeEnvYAML"]).keys() == {"env_vars"}
