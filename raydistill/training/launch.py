"""Start a student's training with Ray Train: in this process, or on workers."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raydistill.data.dataset import TaskData, load_task_data
from raydistill.errors import RaydistillError, first_line
from raydistill.patience import Patience, free_of
from raydistill.teachers.pool.placement import asked, describe
from raydistill.training.checkpoint import TrainingState, load_state
from raydistill.training.elsewhere import ArmThere, worker_folder
from raydistill.training.events import append_events
from raydistill.training.following import Follower, beating
from raydistill.training.loop import train_student
from raydistill.training.notices import Notice
from raydistill.training.plan import TrainingPlan
from raydistill.training.published import publish

OnLog = Callable[[dict[str, Any]], None]

LOOK_S = 1.0


def launch(plan: TrainingPlan, data: dict[str, TaskData], on_log: OnLog) -> TrainingState:
    """Train the plan's student to its end and return the final state.

    `training.num_workers` 0 is Ray Train's local mode: the loop runs here, no process is started and no data is
    sent. More start that many workers, which step together and restart from the last checkpoint: up to `max_failures`
    times, and as often as a node goes that gave notice. What the user has to mend is not tried again.
    """
    there = None if plan.at_url is None else ArmThere(plan)
    if there is not None:
        there.fetch_all()
    finished = load_state(plan.folder)
    if finished and finished.step >= plan.config.training.num_steps:
        return finished
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    if plan.config.training.num_workers == 0:
        state = _trainer(plan, {"plan": plan, "data": data, "on_log": on_log}).fit().return_value
        assert isinstance(state, TrainingState)
        return state
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    follower = Follower(plan, on_log)
    # Ray Train would begin again after an error of ours, too, which the next worker would only repeat.
    failures_left = plan.config.training.max_failures
    while True:
        try:
            _fit(plan, follower)
            break
        except (TrainingFailedError, RayError) as error:
            ours = _own_error(error)
            follower.look()
            went = follower.heard_notice() or _was_taken(error)
            if ours or not (failures_left or went):
                raise ours or _unknown(plan, error) from error
            failures_left -= not went
            what = "a node went that had given notice" if went else "a training worker failed"
            append_events(plan.folder, [(time.time(), f"{what} ({_what_failed(error)})")])
        finally:
            follower.look()
        # The error's frames hold Ray Train's controller, and with it the room of the workers that the next ones need.
        gc.collect()
    if there is not None:
        there.fetch_all()
        follower.look()
    written = load_state(plan.folder)
    assert written is not None
    return written


def _fit(plan: TrainingPlan, follower: Follower) -> None:
    """In a thread of its own, so that this one can tell what goes on, and give up.

    Raises:
        ConfigError: no room in the cluster for the workers. TrainingFailedError, RayError: as `TorchTrainer.fit`.
    """
    training = plan.config.training
    each, takes = describe(training.placement), asked(training.placement)
    count = training.fewest_workers

    def say(what: str) -> None:
        follower.on_log({"event": what, "at": time.time()})

    patience = Patience(
        lambda: f"{count} training worker{'s' * (count > 1)} ({each} each; {free_of(takes)})",
        say, plan.config.ray.wait_s,
    )  # fmt: skip
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            _trainer(plan, {"plan": plan}).fit()
        except BaseException as error:  # noqa: BLE001 — told to the thread that waits
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_S)
        follower.look()
        patience.look(follower.beats())
    if failed:
        raise failed.pop()


def worker_loop(settings: dict[str, Any]) -> TrainingState | None:
    """What each Ray Train worker runs; in local mode the caller's own data comes along, and the state goes back."""
    import ray.train
    import ray.train.torch

    plan: TrainingPlan = settings["plan"]
    context = ray.train.get_context()
    local = "data" in settings
    show = settings.get("on_log", lambda line: None)
    look: Callable[[], None] = lambda: None  # noqa: E731

    def on_log(line: dict[str, Any]) -> None:
        look()
        publish(line)
        show(line)

    def leaving() -> Notice | None:
        info = ray.train.get_preemption_info()
        deadline_s = info.deadline_ms / 1000 if info and info.deadline_ms else None
        return Notice(tuple(info.preempted_node_ids), deadline_s) if info else None

    rank = context.get_world_rank()
    with contextlib.ExitStack() as stack:
        if plan.at_url is not None:
            worker = stack.enter_context(worker_folder(plan, rank))
            plan, look = worker.plan, worker.check
        if not local:
            stack.enter_context(beating(plan))
        state = train_student(
            plan,
            settings["data"] if local else _load_data(plan),
            rank=rank,
            num_ranks=context.get_world_size(),
            device=ray.train.torch.get_device(),
            wrap=ray.train.torch.prepare_model,
            on_log=on_log,
            leaving=None if local else leaving,
        )
    return state if local else None


def _load_data(plan: TrainingPlan) -> dict[str, TaskData]:
    cache_dir = Path(plan.config.cache_dir).expanduser()
    return {
        name: load_task_data(name, task, cache_dir, prepared=plan.prepared.get(name))
        for name, task in plan.config.tasks.items()
    }


def _trainer(plan: TrainingPlan, settings: dict[str, Any]) -> Any:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    training = plan.config.training
    placement = training.placement
    each: dict[str, Any] = {"CPU": placement.num_cpus, "GPU": placement.num_gpus, **placement.resources}
    workers: dict[str, Any] = {"num_workers": training.num_workers}
    if training.fewest_workers < training.num_workers:
        workers["num_workers"] = (training.fewest_workers, training.num_workers)
    if training.num_workers:
        workers |= {
            "placement_strategy": placement.strategy.upper(),
            "use_gpu": placement.num_gpus > 0,
            "resources_per_worker": {key: value for key, value in each.items() if value},
            "accelerator_type": placement.accelerator_type,
            "label_selector": dict(placement.label_selector) or None,
        }
    return TorchTrainer(
        worker_loop,  # type: ignore[arg-type]  # local mode hands its result back
        train_loop_config=settings,
        # NCCL refuses two workers on one GPU; gloo's sums go through the host's memory.
        torch_config=TorchConfig(backend="gloo") if 0 < placement.num_gpus <= 0.5 else None,
        scaling_config=ray.train.ScalingConfig(**workers),
        run_config=ray.train.RunConfig(
            # A name used twice silently loads the older run's checkpoints; ours lie in plan.folder.
            name=f"{plan.name}-{time.time_ns()}",
            storage_path=str(plan.ray_train.absolute()),
            # Ray Train would restart by itself after a node that gave notice, and tell nobody.
            failure_config=ray.train.FailureConfig(max_preemption_failures=0),  # type: ignore[call-arg]  # typed as v1
        ),
    )


def _was_taken(error: BaseException) -> bool:
    """Whether Ray knows that a node had been about to go."""
    from ray.train import PreemptionError

    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(each, "health_check_failure", each) for each in failures]
    return isinstance(error, PreemptionError) or any(getattr(each, "preempted", False) for each in causes)


def _what_failed(error: BaseException) -> str:
    rank, why = next(iter(getattr(error, "worker_failures", {}).items()), (None, error))
    return first_line(why) if rank is None else f"rank {rank}: {first_line(why)}"


def _unknown(plan: TrainingPlan, error: Exception) -> RaydistillError:
    """One line for the user; the workers' tracebacks, which it would lose, for whoever looks into it."""
    place = plan.folder / "failure.txt"
    with contextlib.suppress(OSError):
        place.write_text(str(error), encoding="utf-8")
    return RaydistillError(
        f"{plan.name}: a training worker failed ({first_line(error)}; see {place}); the same command goes on from the "
        "last checkpoint"
    )


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
