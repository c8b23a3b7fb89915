"""Where rows come from: one visible dict from the config's `source` to what opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raydistill.config.data import DataConfig, TaskConfig
from raydistill.data.rows import RawData
from raydistill.remote import is_url


def open_source(name: str, task: TaskConfig, cache_dir: Path, progress: Callable[[str], None]) -> RawData:
    """The rows of a task's source, not yet decoded. Fetches the demo sources where they are not in the cache."""
    from raydistill.data.sources import demo, hugging_face

    demos = {
        "fashion_mnist": demo.fashion_mnist,
        "sentiment": demo.sentiment,
        "spoken_language": demo.spoken_language,
    }
    if task.data.source == "sentiment" and task.kind == "regression":
        return demo.sentiment_scores(cache_dir, progress)
    if task.data.source in demos:
        return demos[task.data.source](cache_dir, progress)
    return hugging_face.open_dataset(name, task, progress)


def is_missing(config: DataConfig) -> bool:
    """Whether `path` names a file or a folder that this machine does not have."""
    if config.path is None or config.source == "hub" or is_url(config.path):
        return False
    return not Path(config.path).expanduser().exists()
