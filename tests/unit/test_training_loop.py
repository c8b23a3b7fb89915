"""The loop without Ray: it learns, and stopped half way it ends where it would have ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tiny
import torch

from raydistill.config.distill import BalancingName, FusionName, SoftLossName
from raydistill.data.batch import ViewBatch
from raydistill.data.dataset import TaskData
from raydistill.errors import RaydistillError
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.soft_labels.source import Answer, Pending, total_cost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables
from raydistill.student.model import Student
from raydistill.teachers.labelling import LabelJob, training_views
from raydistill.training.batches import plan_rows
from raydistill.training.checkpoint import BEST, LATEST, TrainingState
from raydistill.training.costs import COSTS_FILE, costs_of, costs_so_far
from raydistill.training.events import read_events
from raydistill.training.loop import train_student
from raydistill.training.metrics_log import METRICS_FILE, read_metrics
from raydistill.training.plan import Arm, TrainingPlan

Data = dict[str, TaskData]
TASKS = tuple(tiny.TASKS)


class Stop(Exception):
    """A power cut, as far as the loop can tell."""


def stopped_at(plan: TrainingPlan, data: Data, step: int) -> None:
    def cut(line: dict[str, Any]) -> None:
        if line.get("step") == step:
            raise Stop

    with pytest.raises(Stop):
        train_student(plan, data, on_log=cut)


def assert_equal_states(left: TrainingState, right: TrainingState) -> None:
    assert left.step == right.step and left.model.keys() == right.model.keys()
    for key, weight in left.model.items():
        assert torch.equal(weight, right.model[key]), key
    for index, moments in left.optimizer["state"].items():
        for key, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(right.optimizer["state"][index][key]))
    assert left.curve == right.curve
    assert (left.best_step, left.best_score) == (right.best_step, right.best_score)
    assert left.student_samples == right.student_samples
    assert cached(left) == cached(right)


def cached(state: TrainingState) -> int:
    return total_cost(costs_of(state).values()).samples_cached


def losses(plan: TrainingPlan) -> list[dict[str, Any]]:
    timed = {"steps_per_s", "samples_per_s", *(f"waiting/sure-{name}" for name in TASKS)}
    lines = read_metrics(plan.folder / METRICS_FILE)
    assert lines and {line["run"] for line in lines} == {plan.name}
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


@pytest.mark.parametrize("arm", ["distilled", "alone"])
def test_the_loss_falls_and_the_best_student_is_kept(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data, arm: Arm
) -> None:
    plan = plan_of("run", arm, num_steps=100, evaluate_every=20)
    state = train_student(plan, tiny_data)
    falling = [point["train_loss"] for point in state.curve]
    assert [point["step"] for point in state.curve] == [20, 40, 60, 80, 100]
    assert falling[-1] < 0.7 * falling[0]
    assert state.best_score == max(point["retention"] for point in state.curve) > 0.6
    best = Student.from_pretrained(str(plan.initial_student))
    best.load_state_dict(torch.load(plan.folder / BEST, weights_only=True))
    assert state.student_samples == 100 * 6 * 3
    assert cached(state) == (100 * 6 * 3 if arm == "distilled" else 0)


@pytest.mark.parametrize("training", [{}, {"gradient_accumulation": 2, "batch_size": 3}], ids=["plain", "accumulated"])
@pytest.mark.parametrize("arm", ["distilled", "alone"])
def test_stopped_and_resumed_equals_uninterrupted_exactly(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data, arm: Arm, training: dict[str, Any]
) -> None:
    whole, parts = plan_of("whole", arm, **training), plan_of("parts", arm, **training)
    uninterrupted = train_student(whole, tiny_data)
    stopped_at(parts, tiny_data, 30)  # 20 is saved, 30 not yet
    resumed = train_student(parts, tiny_data)
    assert [what for _, what in read_events(parts.folder)] == ["went on from step 20"]
    assert read_events(whole.folder) == []
    assert_equal_states(resumed, uninterrupted)
    assert losses(parts) == losses(whole)


@pytest.mark.parametrize("balancing", get_args(BalancingName))
def test_a_resumed_training_balances_as_an_uninterrupted_one(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data, balancing: str
) -> None:
    distill = {
        "balancing": balancing, "fusion": "gate",
        "balancing_options": {"measure_every": 4, "dwa": {"every": 3}},
    }  # fmt: skip
    whole, parts = (plan_of(folder, distill=distill, each=2, num_steps=20) for folder in ("whole", "parts"))
    uninterrupted = train_student(whole, tiny_data)
    stopped_at(parts, tiny_data, 20)  # 10 is saved, 20 not yet
    resumed = train_student(parts, tiny_data)
    assert [what for _, what in read_events(parts.folder)] == ["went on from step 10"]
    assert_equal_states(resumed, uninterrupted)
    for name, value in uninterrupted.beside.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(resumed.beside[name], value, rtol=0, atol=0)
    assert resumed.balance == uninterrupted.balance and [each["step"] for each in resumed.balance] == [4, 8, 12, 16, 20]
    np.testing.assert_equal(resumed.trust, uninterrupted.trust)
    if balancing not in ("fixed", "equal"):
        weights = [tuple(each["weight"].values()) for each in resumed.balance]
        assert any(abs(weight - 1.0) > 1e-3 for each in weights for weight in each)


@pytest.mark.parametrize("fusion", get_args(FusionName))
@pytest.mark.parametrize("loss", get_args(SoftLossName))
def test_every_loss_goes_with_every_way_to_fuse(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data, loss: str, fusion: str
) -> None:
    standardize = loss in ("kl", "dkd") and fusion != "gate"
    distill = {"loss": loss, "fusion": fusion, "standardize": standardize}
    plan = plan_of(f"{loss}-{fusion}", distill=distill, each=2, num_steps=2, label_fraction=0.5)
    state = train_student(plan, tiny_data)
    before = Student.from_pretrained(str(plan.initial_student)).state_dict()
    assert all(torch.isfinite(value).all() for value in state.model.values())
    changed = [name for name, value in state.model.items() if not torch.equal(value, before[name])]
    assert len(changed) > len(before) // 2
    assert state.trust.keys() == set(TASKS)


def test_a_checkpoint_of_another_version_is_one_line(plan_of: Callable[..., TrainingPlan], tiny_data: Data) -> None:
    plan = plan_of("old", num_steps=20)
    stopped_at(plan, tiny_data, 20)
    saved = torch.load(plan.folder / LATEST, weights_only=True)
    saved["optimizer"]["param_groups"].pop()
    torch.save(saved, plan.folder / LATEST)
    with pytest.raises(RaydistillError, match=r"of another version or setting .*--again"):
        train_student(plan, tiny_data)


class Rounding:
    """A labeller whose answer depends a little on the batch that a row comes in, as a matrix product's does."""

    way = "local"

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Pending:
        classes = np.arange(len(tiny.LABELS[teacher.removeprefix("sure-")]))
        logits = np.cos(views.sample_ids[:, None] + classes) + 0.1 * len(views)

        class Call:
            def result(self) -> Answer:
                return Answer(logits.astype(np.float16), 0.0)

        return Call()

    def events(self) -> list[tuple[float, str]]:
        return []

    def close(self) -> None:
        """Holds nothing."""


