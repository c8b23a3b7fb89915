"""What config sections are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

Domain = Literal["vision", "text", "speech"]
Precision = Literal["auto", "fp32", "bf16"]
# Names appear in paths of overrides and of files.
Name = Annotated[str, StringConstraints(pattern=r"^[^\s./\\=]+$")]


def _power_of_two(value: int) -> int:
    if value < 2 or value & (value - 1):
        raise ValueError(f"{value} is not a power of two from 2 on")
    return value


PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]


class Frozen(BaseModel):
    """A config section: immutable, unknown keys refused. Derive a new one with `model_copy(update=…)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
