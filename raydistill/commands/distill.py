"""`raydistill distill`: experts in, one small student and an honest report out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raydistill.commands.cluster import cluster, needs_ray
from raydistill.commands.experts import Experts, experts
from raydistill.commands.folders import write_atomically
from raydistill.commands.known import KnownTeachers, known_teachers, source_plan
from raydistill.commands.labels import collect_labels
from raydistill.commands.ledger import Ledger
from raydistill.commands.methods_check import check_methods
from raydistill.commands.preflight import preflight, unused_gpus
from raydistill.commands.preparing import as_config, check_store, load_data, with_scales
from raydistill.commands.progress import Progress
from raydistill.commands.report import draw
from raydistill.commands.run_folder import RunFolder, open_run
from raydistill.commands.students import check_student, make_student, save_student
from raydistill.commands.teach import teach_missing
from raydistill.commands.trainings import train_all
from raydistill.config.loader import check_complete
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.devices import own_device
from raydistill.evaluation.assemble import ArmResult, assemble_report
from raydistill.evaluation.memory import PeakMemory
from raydistill.evaluation.models import expert_routing, student_models, teacher_models
from raydistill.student.model import Student
from raydistill.student.predicting import predict_split
from raydistill.teachers.sources import SourcePlan
from raydistill.training.batches import plan_rows
from raydistill.training.checkpoint import BEST, TrainingState, load_tensors
from raydistill.training.costs import costs_of
from raydistill.training.events import read_events
from raydistill.training.features import make_matchers
from raydistill.training.metrics_log import METRICS_FILE
from raydistill.training.plan import ARMS, Arm, RunPlace, TrainingPlan


@dataclass(frozen=True)
class Distilled:
    """A finished run.

    Attributes:
        folder: of the run; of one at a URL, where this machine worked on it.
        report: the content of report.json.
    """

    folder: Path
    report: dict[str, Any]

    def student(self) -> Student:
        """The distilled student, in eval mode."""
        return Student.from_pretrained(str(RunFolder(self.folder).student)).eval()


def distill(
    config: Config | str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    out: str | Path | None = None,
    again: bool = False,
) -> Distilled:
    """Distil one student from all teachers, train the same student alone, and compare both with the teachers.

    Data, teachers and soft labels that are not in the cache yet are made first. A run that was stopped goes on
    where it stood.

    Args:
        config: a config, a file of one, or the name of a shipped recipe.
        overrides: `key=value` words, such as `distill.temperature=3`.
        out: the run folder, or its URL; default runs/NAME.
        again: start over, whatever the run folder holds.

    Raises:
        ConfigError, DataError, TeacherError, SoftLabelError: see their docstrings; each is one line.
    """
    config = as_config(config, overrides)
    check_complete(config)
    check_store(config)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(open_run(config, out, again))
        progress = stack.enter_context(Progress(folder.log))
        if folder.at_url is not None:
            folder.at_url.say = progress.event
            if folder.only_unsent:
                progress.say(f"the run was finished before; what {folder.called} lacked of it is there now")
                return Distilled(folder.path, folder.read_report())
        memory = stack.enter_context(PeakMemory())
        if needs_ray(config):
            stack.enter_context(cluster(config))
            preflight(config)
        if spare := unused_gpus(config, "training workers" if config.training.num_workers else None):
            progress.say(spare)
        data = load_data(config, progress)
        check_methods(config, {name: len(task.label_names) for name, task in data.items()})
        if folder.starts_over or not folder.initial(config.seed).exists():
            check_student(config, data)
        folder.begin(config)
        teach_missing(config, data, progress)
        label_names = {name: task.label_names for name, task in data.items()}
        with contextlib.ExitStack() as teaching:
            at_hand = teaching.enter_context(experts(with_scales(config, data), label_names, progress))
            ahead = config.distill.soft_labels == "stored"
            labels = collect_labels(config, data, at_hand, progress, Ledger(folder.ledger), with_train=ahead)
            folder.check_inputs(
                {f"the data of {name}": task.fingerprint for name, task in data.items()}
                | {f"teacher {name}": str(each["fingerprint"]) for name, each in at_hand.descriptions.items()}
            )
            models = teacher_models(at_hand.descriptions, _ask_latency(config, at_hand, data))
            known = known_teachers(config, at_hand, labels, data)
            source = source_plan(config, data, known).checked(progress.event)
            stored = not source.ways
            if stored:
                # They have said all that will be asked: their cores and memory are the student's now.
                teaching.close()
            plans = [_plan(config, data, folder, known, arm, seed, source) for seed in config.seeds for arm in ARMS]
            if config.distill.features:  # a mistake is told before the student alone is trained
                some = {name: task.train.views(range(2)) for name, task in data.items()}
                first = Student.from_pretrained(str(plans[0].initial_student))
                make_matchers(config, first, some, known.feature_shapes)
            if folder.at_url is not None and config.training.num_workers:
                folder.at_url.now()  # workers begin with what is there
            progress.say(f"students: training {', '.join(plan.name for plan in plans)}")
            states = train_all(plans, data, progress, stored, on_stored=teaching.close)
            # What befell teachers while no student heard them.
            told = {event for plan in plans for event in read_events(plan.folder)}
            for at, what in at_hand.labeller.events():
                if (at, what) not in told:
                    progress.happened(at, what)
        lines = ((plan.folder / METRICS_FILE).read_text(encoding="utf-8") for plan in plans)
        write_atomically(folder.metrics, "".join(lines))
        progress.say("evaluating on the test split")
        results = [_result(plan, state, data) for plan, state in zip(plans, states, strict=True)]
        # Of several seeds, the student that validated best; test rows have no say.
        best = max((result for result in results if result.arm == "distilled"), key=lambda result: result.best_score)
        student = _load_best(folder.initial(best.seed), folder.arm("distilled", best.seed))
        models |= student_models(student.to(_device_here(config)), data)
        student.cpu()
        report = assemble_report(
            config, data, labels.plain["test"], labels.by_task(), results, models, labels.costs,
            seconds=progress.elapsed_s, peak_rss_bytes=memory.peak_bytes, events=progress.events,
            student_seed=best.seed,
        )  # fmt: skip
        report["routing"] = expert_routing(student, data)
        save_student(student, folder.student, report)
        draw(folder, report, config)
        progress.say(f"the student is in {folder.name_of(folder.student)}")
    return Distilled(folder.path, report)


def _ask_latency(config: Config, at_hand: Experts, data: dict[str, TaskData]) -> Callable[[str, int], float]:
    def ask(name: str, batch_size: int) -> float:
        test = data[config.teachers[name].task].test
        return at_hand.latency_ms(name, test.views(range(min(batch_size, len(test)))))

    return ask


def _plan(
    config: Config,
    data: dict[str, TaskData],
    folder: RunFolder,
    known: KnownTeachers,
    arm: Arm,
    seed: int,
    source: SourcePlan,
) -> TrainingPlan:
    if not folder.initial(seed).exists():
        make_student(config, data, seed, folder.initial(seed))
    return TrainingPlan(
        config=config,
        arm=arm,
        seed=seed,
        initial_student=folder.initial(seed),
        folder=folder.arm(arm, seed),
        tensorboard=folder.tensorboard / f"{arm}-seed{seed}",
        ensemble_accuracy=known.ensemble_accuracy,
        standings=known.standings if arm == "distilled" else {},
        open_source=source if arm == "distilled" else None,
        feature_shapes=known.feature_shapes,
        prepared={name: task.prepared for name, task in data.items()},
        at_url=_for_workers(config, folder),
    )


def _for_workers(config: Config, folder: RunFolder) -> RunPlace | None:
    """What workers need of a run at a URL; in the command's own process it is a folder like any other."""
    run = folder.at_url
    if run is None or not config.training.num_workers:
        return None
    return RunPlace(run.url, run.key, run.owner.id, folder.path)


def _result(plan: TrainingPlan, state: TrainingState, data: dict[str, TaskData]) -> ArmResult:
    shutil.rmtree(plan.ray_train, ignore_errors=True)
    student = _load_best(plan.initial_student, plan.folder).to(_device_here(plan.config))
    rows = plan_rows(plan.config, data, plan.arm, plan.seed)
    return ArmResult(
        arm=plan.arm,
        seed=plan.seed,
        test_logits={name: predict_split(student, name, task.test) for name, task in data.items()},
        num_labelled={name: each.task.count_labelled(each.visible_labels) for name, each in rows.items()},
        curve=state.curve,
        best_step=state.best_step,
        best_score=state.best_score,
        wall_s=state.wall_s,
        student_samples=state.student_samples,
        costs=costs_of(state),
        balance=state.balance,
        trust=state.trust,
    )


def _device_here(config: Config) -> torch.device:
    """Of the student in the command's own process, where it was trained if no workers were asked for."""
    return torch.device("cpu") if config.training.num_workers else own_device()


def _load_best(initial: Path, folder: Path) -> Student:
    """An arm's student as it validated best."""
    student = Student.from_pretrained(str(initial))
    student.load_state_dict(load_tensors(folder / BEST))
    return student.eval()
