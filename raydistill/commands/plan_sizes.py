"""What a plan has to know of the data and of what is there already. Nothing but prepared data is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raydistill.config.data import TaskConfig
from raydistill.config.models import Config
from raydistill.data.dataset import Split, TaskData
from raydistill.planning.sizes import Sizes, TaskSize, TeacherSize
from raydistill.remote import is_url
from raydistill.soft_labels.encoding import Encoding
from raydistill.soft_labels.layers import layers_asked
from raydistill.soft_labels.store import LabelKey, TableInfo, open_store
from raydistill.tasks import task_of
from raydistill.teachers.labelling import training_views


def unfetched(config: Config) -> list[str]:
    """Tasks whose rows are still elsewhere: what may take minutes is not done for a plan."""
    cache = Path(config.cache_dir).expanduser()
    return [name for name, task in config.tasks.items() if not _is_here(name, task, cache)]


def _is_here(name: str, task: TaskConfig, cache: Path) -> bool:
    from raydistill.data.sources import demo, fetch

    packages = {"fashion_mnist": demo.FASHION, "sentiment": demo.SENTIMENT, "spoken_language": demo.STAMPS}
    package, path = packages.get(task.data.source), str(task.data.path)
    if package is not None and (package == demo.SENTIMENT or fetch.has_apt()):
        return (cache / "raw" / package).is_dir()
    if package is None and task.data.source != "hub" and not is_url(path):
        return True
    # Of what comes from far: it was prepared before, or the hub's own cache has it.
    import datasets

    kept = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")
    return kept.is_dir() or any((cache / "data").glob(f"{name}-*/table.json"))


def sizes_of(
    config: Config, data: Mapping[str, TaskData], fingerprints: Mapping[str, str], untrained: Mapping[str, int]
) -> Sizes:
    """Rows to learn from, and those whose soft labels the store has.

    Args:
        fingerprints: of the teachers; empty of one that is not trained yet.
        untrained: by teacher that is trained first, the rows that it can learn from: see `lesson_rows`.

    Raises:
        ConfigError, SoftLabelError: the store cannot be read.
    """
    tables = {table.key: table for table in open_store(config).tables() if table.key is not None}
    asked = layers_asked(config.distill)
    teachers = {}
    for name, teacher in config.teachers.items():
        task, settings = data[teacher.task], config.tasks[teacher.task]

        def known(split: Split, view: int, name: str = name, task: TaskData = task) -> int:
            key = LabelKey(fingerprints[name], split.fingerprint, view)
            return _known(tables.get(key), split, _encoding(config, task))

        lessons, exams = _lessons(config, name, task, untrained[name]) if name in untrained else (0, 0)
        teachers[name] = TeacherSize(
            # With features, a table of their own holds the rows; which one is known only when a layer has spoken.
            known=0 if name in asked else sum(known(task.train, view) for view in training_views(settings)),
            known_plain=known(task.validation, 0) + known(task.test, 0),
            always=name in asked and not config.store.features,
            lessons=lessons,
            exams=exams,
        )
    tasks = {
        name: TaskSize(len(each.train), len(each.validation), len(each.test), config.tasks[name].num_views)
        for name, each in data.items()
    }
    return Sizes(tasks, teachers)


def _encoding(config: Config, task: TaskData) -> Encoding:
    num_classes = len(task.label_names)
    whole = task.kind != "classification"
    return Encoding.choose(num_classes, num_classes if whole else config.store.top_k_of(task.name))


def _known(table: TableInfo | None, split: Split, encoding: Encoding) -> int:
    """Rows of a table that a run would read; one in another form is made again."""
    if table is None or table.num_rows != len(split):
        return 0
    same = (table.num_classes, table.encoding) == (encoding.num_classes, str(encoding))
    return table.num_known if same else 0


def lesson_rows(config: Config, name: str, task: TaskData) -> int:
    """That a teacher which is trained first can learn from."""
    own = task_of(task, config.teachers[name].label_names or task.label_names)
    return int(own.is_labelled(own.relabel(task.train.labels, task.label_names)).sum())


def _lessons(config: Config, name: str, task: TaskData, rows: int) -> tuple[int, int]:
    """Steps of its own training, and the rows that it is examined on meanwhile; as `fit` counts them."""
    train = config.teachers[name].train
    assert train is not None
    steps = max(1, round(train.num_epochs * rows / train.batch_size))
    every = max(1, min(steps, rows // train.batch_size) // train.evaluations_per_epoch)
    return steps, -(-steps // every) * len(task.validation)
