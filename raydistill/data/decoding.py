"""From a raw value to what the prepared table holds; what cannot be used is a BadRow with its reason."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from PIL import Image, ImageOps

from raydistill.config.data import DataConfig


class BadRow(Exception):
    """This row cannot be used, and why."""


def image_bytes(value: Any, config: DataConfig) -> bytes:
    """uint8 pixels [image_size, image_size, channels], as bytes: short side resized, centre cropped."""
    size = config.image_size
    try:
        if isinstance(value, bytes):
            image: Image.Image = Image.open(io.BytesIO(value))
        elif isinstance(value, np.ndarray):
            image = Image.fromarray(value)
        elif isinstance(value, Image.Image):
            image = value
        else:
            raise BadRow(f"no image ({type(value).__name__})")
        image = ImageOps.exif_transpose(image).convert("L" if config.grayscale else "RGB")
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRow(f"corrupt image ({type(error).__name__})") from error
    return np.asarray(image, dtype=np.uint8).tobytes()


def clean_text(value: Any) -> str:
    """The text without surrounding space; empty ones are refused."""
    if not isinstance(value, str) or not value.strip():
        raise BadRow("empty text" if value is None or isinstance(value, str) else f"no text ({type(value).__name__})")
    return value.strip()


def audio_bytes(value: Any, config: DataConfig) -> bytes:
    """int16 mono samples at `sample_rate`, at most `max_seconds`, as bytes."""
    samples: NDArray[np.float32]
    if isinstance(value, bytes):
        try:
            samples, rate = soundfile.read(io.BytesIO(value), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
            raise BadRow(f"corrupt audio ({type(error).__name__})") from error
        samples = samples.mean(axis=1)
    elif isinstance(value, tuple):
        samples, rate = np.asarray(value[0], dtype=np.float32), int(value[1])
    else:
        raise BadRow(f"no audio ({type(value).__name__})")
    samples = samples[: math.ceil(config.max_seconds * rate)]
    if not len(samples):
        raise BadRow("zero-length audio")
    if not np.isfinite(samples).all():
        raise BadRow("audio with samples that are not numbers")
    if rate != config.sample_rate:
        samples = torchaudio.functional.resample(torch.from_numpy(samples), rate, config.sample_rate).numpy()
    samples = samples[: int(config.max_seconds * config.sample_rate)]
    return (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16).tobytes()
