"""The part of the config that says what a task is and where its rows come from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raydistill.config.basics import Domain, Frozen

TaskKind = Literal["classification", "multilabel", "regression"]
LabelScales = tuple[tuple[float, float], ...]
"""By label, in head order: the mean and the deviation that standardise it."""

# The demo's sources give names; only sentences also have a number.
KINDS_OF_SOURCE: dict[str, tuple[TaskKind, ...]] = {
    "fashion_mnist": ("classification",),
    "sentiment": ("classification", "regression"),
    "spoken_language": ("classification",),
}
# Of the kinds that came later: a classification's prepared data and teachers keep their place in the cache.
OF_OTHER_KINDS = frozenset({"label_columns", "label_separator", "label_scales"})


class DataConfig(Frozen):
    """Where the rows of a task come from and how a row becomes a view.

    `source` names a loader: `hub`, `imagefolder`, `audiofolder`, `csv`, `json`, `parquet` and `disk`
    (`Dataset.save_to_disk`) go through Hugging Face `datasets`; the other three are the demo's own sources.
    A split that the source does not have is cut from its train split, whole groups at a time.
    """

    source: Literal[
        "hub", "imagefolder", "audiofolder", "csv", "json", "parquet", "disk",
        "fashion_mnist", "sentiment", "spoken_language",
    ]  # fmt: skip
    path: str | None = Field(
        None, description="hub name, folder, file, or URL of one (s3://…); the demo sources need none"
    )
    subset: str | None = Field(None, description="configuration name of a hub data set")
    input_column: str | None = Field(None, description="default: image, text or audio, after the domain")
    label_column: str = Field("label", description="a class; multilabel: names; regression: a number")
    label_columns: tuple[str, ...] | None = Field(
        None, description="multilabel: a column of 0 and 1 for each label; regression: several numbers"
    )
    label_separator: str = Field(";", min_length=1, description="multilabel: between the names in a string")
    label_scales: dict[str, tuple[float, PositiveFloat]] | None = Field(
        None, description="regression: mean and deviation that standardise a label; default: the train split's"
    )
    group_column: str | None = Field(None, description="rows of one group never cross splits")
    train_split: str = "train"
    validation_split: str | None = "validation"
    test_split: str | None = "test"
    validation_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    test_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    max_train: PositiveInt | None = None
    max_validation: PositiveInt | None = None
    max_test: PositiveInt | None = None
    label_names: tuple[str, ...] | None = Field(None, description="default: those found in the data, sorted")
    image_size: PositiveInt = Field(224, description="side of the square view, pixels")
    grayscale: bool = False
    sample_rate: PositiveInt = Field(16_000, description="of the view's waveform, Hz")
    max_seconds: float = Field(10.0, gt=0.0, description="longer clips are cut")
    augment: bool = True
    num_views: PositiveInt = Field(2, description="distinct augmented views a training row has")
    max_bad_fraction: float = Field(0.01, ge=0.0, le=1.0, description="share of unusable rows that is skipped")

    @model_validator(mode="after")
    def _path_given(self) -> DataConfig:
        if self.path is None and self.source not in ("fashion_mnist", "sentiment", "spoken_language"):
            raise ValueError(f"source {self.source!r} needs a path")
        return self


class TaskConfig(Frozen):
    """One thing that the student learns to do."""

    kind: TaskKind = Field(
        "classification", description="one class a row; or several names, or none; or one number or more"
    )
    domain: Domain
    data: DataConfig

    @model_validator(mode="after")
    def _labels_are_of_this_kind(self) -> TaskConfig:
        data, kinds = self.data, KINDS_OF_SOURCE.get(self.data.source, (self.kind,))
        if self.kind not in kinds:
            raise ValueError(f"source {data.source!r} has labels of kind {' or '.join(kinds)} only, not {self.kind}")
        if data.label_columns is not None:
            if self.kind == "classification":
                raise ValueError("data.label_columns is for the kinds multilabel and regression; set data.label_column")
            if not data.label_columns or len(set(data.label_columns)) < len(data.label_columns):
                raise ValueError(f"data.label_columns {list(data.label_columns)} is empty or names a column twice")
        if data.label_names is not None and (self.kind == "regression" or data.label_columns is not None):
            raise ValueError("data.label_names: here the names of the label columns are the labels'; leave it out")
        if data.label_scales is not None and self.kind != "regression":
            raise ValueError("data.label_scales is for the kind regression; leave it out")
        return self

    def content(self, leave_out: Iterable[str]) -> dict[str, Any]:
        """What decides rows and labels, as plain data: part of what prepared data and teachers are found by.

        Args:
            leave_out: keys of `data` that do not count.
        """
        # Labels are kept in the user's units: how they are standardised changes nothing.
        if self.kind != "classification":
            return {"kind": self.kind, **self.data.model_dump(exclude={*leave_out, "label_scales"})}
        return self.data.model_dump(exclude={*leave_out, *OF_OTHER_KINDS})

    @property
    def num_views(self) -> int:
        """Distinct augmented views of a training row; 0 = the plain one only (a text has no others)."""
        return self.data.num_views if self.data.augment and self.domain != "text" else 0
