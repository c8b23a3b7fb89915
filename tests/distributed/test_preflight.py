"""Ray waits silently for what it cannot schedule; a run that cannot fit is refused by name instead."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from small_runs import Lab, teacher

import raydistill
from raydistill import ConfigError
from raydistill.commands.preflight import unused_gpus
from raydistill.config.loader import load_config
from raydistill.config.models import Config
from raydistill.tuning.capacity import how_many_trials
from raydistill.tuning.space import Space

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    # Ray 2.60 warns of settings of its own when Ray Train is loaded.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


def placed(**placement: Any) -> dict[str, Any]:
    return {"expert": teacher(placement={"num_cpus": 1, **placement})}


@pytest.mark.parametrize(
    ("placement", "named"),
    [
        ({"num_cpus": 9}, ["9 CPU", "has 2"]),
        ({"num_gpus": 3}, ["3 GPU", "has 2"]),
        ({"resources": {"npu": 1}}, ["1 npu", "has 0"]),
        ({"label_selector": {"role": "nobody"}}, ["role", "nobody", "label_selector"]),
    ],
    ids=["CPUs", "GPUs", "unknown resource", "unmet label"],
)
def test_a_teacher_that_cannot_be_placed_is_refused_by_name(
    lab: Lab, placement: dict[str, Any], named: list[str]
) -> None:
    settings = lab.settings(teachers=placed(**placement), distill={"soft_labels": "remote"})
    with pytest.raises(ConfigError) as refused:
        raydistill.distill(settings, out=lab.new("run"))
    for words in ["teachers.expert.placement", *named]:
        assert words in str(refused.value)


@pytest.mark.parametrize("source", ["local", "stored"])
@pytest.mark.parametrize(
    ("placement", "named"),
    [
        ({"num_cpus": 2}, ["training.placement 4", "CPU", "has 2"]),
        ({"num_cpus": 0.5, "num_gpus": 2}, ["4 GPU", "has 2"]),
        ({"num_cpus": 0.5, "resources": {"npu": 1}}, ["2 npu", "has 0"]),
        ({"num_cpus": 0.5, "label_selector": {"role": "nobody"}}, ["role", "nobody", "label_selector"]),
    ],
    ids=["CPUs", "GPUs", "unknown resource", "unmet label"],
)
def test_training_workers_that_cannot_be_placed_are_refused_by_name(
    lab: Lab, placement: dict[str, Any], named: list[str], source: str
) -> None:
    settings = lab.settings(teachers=placed(num_cpus=0.5), distill={"soft_labels": source})
    settings["training"] = {**settings["training"], "num_workers": 2, "placement": placement}
    with pytest.raises(ConfigError) as refused:
        raydistill.distill(settings, out=lab.new("run"))
    for words in ["training.placement", *named]:
        assert words in str(refused.value)


def test_a_run_that_cannot_fit_is_refused_before_its_teachers_are_trained(lab: Lab) -> None:
    cache = lab.new("cache")
    settings = lab.settings(teachers=placed(num_cpus=9), cache_dir=str(cache), distill={"soft_labels": "remote"})
    with pytest.raises(ConfigError, match="9 CPU"):
        raydistill.distill(settings, out=lab.new("run"))
    assert not (cache / "teachers").exists()


def test_teachers_and_workers_are_added_up(lab: Lab) -> None:
    settings = lab.settings(teachers=placed(num_cpus=1), distill={"soft_labels": "remote"})
    settings["training"] = {**settings["training"], "num_workers": 1, "placement": {"num_cpus": 1.5}}
    with pytest.raises(ConfigError) as refused:
        raydistill.distill(settings, out=lab.new("run"))
    for words in ["2.5 CPU", "teachers.expert.placement 1", "training.placement 1.5", "has 2"]:
        assert words in str(refused.value)


@pytest.mark.parametrize("placement", [{"num_gpus": 1}, {"label_selector": {"role": "teacher"}}], ids=["GPU", "label"])
def test_a_teacher_that_the_cluster_has_room_for_teaches(lab: Lab, placement: dict[str, Any]) -> None:
    own = {"path": str(lab.new("labels"))}
    settings = lab.settings(teachers=placed(**placement), distill={"soft_labels": "remote"}, store=own)
    result = raydistill.distill(settings, out=lab.new("run"))
    assert result.report["cost"]["teacher_samples"] >= 12 * 20


def test_the_training_of_a_teacher_that_cannot_be_placed_is_refused_by_name(lab: Lab) -> None:
    train = {**teacher()["train"], "placement": {"num_cpus": 3}}
    settings = lab.settings(teachers={"expert": teacher(train=train)}, cache_dir=str(lab.new("cache")))
    with pytest.raises(ConfigError, match=r"3 CPU .*teachers\.expert\.train\.placement.* has 2"):
        raydistill.teach(settings, out=lab.new("run"))


def test_a_config_that_leaves_the_clusters_gpus_alone_is_told_so(lab: Lab) -> None:
    def config(teacher: float, student: float) -> Config:
        training = {**lab.settings()["training"], "placement": {"num_gpus": student}}
        return load_config(lab.settings(teachers=placed(num_gpus=teacher), training=training))

    both = "the teachers and the trials compute on processors, and there are GPUs (2): "
    paths = "teachers.expert.placement.num_gpus", "training.placement.num_gpus"
    assert (unused_gpus(config(0, 0), "trials") or "").startswith(both + ", ".join(paths))
    assert (unused_gpus(config(0.5, 0), "trials") or "").startswith("the trials compute")
    assert (unused_gpus(config(0, 0.5), "trials") or "").startswith("the teachers compute")
    assert (unused_gpus(config(0, 0), None) or "").startswith("the teachers compute")
    assert unused_gpus(config(0.5, 0), None) is None and unused_gpus(config(0.5, 0.5), "trials") is None


def test_an_accelerator_that_no_trial_can_have_is_named_as_one(lab: Lab) -> None:
    training = {**lab.settings()["training"], "placement": {"accelerator_type": "H100"}}
    space = Space(name="any", define="nobody:asks")
    with pytest.raises(
        ConfigError,
        match=r"no node of the cluster has the accelerator_type 'H100' that training.placement \(of a trial\)",
    ):
        how_many_trials(space, load_config(lab.settings(training=training)), teachers_stay=False)


def test_a_trial_that_finds_no_place_beside_the_teachers_is_refused(lab: Lab) -> None:
    """In sum there is enough; but a part of a GPU is a part of one."""

    def config(share: float) -> Config:
        training = {**lab.settings()["training"], "num_workers": 2, "placement": {"num_cpus": 0, "num_gpus": share}}
        remote = {"soft_labels": "remote"}
        return load_config(lab.settings(training=training, teachers=placed(num_gpus=0.6), distill=remote))

    space = Space(name="any", define="nobody:asks")
    assert how_many_trials(space, config(0.4), teachers_stay=True) == 1
    with pytest.raises(ConfigError, match=r"asks for GPU 0.6, 2 times, and beside the teachers .* hold 1; lower"):
        how_many_trials(space, config(0.6), teachers_stay=True)
    assert how_many_trials(space, config(0.6), teachers_stay=False) == 1


@pytest.mark.parametrize(
    ("autoscales", "limit", "expected"),
    [(False, "auto", 2), (False, 1, 1), (False, 9, 2), (True, "auto", 2), (True, 9, 9)],
)
def test_where_nodes_come_for_them_as_many_trials_run_as_the_space_says(
    lab: Lab, autoscales: bool, limit: int | str, expected: int
) -> None:
    cores = ray.cluster_resources()["CPU"] / 2
    training = {**lab.settings()["training"], "placement": {"num_cpus": cores}}
    config = load_config(lab.settings(training=training, ray={"autoscales": autoscales}))
    space = Space(name="any", define="nobody:asks", search={"max_concurrent_trials": limit})
    assert how_many_trials(space, config, teachers_stay=False) == expected
