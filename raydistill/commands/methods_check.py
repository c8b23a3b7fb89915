"""Whether the chosen methods make sense with the chosen data and store: said at set-up, not at step 900."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.soft_labels.encoding import Encoding


def check_methods(config: Config, num_classes: Mapping[str, int]) -> None:
    """Refuse combinations that cannot work.

    Args:
        num_classes: by task.

    Raises:
        ConfigError: names the task, the method, the reason and what to do.
    """
    from raydistill.losses.soft_losses import SOFT_LOSSES

    distill = config.distill
    for task, classes in num_classes.items():
        top_k = Encoding.choose(classes, config.store.top_k_of(task)).top_k
        name = distill.loss_of(task)
        uses_store = config.store.fill or distill.soft_labels == "stored"
        if top_k and top_k < classes and uses_store and (SOFT_LOSSES[name].needs_every_logit or distill.standardize):
            what = "distill.standardize" if distill.standardize else f"the loss {name!r}"
            raise ConfigError(
                f"task {task!r}: {what} needs every logit, and the store keeps the best {top_k} of {classes}: the "
                f"others would be made up; set store.top_k.{task}={classes}, or take another loss"
            )
        weights = [distill.teacher_weights.get(teacher, 1.0) for teacher in config.teachers_of(task)]
        if weights and not any(weights):
            raise ConfigError(f"task {task!r}: distill.teacher_weights gives all its teachers 0; give one of them more")
    if distill.features and distill.soft_labels == "stored":
        raise ConfigError(
            f"distill.features ({', '.join(distill.features)}) needs the teachers themselves, and the store keeps no "
            "features: set distill.soft_labels to auto, local or remote, or leave the features out"
        )
    if distill.balancing in ("gls", "famo") and not all(distill.task_weights.get(task, 1.0) for task in config.tasks):
        raise ConfigError(
            f"distill.balancing {distill.balancing!r} takes the logarithm of every task's loss, and "
            "distill.task_weights makes one 0; give it more, or take another balancing"
        )
