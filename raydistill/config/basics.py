"""What config sections are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationInfo, field_validator

Domain = Literal["vision", "text", "speech"]
Precision = Literal["auto", "fp32", "bf16"]
PATHS = frozenset({"path", "cache_dir", "checkpoint", "model", "tokenizer"})  # fields where `~` is a home
# Names appear in paths of overrides and of files.
Name = Annotated[str, StringConstraints(pattern=r"^[^\s./\\=]+$", max_length=100)]


def _power_of_two(value: int) -> int:
    if value < 2 or value & (value - 1):
        raise ValueError(f"{value} is not a power of two from 2 on")
    return value


PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]


class Frozen(BaseModel):
    """A config section: immutable, unknown keys refused. Derive a new one with `model_copy(update=…)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_a_path(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{value!r} holds a NUL, which no file name does")
        if info.field_name in PATHS and isinstance(value, str):
            try:
                Path(value).expanduser()
            except RuntimeError:
                raise ValueError(f"{value!r} is in the home of nobody here") from None
        return value
