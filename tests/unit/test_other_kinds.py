"""Multilabel and regression in the parts: what a config may ask of them, their teachers, hidden labels and losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import other_kinds
import pytest
import torch
import transformers
from torch import nn

from raydistill.commands.methods_check import check_methods
from raydistill.commands.preparing import with_scales
from raydistill.commands.students import make_student
from raydistill.config.distill import DistillConfig
from raydistill.config.loader import load_config
from raydistill.config.models import Config, TeachConfig, TeacherConfig
from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import ConfigError, TeacherError
from raydistill.fusion.fuser import make_fuser
from raydistill.fusion.standing import Standing
from raydistill.soft_labels.tables import RunTables, TaughtSplit
from raydistill.student.model import Student
from raydistill.student.predicting import own_task, predict
from raydistill.tasks import make_task, task_of
from raydistill.teachers.fit import fit, validation_accuracy
from raydistill.teachers.labelling import check_teacher
from raydistill.teachers.models import build
from raydistill.teachers.pool.identity import pool_id
from raydistill.teachers.teach import train_teacher
from raydistill.teachers.teacher import conversion, load_teacher
from raydistill.training.batches import plan_rows
from raydistill.training.step import Objective, TaskBatch

Data = dict[str, TaskData]
MakeConfig = Callable[..., Config]
KINDS = ("tags", "score")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kinds")
    other_kinds.write_sentences(root / "sentences.jsonl", 300)
    return root


@pytest.fixture(scope="module")
def make(root: Path) -> MakeConfig:
    def made(**sections: Any) -> Config:
        teachers = {f"{task}-{n}": other_kinds.teacher(task, n) for task in KINDS for n in (0, 1)}
        content = {
            "name": "kinds", "cache_dir": str(root / "cache"), "teachers": teachers,
            "tasks": other_kinds.sections(root / "sentences.jsonl"), **sections,
        }  # fmt: skip
        return load_config(content)

    return made


@pytest.fixture(scope="module")
def data(root: Path, make: MakeConfig) -> Data:
    return {name: load_task_data(name, task, root / "cache") for name, task in make().tasks.items()}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"distill": {"task_losses": {"tags": "dkd"}}}, ("task_losses.tags: dkd", "multilabel", "take bce")),
        (
            {"distill": {"task_losses": {"score": "kl"}}},
            ("task_losses.score: kl", "are no distribution"),
        ),
        ({"distill": {"task_losses": {"score": "bce"}}}, ("task_losses.score: bce", "take regression")),
        (
            {"distill": {"fusion": "entropy"}},
            ("distill.fusion: entropy", "no entropy", "task_fusions.score"),
        ),
        ({"distill": {"task_fusions": {"score": "gate"}}}, ("task_fusions.score: gate", "confidence", "aekd")),
        ({"store": {"top_k": 2}}, ("store.top_k", "softmax", "'tags'", "by task")),
        ({"store": {"top_k": {"score": 1}}}, ("store.top_k", "'score'", "regression", "leave it out")),
    ],
)
def test_methods_without_meaning_are_refused_with_the_reason(
    make: MakeConfig, sections: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**sections)
    assert all(word in str(caught.value) for word in words), caught.value


def test_label_smoothing_is_refused_for_numbers(make: MakeConfig) -> None:
    smooth = other_kinds.teacher("score")
    smooth["train"] = {**smooth["train"], "label_smoothing": 0.1}
    with pytest.raises(ConfigError, match=r"teachers.it.train.label_smoothing is for classes"):
        make(teachers={"it": smooth})


@pytest.mark.parametrize("classifier", [False, True])
def test_a_student_keeps_the_units_of_its_numbers(
    make: MakeConfig, root: Path, data: Data, tmp_path: Path, classifier: bool
) -> None:
    measures = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    of_bert = {"loader": "transformers", "model": "bert", "options": measures}
    config = make(
        tasks={"score": other_kinds.sections(root / "sentences.jsonl")["score"]}, teachers={},
        student={"size": "tiny", "vocab_size": 200, **({"classifier": of_bert} if classifier else {})},
    )  # fmt: skip
    make_student(config, {"score": data["score"]}, 0, tmp_path / "student")
    student = Student.from_pretrained(str(tmp_path / "student")).eval()
    assert own_task(student, "score").scales == data["score"].scales
    numbers = [row[name] for row in predict(student, "score", ["a good day"]) for name in data["score"].label_names]
    (mean, deviation), *_ = data["score"].scales or ()
    assert abs(numbers[0] - mean) < 5 * deviation


def test_what_does_make_sense_is_taken(make: MakeConfig) -> None:
    config = make(distill={"loss": "dkd", "fusion": "gate", "task_fusions": {"score": "aekd"},
                           "task_losses": {"tags": "bce", "score": "regression"}, "standardize": True})  # fmt: skip
    check_methods(config, {"tags": 5000, "score": 2})
    one = {"it": other_kinds.teacher("score")}
    assert make(teachers=one, distill={"fusion": "entropy"}).distill.fusion == "entropy"  # there is nothing to fuse
    with pytest.raises(ConfigError, match=r"task_losses.mood: bce is not for kind classification"):
        make(
            tasks={"mood": {"domain": "text", "data": {"source": "csv", "path": "x"}}}, teachers={},
            distill={"task_losses": {"mood": "bce"}},
        )  # fmt: skip


def test_thousands_of_labels_are_kept_whole(make: MakeConfig, tmp_path: Path) -> None:
    """A softmax over so many classes would be kept by its largest ones."""
    config = make(store={"path": str(tmp_path)})
    for task in KINDS:
        taught = TaughtSplit("f", task, "train", "s", 3, 5000, (0,))
        tables = RunTables(config, {f"{task}-0": taught})
        table, logits = tables.open(f"{task}-0", 0), np.random.default_rng(0).normal(size=(3, 5000)).astype(np.float16)
        table.write(np.arange(3), logits)
        tables.flush()
        np.testing.assert_array_equal(table.read(np.arange(3)), logits)
        tables.close()


@pytest.mark.parametrize("task", KINDS)
def test_a_teacher_learns_from_rows_with_a_label_alone(make: MakeConfig, data: Data, tmp_path: Path, task: str) -> None:
    found, heard = data[task], []
    torch.manual_seed(0)
    settings = make().teachers[f"{task}-0"]
    network = build("it", settings, "text", found.settings, len(found.label_names), None, found.kind)
    before = validation_accuracy(network, found, bf16=False)
    outcome = fit(network, found, settings.train or TeachConfig(), tmp_path, 0, heard.append)
    after = validation_accuracy(network, found, bf16=False)
    assert outcome["validation_accuracy"] == after > before
    assert any(f"validation {task_of(found).metric_name}" in line for line in heard)
    assert 0 < task_of(found).count_labelled(found.train.labels) < len(found.train)


@pytest.mark.parametrize(("task", "part"), [("tags", ("praise", "film")), ("score", ("words",))])
def test_a_teacher_of_some_labels_leaves_the_others_unknown(
    make: MakeConfig, data: Data, tmp_path: Path, task: str, part: tuple[str, ...]
) -> None:
    section = other_kinds.teacher(task, label_names=list(part), partial_labels=True)
    config = with_scales(make(teachers={"it": section}, cache_dir=str(tmp_path)), data)
    train_teacher(config, "it", data[task], lambda line: None, lambda line: None)
    teacher = load_teacher(config, "it", data[task].label_names)
    split = data[task].validation
    logits = teacher.logits(split.views(range(len(split))))
    unknown = [name not in part for name in data[task].label_names]
    assert (logits[:, unknown] < -5.98e4).all() and (logits[:, [not each for each in unknown]] > -1e4).all()
    score = check_teacher("it", data[task], logits, allowed=False)
    names = data[task].label_names
    asked = task_of(data[task], part).relabel(split.labels, names)
    own = task_of(data[task], part).metric(logits[:, [names.index(name) for name in part]], asked)
    assert score == pytest.approx(own)


@pytest.mark.parametrize("task", KINDS)
def test_a_teacher_that_knows_nothing_is_refused(data: Data, task: str) -> None:
    labels = data[task].validation.labels
    generator = np.random.default_rng(0)
    for logits in (np.zeros_like(labels), generator.normal(size=labels.shape)):
        with pytest.raises(TeacherError, match=r"chance level.* the .*for every row.* gives .*allow_chance_level=true"):
            check_teacher("it", data[task], logits.astype(np.float16), allowed=False)
    right = np.nan_to_num(labels).astype(np.float16)
    assert check_teacher("it", data[task], right, allowed=False) == pytest.approx(1.0, abs=1e-2)
    check_teacher("it", data[task], np.zeros_like(labels).astype(np.float16), allowed=True)
    with pytest.raises(TeacherError, match="knows no label"):
        check_teacher("it", data[task], np.full_like(labels, -6e4).astype(np.float16), allowed=False)


def test_numbers_of_other_units_are_converted() -> None:
    factor, offset = conversion(((10.0, 2.0), (0.0, 1.0)), ((4.0, 3.0), (5.0, 0.5)))
    for own, number, at in ((1.5, 13.0, 0), (-2.0, -2.0, 1)):
        mean, deviation = ((4.0, 3.0), (5.0, 0.5))[at]
        assert own * factor[at] + offset[at] == pytest.approx((number - mean) / deviation)


def test_pools_are_shared_by_runs_of_the_same_units_only(make: MakeConfig, data: Data, tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    section = {**other_kinds.teacher("score"), "checkpoint": str(tmp_path / "weights.safetensors")}
    config = with_scales(make(teachers={"it": section}), data)
    other = with_scales(config, {"score": replace(data["score"], scales=((0.0, 1.0), (0.0, 1.0)))})
    names = data["score"].label_names
    assert pool_id(config, "it", names) != pool_id(other, "it", names)
    assert pool_id(with_scales(config, data), "it", names) == pool_id(config, "it", names)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("classification", None), ("multilabel", "multi_label_classification"), ("regression", "regression")],
)
def test_a_transformers_teacher_says_what_its_problem_is(data: Data, tmp_path: Path, kind: Any, problem: Any) -> None:
    import tiny

    transformers.BertConfig(vocab_size=99).save_pretrained(tmp_path)
    tiny.word_tokenizer().save_pretrained(tmp_path)
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = TeacherConfig(task="tags", loader="transformers", model=str(tmp_path), options=options)
    network = build("it", config, "text", data["tags"].settings, 3, tmp_path, kind)
    assert network.module.config.problem_type == problem and network.module.config.num_labels == 3
    assert network.logits(network.prepare(data["tags"].test.views(range(2)))).shape == (2, 3)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_both_students_see_the_same_labels_and_each_name_at_least_once(
    make: MakeConfig, data: Data, fraction: float
) -> None:
    config = make(training={"label_fraction": fraction})
    for name, found in data.items():
        task, labels = task_of(found), found.train.labels
        alone, distilled = (plan_rows(config, data, arm, 3)[name] for arm in ("alone", "distilled"))
        np.testing.assert_array_equal(alone.visible_labels, distilled.visible_labels)
        shown = task.is_labelled(alone.visible_labels)
        np.testing.assert_array_equal(alone.visible_labels[shown], labels[shown])
        np.testing.assert_array_equal(alone.sampler.rows, np.flatnonzero(shown))
        assert len(distilled.sampler.rows) == len(labels)
        assert shown.sum() == pytest.approx(fraction * task.count_labelled(labels), abs=3)
        holds = alone.visible_labels == 1 if name == "tags" else ~np.isnan(alone.visible_labels)
        assert holds.any(axis=0).all()


class OneLinear(nn.Module):
    """The smallest thing with a student's forward."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.trunk, self.head = nn.Identity(), nn.Linear(4, num_outputs)

    def take_auxiliary(self) -> dict[str, torch.Tensor]:
        return {}

    def forward(self, inputs: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return {name: self.head(given["x"]) for name, given in inputs.items()}


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_rows_without_a_label_learn_from_the_teachers_alone_beside_labelled_ones(kind: str) -> None:
    torch.manual_seed(0)
    task, rows = make_task(kind, "it", "text", ("a", "b", "c")), 8
    student, inputs, said = OneLinear(3), torch.randn(rows, 4), torch.randn(1, rows, 3)
    labels = torch.randint(0, 3, (rows,)) if kind == "classification" else torch.randint(0, 2, (rows, 3)).float()
    hidden = torch.arange(rows) % 2 == 0
    labels[hidden] = -1 if kind == "classification" else torch.nan
    distill = DistillConfig(hard_weight=0.4, temperature=2.0)
    fuser = make_fuser(distill, "it", [Standing("one", 0.9, 1.0, kind)], 3)  # type: ignore[arg-type]
    objective = Objective(student, {"it": task}, distill, {"it": fuser})  # type: ignore[arg-type]

    def loss_of(part: torch.Tensor) -> torch.Tensor:
        batch = TaskBatch({"x": inputs[part]}, labels[part], said[:, part], num_rows=rows, num_labelled=rows // 2)
        return objective({"it": batch})[0]["it"]

    whole = loss_of(torch.ones(rows, dtype=torch.bool))
    torch.testing.assert_close(loss_of(hidden) + loss_of(~hidden), whole)
    output = student.head(inputs)
    soft = task.soft_loss(output, said[0], labels, objective.choices["it"]) / rows
    hard = task.hard_loss(output[~hidden], labels[~hidden]) / (rows // 2)
    torch.testing.assert_close(whole, 0.4 * hard + 0.6 * soft)
    inputs_of_hidden = torch.autograd.grad(loss_of(hidden), student.head.weight)[0]
    assert torch.isfinite(inputs_of_hidden).all() and inputs_of_hidden.abs().sum() > 0
