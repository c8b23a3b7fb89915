"""What the distributed tests share: a lab."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e" / "helpers"))

from small_runs import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.end_all()


@pytest.fixture(autouse=True)
def nothing_runs_on(lab: Lab) -> Iterator[None]:
    """After each test."""
    yield
    lab.end_commands()


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[None]:
    """A Ray in this process: two CPUs, two GPUs that are promises only, a label."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for key, value in lab.environment().items():
            patch.setenv(key, value)
        ray.init(
            "local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
            labels={"role": "teacher"},
        )  # fmt: skip
        yield
        ray.shutdown()
