"""Optuna's figures of a study, with the student alone drawn in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from optuna import visualization
from optuna.study import Study
from optuna.trial import TrialState

from raydistill.tuning.records import TrialRecord
from raydistill.tuning.space import Space

ENOUGH = 4  # trials of full length, before it is said which parameter matters
ALONE = "#e0a458"


def figures(study: Study, space: Space, trials: list[TrialRecord]) -> Iterator[tuple[str, Any]]:
    """Titles and plotly figures; those that so few trials can fill."""
    whole = study.get_trials(states=(TrialState.COMPLETE,))
    if not whole:
        return
    alone = [trial for trial in trials if trial.alone]
    names = list(space.objective)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some figures are experimental
        if len(names) == 1:
            yield "Every trial", _history(study, names[0], alone)
            if any(len(trial.intermediate_values) > 1 for trial in study.get_trials()):
                yield "Learning curves", visualization.plot_intermediate_values(study)
        for index in range(1, len(names)):
            yield f"{names[0]} against {names[index]}", _front(study, names, index, alone)
        varied = [path for path in whole[0].params if len({str(trial.params.get(path)) for trial in whole}) > 1]
        if len(whole) < ENOUGH or not varied:
            return
        for index, name in enumerate(names if len(names) > 1 else ()):
            yield f"Which parameter matters for {name}", _importances(study, name, index)
        if len(names) == 1:
            yield "Which parameter matters", _importances(study, names[0], 0)
        of_first: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": names[0]}
        yield f"{names[0]} by parameter", visualization.plot_slice(study, **of_first)
        if len(varied) > 1:
            yield "All together", visualization.plot_parallel_coordinate(study, **of_first)


def _history(study: Study, name: str, alone: list[TrialRecord]) -> Any:
    figure = visualization.plot_optimization_history(study, target_name=name)
    points = [(trial.number, trial.alone[name]) for trial in alone if name in trial.alone]
    if points:
        numbers, values = zip(*points, strict=True)
        figure.add_scatter(
            x=numbers, y=values, mode="lines+markers", name="the same student alone",
            line={"color": ALONE, "dash": "dot"}, marker={"symbol": "x"},
        )  # fmt: skip
    return figure


def _front(study: Study, names: list[str], index: int, alone: list[TrialRecord]) -> Any:
    """The first objective against another one."""
    figure = visualization.plot_pareto_front(
        study, targets=lambda trial: (trial.values[index], trial.values[0]), target_names=[names[index], names[0]]
    )
    points = {
        (trial.alone[names[index]], trial.alone[names[0]])
        for trial in alone
        if names[0] in trial.alone and names[index] in trial.alone
    }
    if points:
        x, y = zip(*sorted(points), strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", name="student alone", marker={"color": ALONE, "symbol": "x"})
        figure.update_layout(legend={"orientation": "h", "yanchor": "top", "y": -0.2})  # clear of the colour bars
    return figure


def _importances(study: Study, name: str, index: int) -> Any:
    return visualization.plot_param_importances(study, target=lambda trial: trial.values[index], target_name=name)
