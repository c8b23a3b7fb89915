"""Waiting for room is said, and ends."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.patience import Patience


def test_waiting_is_said_within_half_a_minute_and_ends() -> None:
    now, said = [0.0], list[str]()
    patience = Patience(lambda: "2 workers (GPU 1 each)", said.append, 100.0, lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        patience.look(going_on=False)
        assert bool(said) is (second >= 25)
    assert len(said) == 3 and "waiting 25 s so far for 2 workers (GPU 1 each)" in said[0]
    now[0] = 100.0
    with pytest.raises(ConfigError, match=r"no room in the cluster within 100 s for 2 workers .* raise ray.wait_s"):
        patience.look(going_on=False)


def test_whatever_moves_is_not_waited_for() -> None:
    now, said = [0.0], list[str]()
    patience = Patience(lambda: "it", said.append, 30.0, lambda: now[0])
    for second in range(0, 200, 20):
        now[0] = float(second)
        patience.look(going_on=True)
    now[0] += 24
    patience.look(going_on=False)
    assert said == []
