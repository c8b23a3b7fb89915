"""Methods that do not exist, or do not go together: one line with the reason, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raydistill.commands.methods_check import check_methods
from raydistill.config.models import Config
from raydistill.errors import ConfigError

TEACHERS = {
    name: {"task": task, "loader": "python", "model": "nobody:asks"}
    for name, task in (("one", "mood"), ("two", "mood"), ("vit", "bands"), ("ear", "tones"))
}
DEEP = {"teacher": "one", "teacher_layer": "deep"}


@pytest.mark.parametrize(
    ("distill", "words"),
    [
        ({"loss": "dkdd"}, ["distill.loss", "'dkd'", "'reverse_kl'"]),
        ({"fusion": "mean"}, ["distill.fusion", "'mean_logits'", "'aekd'"]),
        ({"balancing": "pcgrads"}, ["distill.balancing", "'pcgrad'", "'upgrad'"]),
        ({"task_losses": {"moods": "kl"}}, ["distill.task_losses", "'moods'", "mood"]),
        ({"task_fusions": {"moods": "best"}}, ["distill.task_fusions", "'moods'"]),
        ({"task_losses": {"mood": "dkdd"}}, ["distill.task_losses.mood", "'dkd'"]),
        ({"loss_options": {"dkd": {"gamma": 1}}}, ["distill.loss_options.dkd.gamma", "valid here: alpha, beta"]),
        ({"loss_options": {"skew_kl": {"skew": 1.0}}}, ["skew_kl.skew", "less than 1"]),
        ({"features": {"deep": {**DEEP, "loss": "hints"}}}, ["distill.features.deep.loss", "'hint'"]),
        ({"features": {"deep": {**DEEP, "teacher": "nobody"}}}, ["features.deep.teacher", "'nobody'", "one"]),
        ({"features": {"soft_loss": DEEP}}, ["distill.features.soft_loss", "name already"]),
        ({"features": {"deep": {"teacher": "one"}}}, ["distill.features.deep.teacher_layer", "missing"]),
        (
            {"features": {"deep": DEEP}, "soft_labels": "stored"},
            ["features (deep)", "soft_labels=stored", "auto, local or remote"],
        ),
        ({"teacher_weights": {"three": 1}}, ["distill.teacher_weights", "'three'", "one"]),
        ({"teacher_weights": {"one": 0, "two": 0}}, ["distill.teacher_weights", "'mood'", "0"]),
        ({"balancing": "gls", "task_weights": {"mood": 0}}, ["gls", "always 0", "'mood'", "fixed"]),
    ],
)
def test_a_config_says_what_is_wrong(
    make_config: Callable[..., Config], distill: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(teachers=TEACHERS, distill=distill)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("distill", "word"),
    [
        ({"loss": "dist"}, "'dist'"),
        ({"task_losses": {"bands": "mse"}}, "'mse'"),
        ({"standardize": True}, "standardize"),
    ],
)
def test_what_needs_every_logit_is_refused_where_the_store_keeps_the_best_few(
    make_config: Callable[..., Config], distill: dict[str, Any], word: str
) -> None:
    config = make_config(teachers=TEACHERS, distill=distill, store={"top_k": {"bands": 2}})
    with pytest.raises(ConfigError) as caught:
        check_methods(config, {"bands": 3, "mood": 2, "tones": 3})
    for words in (word, "task 'bands'", "the best 2 of 3", "store.top_k.bands=3"):
        assert words in str(caught.value)
    check_methods(make_config(teachers=TEACHERS, distill=distill), {"bands": 3, "mood": 2, "tones": 3})
    many = {"bands": 5_000, "mood": 2, "tones": 3}
    with pytest.raises(ConfigError, match="the best 32 of 5000"):
        check_methods(make_config(teachers=TEACHERS, distill=distill), many)
    asking = make_config(teachers=TEACHERS, distill={**distill, "soft_labels": "local"}, store={"fill": False})
    check_methods(asking, many)  # nothing is kept: every logit is at hand
