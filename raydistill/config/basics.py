"""What config sections are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationInfo, field_validator

from raydistill.secrecy import holds_secret, is_secret_of

Domain = Literal["vision", "text", "speech"]
Precision = Literal["auto", "fp32", "bf16"]
PATHS = frozenset({"path", "cache_dir", "checkpoint", "model", "tokenizer"})  # fields where `~` is a home
# Names appear in paths of overrides and of files, and in terminals.
Name = Annotated[str, StringConstraints(pattern=r"^[^\s./\\=\x00-\x1f\x7f-\x9f]+$", max_length=100)]


def _power_of_two(value: int) -> int:
    if value < 2 or value & (value - 1):
        raise ValueError(f"{value} is not a power of two from 2 on")
    return value


def _check_secrets(value: Any, named: str | None = None, path: str = "") -> None:
    """The resolved config stands in every run folder and report, for others to read.

    Args:
        named: among a library's options: what it lies under. Other sections have names that are the user's own.
        path: to the value, within its field.
    """
    if isinstance(value, str) and (holds_secret(value) or (named is not None and is_secret_of(named, value))):
        raise ValueError(
            f"{path + ': ' if path else ''}a password, key or token here would stand in config.yaml and report.html; "
            "leave it out, and give it in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_CONNECTION_STRING, HF_TOKEN, …) or in the provider's own "
            "config file"
        )
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_secrets(str(key))
            above = named is not None and is_secret_of(named, "anything")
            _check_secrets(inner, named if above or named is None else str(key), f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_secrets(inner, named, f"{path}[{index}]")


PowerOfTwo = Annotated[int, AfterValidator(_power_of_two)]


class Frozen(BaseModel):
    """A config section: immutable, unknown keys refused. Derive a new one with `model_copy(update=…)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_a_path(cls, value: Any, info: ValidationInfo) -> Any:
        _check_secrets(value, "" if info.field_name == "options" else None)
        if isinstance(value, str) and "\0" in value:
            raise ValueError(f"{value!r} holds a NUL, which no file name does")
        if info.field_name in PATHS and isinstance(value, str):
            try:
                Path(value).expanduser()
            except RuntimeError:
                raise ValueError(f"{value!r} is in the home of nobody here") from None
        return value
