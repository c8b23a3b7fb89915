"""What all tests share: quiet libraries, one thread, and tiny data of every domain."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# Before `datasets` and `transformers` read them: nothing is fetched, and nothing is left in the user's own cache.
HUGGING_FACE = tempfile.TemporaryDirectory(prefix="raydistill-tests-")
os.environ["HF_HOME"] = HUGGING_FACE.name
os.environ["HF_HUB_OFFLINE"] = "1"
# A Ray that other tests start beside these is none of theirs. Short: sockets lie in there.
RAY = tempfile.TemporaryDirectory(prefix="rd-", ignore_cleanup_errors=True)
os.environ["RAY_TMPDIR"] = RAY.name
# Else all that Ray starts waits for whatever other tests compute in their own processes.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
sys.path.insert(0, str(Path(__file__).parent / "support"))

import tiny  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

from raydistill.config.loader import load_config  # noqa: E402
from raydistill.config.models import Config  # noqa: E402
from raydistill.data.dataset import TaskData, load_task_data  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("tests", deadline=None, max_examples=40, database=None)
settings.load_profile("tests")

MakeConfig = Callable[..., Config]


def pytest_unconfigure() -> None:
    HUGGING_FACE.cleanup()
    RAY.cleanup()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny data set of every domain, and a cache."""
    root = tmp_path_factory.mktemp("tiny")
    tiny.write_pictures(root / "pictures")
    tiny.write_texts(root / "texts.csv")
    tiny.write_sounds(root / "sounds")
    return root


@pytest.fixture(scope="session")
def make_config(tiny_root: Path) -> MakeConfig:
    """A config over the tiny data; sections given by keyword replace or extend the usual ones."""

    def make(names: tuple[str, ...] = tuple(tiny.TASKS), **sections: Any) -> Config:
        content = {
            "name": "tiny",
            "cache_dir": str(tiny_root / "cache"),
            "tasks": {name: tiny.task_section(name, tiny_root) for name in names},
            "student": tiny.STUDENT,
            **sections,
        }
        return load_config(content)

    return make


@pytest.fixture(scope="session")
def tiny_data(tiny_root: Path, make_config: MakeConfig) -> dict[str, TaskData]:
    """The three tasks' data, prepared once."""
    return {name: load_task_data(name, task, tiny_root / "cache") for name, task in make_config().tasks.items()}
