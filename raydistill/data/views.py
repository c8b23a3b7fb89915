"""A view is a pure function of (raw sample, seed): teacher and student, today and after a resume, see the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SHIFT_S = 0.1


def sample_seeds(view: int, sample_ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One 64-bit seed a row, from (view, sample id): SplitMix64's mixing (Steele et al. 2014), vectorised."""
    with np.errstate(over="ignore"):
        state = sample_ids.astype(np.uint64) + np.uint64(view) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def _part(seeds: NDArray[np.uint64], shift: int, choices: int) -> NDArray[np.int64]:
    """A number in 0…choices−1 from 16 bits of each seed."""
    return (((seeds >> np.uint64(shift)) & np.uint64(0xFFFF)) % np.uint64(choices)).astype(np.int64)


def image_views(pixels: NDArray[np.uint8], seeds: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Random crop after padding by an eighth, and a random left-right flip.

    Args:
        pixels: [batch, height, width, channels].
        seeds: [batch].
    """
    _, height, width, _ = pixels.shape
    margin = max(1, height // 8)
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    tops, lefts = _part(seeds, 0, 2 * margin + 1), _part(seeds, 16, 2 * margin + 1)
    flips = _part(seeds, 32, 2).astype(bool)
    views = np.empty_like(pixels)
    for row, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        views[row] = padded[row, top : top + height, left : left + width]
    views[flips] = views[flips, :, ::-1]
    return views


def speech_view(waveform: NDArray[np.float32], seed: np.uint64, sample_rate: int) -> NDArray[np.float32]:
    """A shift of up to 0.1 s and a gain of ±6 dB. waveform: float32 [num_samples]."""
    generator = np.random.default_rng(int(seed))
    limit = min(int(MAX_SHIFT_S * sample_rate), len(waveform) // 4)
    shift = int(generator.integers(-limit, limit + 1))
    gain = 10.0 ** (generator.uniform(-6.0, 6.0) / 20.0)
    shifted = np.zeros_like(waveform)
    if shift >= 0:
        shifted[shift:] = waveform[: len(waveform) - shift]
    else:
        shifted[:shift] = waveform[-shift:]
    view: NDArray[np.float32] = np.clip(shifted * np.float32(gain), -1.0, 1.0)
    return view


def text_view(text: str) -> str:
    """The text itself: an edit that is sure to keep the meaning is not known."""
    return text
