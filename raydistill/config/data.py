"""The part of the config that says what a task is and where its rows come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from raydistill.config.basics import Domain, Frozen


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
    path: str | None = Field(None, description="hub name, folder or file; the demo sources need none")
    subset: str | None = Field(None, description="configuration name of a hub data set")
    input_column: str | None = Field(None, description="default: image, text or audio, after the domain")
    label_column: str = "label"
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

    kind: Literal["classification"] = "classification"
    domain: Domain
    data: DataConfig

    @property
    def num_views(self) -> int:
        """Distinct augmented views of a training row; 0 = the plain one only (a text has no others)."""
        return self.data.num_views if self.data.augment and self.domain != "text" else 0