def filling(plan: TrainingPlan, data: Data, store: Path) -> TrainingPlan:
    """The same, filling a store of its own while it trains."""
    config = plan.config.model_copy(update={"store": plan.config.store.model_copy(update={"path": str(store)})})
    taught = {
        name: LabelJob(
            name, name, teacher.task, data[teacher.task].train, len(tiny.LABELS[teacher.task]),
            training_views(config.tasks[teacher.task]),
        ).taught
        for name, teacher in config.teachers.items()
    }  # fmt: skip
    return replace(
        plan, open_source=lambda: LabelStream(config, config.teachers, Rounding(), RunTables(config, taught))
    )


def test_killed_while_it_fills_the_store_it_asks_in_the_same_batches_again(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data, tmp_path: Path
) -> None:
    store, left = tmp_path / "filled", tmp_path / "left"
    whole = filling(plan_of("whole"), tiny_data, tmp_path / "other")
    parts = filling(plan_of("parts"), tiny_data, store)
    uninterrupted = train_student(whole, tiny_data)

    def kill(line: dict[str, Any]) -> None:
        if line.get("step") == 10 and "validation/retention" in line:
            shutil.copytree(store, left)  # what a process that is killed now leaves behind
        if line.get("step") == 20:
            raise Stop

    with pytest.raises(Stop):
        train_student(parts, tiny_data, on_log=kill)
    shutil.rmtree(store)
    left.rename(store)
    resumed = train_student(parts, tiny_data)
    for key, weight in uninterrupted.model.items():
        assert torch.equal(weight, resumed.model[key]), key


