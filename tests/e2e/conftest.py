"""What the end-to-end tests share: a lab, and one finished run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

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
