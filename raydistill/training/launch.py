"""Start a student's training: in this process, or on Ray Train workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import RaydistillError
from raydistill.training.checkpoint import TrainingState, load_state
from raydistill.training.loop import train_student
from raydistill.training.metrics_log import METRICS_FILE, read_metrics
from raydistill.training.plan import TrainingPlan

OnLog = Callable[[dict[str, Any]], None]


def launch(plan: TrainingPlan, data: dict[str, TaskData], on_log: OnLog) -> TrainingState:
    """Train the plan's student to its end and return the final state.

    `training.num_workers` 0 runs the loop here: no process to start, no data to send. More start that many Ray
    Train workers, which step together and restart from the last checkpoint up to `max_failures` times.
    """
    finished = load_state(plan.folder)
    if finished and finished.step >= plan.config.training.num_steps:
        return finished
    if plan.config.training.num_workers == 0:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return train_student(plan, data, device=device, on_log=on_log)
    return _launch_workers(plan, on_log)


def worker_loop(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray.train
    import ray.train.torch

    plan: TrainingPlan = settings["plan"]
    context = ray.train.get_context()
    cache_dir = Path(plan.config.cache_dir).expanduser()
    data = {name: load_task_data(name, task, cache_dir) for name, task in plan.config.tasks.items()}
    train_student(
        plan,
        data,
        rank=context.get_world_rank(),
        num_ranks=context.get_world_size(),
        device=ray.train.torch.get_device(),
        wrap=ray.train.torch.prepare_model,
    )


def _launch_workers(plan: TrainingPlan, on_log: OnLog) -> TrainingState:
    import ray.train
    from ray.train.torch import TorchTrainer

    training = plan.config.training
    placement = training.placement
    scaling: dict[str, Any] = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
    trainer = TorchTrainer(
        worker_loop,
        train_loop_config={"plan": plan},
        scaling_config=ray.train.ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=placement.num_gpus > 0,
            resources_per_worker={key: value for key, value in scaling.items() if value},
            accelerator_type=placement.accelerator_type,
        ),
        run_config=ray.train.RunConfig(
            # A name used twice silently loads the older run's checkpoints; ours lie in plan.folder.
            name=f"{plan.name}-{time.time_ns()}",
            storage_path=str((plan.folder / "ray_train").absolute()),
            failure_config=ray.train.FailureConfig(max_failures=training.max_failures),
        ),
    )
    stopped = threading.Event()
    follower = threading.Thread(target=_follow, args=(plan.folder / METRICS_FILE, on_log, stopped), daemon=True)
    follower.start()
    try:
        trainer.fit()
    except Exception as error:
        raise _own_error(error) or error from error
    finally:
        stopped.set()
        follower.join()
    state = load_state(plan.folder)
    assert state is not None
    return state


def _follow(path: Path, on_log: OnLog, stopped: threading.Event) -> None:
    """Hand on the lines that rank 0 adds to metrics.jsonl: the workers' progress, shown where the user looks."""
    shown = len(read_metrics(path))
    while not stopped.wait(1.0):
        lines = read_metrics(path)
        for line in lines[shown:]:
            on_log(line)
        shown = max(shown, len(lines))


def _own_error(error: BaseException | None) -> RaydistillError | None:
    """Ray wraps a worker's error in its own; the user wants ours."""
    while error is not None:
        if isinstance(error, RaydistillError):
            return error
        for inner in getattr(error, "worker_failures", {}).values():
            found = _own_error(inner)
            if found:
                return found
        error = getattr(error, "cause", None) or error.__cause__
    return None