def test_stopped_before_its_first_checkpoint_it_starts_over(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data
) -> None:
    whole, parts = plan_of("whole"), plan_of("parts")
    stopped_at(parts, tiny_data, 10)
    assert not (parts.folder / LATEST).exists()
    assert_equal_states(train_student(parts, tiny_data), train_student(whole, tiny_data))
    assert losses(parts) == losses(whole)


def test_a_finished_training_is_not_trained_further(plan_of: Callable[..., TrainingPlan], tiny_data: Data) -> None:
    plan = plan_of("run", num_steps=10)
    first = train_student(plan, tiny_data)
    assert_equal_states(train_student(plan, tiny_data), first)


def test_a_torn_checkpoint_is_an_error_that_names_the_file(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data
) -> None:
    plan = plan_of("run", num_steps=10)
    train_student(plan, tiny_data)
    file = plan.folder / LATEST
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(RaydistillError, match=r"latest\.pt cannot be read"):
        train_student(plan, tiny_data)


def test_another_seed_trains_another_student(plan_of: Callable[..., TrainingPlan], tiny_data: Data) -> None:
    states = [train_student(plan_of(f"seed{seed}", seed=seed, num_steps=10), tiny_data) for seed in (0, 1)]
    assert any(not torch.equal(states[0].model[key], states[1].model[key]) for key in states[0].model)


def test_two_micro_batches_count_as_one_batch_of_both(plan_of: Callable[..., TrainingPlan], tiny_data: Data) -> None:
    plan = plan_of("run", gradient_accumulation=2, batch_size=3, num_steps=10)
    state = train_student(plan, tiny_data)
    assert state.student_samples == 10 * 2 * 3 * 3


def test_both_arms_see_the_same_labels_and_only_the_distilled_one_draws_unlabelled_rows(
    plan_of: Callable[..., TrainingPlan], tiny_data: Data
) -> None:
    config = plan_of("run").config
    for seed in (0, 1):
        rows = {arm: plan_rows(config, tiny_data, arm, seed) for arm in ("alone", "distilled")}
        for name, data in tiny_data.items():
            visible = rows["alone"][name].visible_labels
            shown = np.flatnonzero(visible >= 0)
            np.testing.assert_array_equal(rows["distilled"][name].visible_labels, visible)
            np.testing.assert_array_equal(visible[shown], data.train.labels[shown])
            assert len(shown) == pytest.approx(len(data.train) / 2, abs=3)
            np.testing.assert_array_equal(np.sort(rows["alone"][name].sampler.rows), shown)
            assert len(rows["distilled"][name].sampler.rows) == len(data.train)
    first, second = (plan_rows(config, tiny_data, "alone", seed)["mood"].visible_labels for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_metrics_cut_short_by_a_kill_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    file = tmp_path / METRICS_FILE
    file.write_text('{"run": "a", "step": 1}\n{"run": "a", "step": 2}\n{"run": "a", "st', encoding="utf-8")
    assert [line["step"] for line in read_metrics(file)] == [1, 2]
    assert read_metrics(tmp_path / "nothing.jsonl") == []


@pytest.mark.parametrize("content", ["[]", "{", '{"it": {"samples": 100}}', '{"it": {"sample": 1}}'])
def test_a_costs_file_that_is_older_or_damaged_takes_nothing_back(tmp_path: Path, content: str) -> None:
    (tmp_path / COSTS_FILE).write_text(content)
    state = TrainingState(teacher_costs={"it": {"samples": 400, "samples_cached": 30}})
    cost = costs_so_far(state, tmp_path)["it"]
    assert (cost.samples, cost.samples_cached) == (400, 30)
