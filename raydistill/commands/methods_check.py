"""Whether the chosen losses can learn from what the store keeps: said at set-up, not at step 900."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.config.models import Config
from raydistill.errors import ConfigError
from raydistill.soft_labels.encoding import Encoding


def check_methods(config: Config, num_classes: Mapping[str, int]) -> None:
    """Refuse losses that need more than the store keeps; what needs no data to tell is refused with the config.

    Args:
        num_classes: by task.

    Raises:
        ConfigError: names the task, the method, the reason and what to do.
    """
    from raydistill.losses.soft_losses import SOFT_LOSSES

    distill = config.distill
    for task, classes in num_classes.items():
        if config.tasks[task].kind != "classification":
            continue  # what is kept of it is whole
        top_k = Encoding.choose(classes, config.store.top_k_of(task)).top_k
        name = distill.loss_of(task)
        uses_store = config.store.fill or distill.soft_labels == "stored"
        if top_k and top_k < classes and uses_store and (SOFT_LOSSES[name].needs_every_logit or distill.standardize):
            what = "distill.standardize" if distill.standardize else f"the loss {name!r}"
            raise ConfigError(
                f"task {task!r}: {what} needs every logit, and the store keeps the best {top_k} of {classes}: the "
                f"others would be made up; set store.top_k.{task}={classes}, or take another loss"
            )
