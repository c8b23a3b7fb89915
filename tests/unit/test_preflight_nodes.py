"""What a cluster has in sum may lie on the wrong nodes."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.commands.preflight import check_nodes
from raydistill.config.models import PlacementConfig
from raydistill.errors import ConfigError

NODES: list[dict[str, Any]] = [
    {"Resources": {"CPU": 3.0, "GPU": 1.0}, "Labels": {"role": "teacher"}},
    {"Resources": {"CPU": 3.0, "GPU": 0.5}, "Labels": {"role": "student"}},
    {"Resources": {"CPU": 16.0}, "Labels": {}},
]


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"num_cpus": 2}, 1 + 1 + 8),
        ({"num_cpus": 4}, 4),
        ({"num_cpus": 1, "num_gpus": 0.5}, 2 + 1),
        ({"num_cpus": 0, "num_gpus": 0.1}, 10 + 5),
        ({"num_cpus": 2, "num_gpus": 0.5}, 1 + 1),
        ({"num_cpus": 1, "label_selector": {"role": "teacher"}}, 3),
        ({"num_cpus": 1, "label_selector": {"role": "!in(teacher)"}}, 3 + 16),
    ],
)
def test_as_many_as_the_nodes_hold_are_let_through_and_no_more(asked: dict[str, Any], most: int) -> None:
    placement = PlacementConfig(**asked)
    check_nodes([("training.placement", placement, most)], NODES)
    too_many = rf"training\.placement asks for .* {most + 1} times, .* hold {most};"
    if placement.num_gpus * (most + 1) > 1.5:  # not even all nodes together
        too_many = r"asks for .* GPU \(training\.placement .*\) and the cluster has 1\.5"
    with pytest.raises(ConfigError, match=too_many):
        check_nodes([("training.placement", placement, most + 1)], NODES)


def test_what_asks_for_nothing_fits_everywhere() -> None:
    check_nodes([("training.placement", PlacementConfig(num_cpus=0), 99)], NODES)
