"""The student's shape: a size, a kind of trunk, and any measure of them set free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from raydistill.config.basics import Frozen, PowerOfTwo

# width, depth, heads. Parameters without token embeddings: about 0.2, 0.8 and 5 million.
STUDENT_SIZES = {"tiny": (96, 2, 3), "small": (160, 3, 4), "base": (256, 6, 8)}


class ExpertsConfig(Frozen):
    """A trunk of `experts`: feed-forward layers of which each token passes a few."""

    num_experts: int = Field(4, ge=2)
    experts_per_token: PositiveInt = Field(2, description="that a token passes, of num_experts")
    balance_weight: NonNegativeFloat = Field(
        0.01, description="of the loss that keeps the experts equally busy; 0: leave them alone"
    )
    every: PositiveInt = Field(1, description="every n-th block has experts, the others one feed-forward layer")

    @model_validator(mode="after")
    def _enough_experts(self) -> ExpertsConfig:
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token {self.experts_per_token} is more than num_experts {self.num_experts}; lower it"
            )
        return self


class ReformerConfig(Frozen):
    """A `reformer` trunk: attention among tokens that a random hash puts side by side."""

    chunk_length: int = Field(64, ge=2, description="tokens that attend to each other, and to as many before them")
    num_hashes: PositiveInt = Field(2, description="rounds of hashing: more miss less and cost more")
    num_buckets: int = Field(64, ge=2, description="even; about twice the tokens of a long input over chunk_length")
    hash_seed: int = Field(0, ge=0, description="of the hashes outside training; training draws new ones every step")
    recompute: bool = Field(True, description="keep no activations inside a block for backward: less memory, slower")

    @model_validator(mode="after")
    def _buckets_come_in_pairs(self) -> ReformerConfig:
        if self.num_buckets % 2:
            raise ValueError(f"num_buckets {self.num_buckets} is odd; a hash has two ends: make it even")
        return self


class EncoderConfig(Frozen):
    """A `transformers` trunk: any encoder of that library that takes embeddings."""

    model: str = Field("bert", description="a model type, built from `options`; or a folder or hub name with weights")
    options: dict[str, Any] = Field(
        {}, description="of the model's own config; of a model type, measures not given here are the student's"
    )


class ClassifierConfig(Frozen):
    """A ready classifier as the whole student of a run with one task."""

    loader: Literal["torchvision", "transformers"]
    model: str = Field(description="as of a teacher: an architecture, a model type, a folder or a hub name")
    options: dict[str, Any] = Field({}, description="as of a teacher")


class StudentConfig(Frozen):
    """The student's shape: a size, and any measure of it set free."""

    size: Literal["tiny", "small", "base"] = "small"
    width: PositiveInt | None = None
    depth: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    trunk: Literal["dense", "experts", "reformer", "transformers"] = Field(
        "dense", description="the part that all tasks share; each kind but `dense` has its section here"
    )
    experts: ExpertsConfig = ExpertsConfig()
    reformer: ReformerConfig = ReformerConfig()
    encoder: EncoderConfig = EncoderConfig()
    classifier: ClassifierConfig | None = Field(
        None, description="instead of stem, trunk and head: one network, for one task"
    )
    patch_size: PowerOfTwo | None = Field(
        None, description="pixels a vision token covers, a power of two; default: about a seventh of the picture's side"
    )
    tokenizer: str = Field("train", description="`train` one on the task's texts, or a folder or hub name")
    vocab_size: PositiveInt = 8_192
    max_length: PositiveInt = Field(64, description="tokens the student reads")
    embedding_width: PositiveInt = Field(96, description="factorised token embedding: vocabulary × this")
    num_mels: PositiveInt = 40
    frames_per_token: PowerOfTwo = Field(4, description="10 ms frames that a speech token covers, a power of two")
    sample_rate: PositiveInt | None = Field(None, description="rate the student hears; default: the view's")
    embeddings_from: str | None = Field(None, description="text teacher whose token embeddings initialise ours")
    layers_from: str | None = Field(
        None, description="teacher whose layers, evenly picked, initialise a `transformers` trunk of its model type"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> StudentConfig:
        width, _, num_heads = self.measures
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}; change one of them")
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> StudentConfig:
        if self.trunk == "experts" and self.measures[1] < self.experts.every:
            raise ValueError(
                f"experts.every {self.experts.every} leaves no block of {self.measures[1]} with experts; lower it"
            )
        if self.layers_from is not None and self.trunk != "transformers":
            raise ValueError(f"layers_from is for trunk transformers, this one is {self.trunk}; change one of them")
        if self.classifier is not None:
            for name, given in (("embeddings_from", self.embeddings_from), ("layers_from", self.layers_from)):
                if given is not None:
                    raise ValueError(f"{name} is for a student of stem and trunk; with `classifier` leave it out")
        return self

    @property
    def measures(self) -> tuple[int, int, int]:
        """Width, depth and heads."""
        width, depth, num_heads = STUDENT_SIZES[self.size]
        return self.width or width, self.depth or depth, self.num_heads or num_heads

    def check_around(self, tasks: Mapping[str, Any], teachers: Mapping[str, Any]) -> None:
        """Whether the rest of the config fits.

        Raises:
            ValueError: a classifier has several tasks, or a lender is no teacher.
        """
        if self.classifier is not None and len(tasks) != 1:
            raise ValueError(f"student.classifier is for one task; tasks are {sorted(tasks)}")
        for name, lender in (("embeddings_from", self.embeddings_from), ("layers_from", self.layers_from)):
            if lender is not None and lender not in teachers:
                raise ValueError(f"student.{name} is {lender!r}; teachers are {sorted(teachers)}")
