"""From a raw value to the canonical one: pixels of one size, words without edges, mono sound of one rate."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from raydistill.config.data import DataConfig
from raydistill.data.decoding import BadRow, audio_bytes, clean_text, image_bytes


def config(**data: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "fashion_mnist", "image_size": 8, "sample_rate": 8_000, **data})


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels_of(value: Any, **data: Any) -> np.ndarray:
    settings = config(**data)
    channels = 1 if settings.grayscale else 3
    flat = np.frombuffer(image_bytes(value, settings), np.uint8)
    return flat.reshape(settings.image_size, settings.image_size, channels)


def sound(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def samples_of(value: Any, **data: Any) -> np.ndarray:
    return np.frombuffer(audio_bytes(value, config(**data)), np.int16).astype(np.float64) / 32768


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_picture_of_the_right_size_keeps_every_pixel(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(pixels), kind)), pixels)
    np.testing.assert_array_equal(pixels_of(pixels), pixels)


def test_grey_and_palette_pictures_become_rgb_and_rgb_becomes_grey() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(grey))), np.repeat(grey[:, :, None], 3, axis=2))
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert (pixels_of(encoded(red.convert("P"))) == (255, 0, 0)).all()
    assert (pixels_of(encoded(red), grayscale=True) == 76).all()  # 0.299 × 255, ITU-R 601
    np.testing.assert_array_equal(pixels_of(grey, grayscale=True)[:, :, 0], grey)


def test_transparent_pictures_become_rgb() -> None:
    assert pixels_of(encoded(Image.new("RGBA", (8, 8), (0, 255, 0, 10)))).shape == (8, 8, 3)


def test_a_wide_picture_is_cropped_at_its_centre() -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    np.testing.assert_array_equal(pixels_of(encoded(Image.fromarray(pixels))), np.full((8, 8, 3), 200))


def test_the_orientation_that_a_camera_noted_is_applied() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255
    note = Image.Exif()
    note[0x0112] = 3  # upside down
    turned = pixels_of(encoded(Image.fromarray(pixels), exif=note))
    assert (turned[7] == 255).all() and not turned[:7].any()


@pytest.mark.parametrize("value", [b"", b"nothing", None, "a path", {"bytes": None}])
def test_what_is_no_picture_is_a_bad_row(value: Any) -> None:
    with pytest.raises(BadRow, match="image"):
        image_bytes(value, config())


def test_text_loses_its_edges_only() -> None:
    assert clean_text("  two  words\n") == "two  words"


@pytest.mark.parametrize(("value", "reason"), [("", "empty"), (" \n\t", "empty"), (None, "empty"), (3, "no text")])
def test_what_is_no_text_is_a_bad_row(value: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        clean_text(value)


def test_sound_of_the_right_rate_keeps_its_samples() -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 800).astype(np.float32)
    np.testing.assert_allclose(samples_of(sound(wave, 8_000)), wave, atol=1e-4)
    np.testing.assert_allclose(samples_of((wave, 8_000)), wave, atol=1e-4)


def test_stereo_becomes_the_mean_of_both_sides() -> None:
    left, right = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 800))
    np.testing.assert_allclose(samples_of(sound(np.stack([left, right], axis=1), 8_000)), (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 44_100, 6_000])
def test_another_rate_is_resampled_and_the_pitch_stays(rate: int) -> None:
    wave = np.sin(2 * np.pi * 500 * np.arange(rate) / rate)
    heard = samples_of(sound(wave, rate))
    assert len(heard) == pytest.approx(8_000, abs=1)
    loudest = np.abs(np.fft.rfft(heard)).argmax() * 8_000 / len(heard)
    assert loudest == pytest.approx(500, abs=1)


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_long_clips_are_cut(rate: int) -> None:
    assert len(samples_of(sound(np.full(rate * 2, 0.5), rate), max_seconds=0.25)) == 2_000


def test_samples_beyond_full_scale_are_clipped() -> None:
    heard = samples_of(sound(np.array([3.0, -3.0, 0.0]), 8_000))
    np.testing.assert_allclose(heard, [1.0, -1.0, 0.0], atol=1e-4)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "corrupt"),
        (b"RIFFxxxxWAVE", "corrupt"),
        (sound(np.zeros(0), 8_000), "zero-length"),
        (sound(np.array([0.0, np.inf]), 8_000), "not numbers"),
        (None, "no audio"),
        ("a path", "no audio"),
    ],
    # Not the bytes: they hold the time, and every process of the suite would see other tests.
    ids=["empty", "no header", "no samples", "not finite", "none", "a path"],
)
def test_what_is_no_sound_is_a_bad_row(value: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        audio_bytes(value, config())
