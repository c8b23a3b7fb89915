"""A model's own preparation of a view: normalisation and resolution, tokenizer, sample rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from transformers import PreTrainedTokenizerBase

from raydistill.data.batch import ViewBatch
from raydistill.devices import sent

CPU = torch.device("cpu")


class Preparer(Protocol):
    """From views to the keyword tensors of a model's forward."""

    def __call__(self, views: ViewBatch) -> dict[str, Tensor]:
        """The keyword tensors of these views, on the CPU."""
        ...


def prepared(prepare: Preparer, views: ViewBatch, device: torch.device) -> dict[str, Tensor]:
    """The keyword tensors of these views on a device, computed there where the preparer can."""
    # Whoever overrides the call wants it called.
    if isinstance(prepare, PreparerOnDevice) and type(prepare).__call__ is PreparerOnDevice.__call__:
        made = prepare.on(views, device)
    else:
        made = prepare(views)
    return {key: sent(value, device) for key, value in made.items()}


class PreparerOnDevice(ABC):
    """A preparer that sends what is small, such as the bytes of a picture, and computes where the model is."""

    @abstractmethod
    def on(self, views: ViewBatch, device: torch.device) -> dict[str, Tensor]:
        """The keyword tensors of these views, made on this device."""

    def __call__(self, views: ViewBatch) -> dict[str, Tensor]:
        """The same on the CPU."""
        return self.on(views, CPU)


@dataclass(frozen=True)
class VisionPreparer(PreparerOnDevice):
    """pixel_values float32 [batch, num_channels, image_size, image_size], normalised by mean and std."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_channels: int

    def __post_init__(self) -> None:
        if not all(self.std):
            raise ValueError(f"std {self.std} would divide by zero")

    def on(self, views: ViewBatch, device: torch.device) -> dict[str, Tensor]:
        """See the class."""
        pixels = sent(torch.from_numpy(np.ascontiguousarray(views.inputs)), device).permute(0, 3, 1, 2)
        if pixels.shape[1] == 1 and self.num_channels == 3:
            pixels = pixels.expand(-1, 3, -1, -1)
        elif pixels.shape[1] == 3 and self.num_channels == 1:
            pixels = transforms.rgb_to_grayscale(pixels)
        if pixels.shape[-1] != self.image_size:
            pixels = transforms.resize(pixels, [self.image_size, self.image_size], antialias=True)
        values = transforms.to_dtype(pixels, torch.float32, scale=True)
        mean, std = (
            sent(torch.tensor(each, dtype=torch.float32), device).view(-1, 1, 1) for each in (self.mean, self.std)
        )
        return {"pixel_values": values.sub(mean).div_(std)}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class TextPreparer:
    """input_ids and attention_mask int64 [batch, tokens], padded to the longest of the batch."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, views: ViewBatch) -> dict[str, Tensor]:
        """See the class."""
        encoded = self.tokenizer(
            list(views.inputs), truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        )
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint; the tokenizer lies beside it."""
        return {"max_length": self.max_length}


@dataclass(frozen=True)
class WaveformPreparer(PreparerOnDevice):
    """input_values float32 [batch, samples], zero mean and unit variance a clip; attention_mask int64."""

    sample_rate: int
    max_seconds: float

    def on(self, views: ViewBatch, device: torch.device) -> dict[str, Tensor]:
        """See the class."""
        clips = _resampled(views, self.sample_rate, self.max_seconds)
        # Strided convolutions need some length even where every clip of a batch is short.
        padded, mask = _padded(clips, max(self.sample_rate // 20, *(len(clip) for clip in clips)))
        padded, mask = sent(padded, device), sent(mask, device)
        count = mask.sum(dim=1, keepdim=True)
        mean = padded.sum(dim=1, keepdim=True) / count
        centred = (padded - mean) * mask
        variance = (centred**2).sum(dim=1, keepdim=True) / count
        return {"input_values": centred / (variance + 1e-7).sqrt(), "attention_mask": mask.long()}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class LogMelPreparer(PreparerOnDevice):
    """log_mel float32 [batch, frames, num_mels] and frame_mask bool [batch, frames]; a frame every 10 ms.

    Normalised to zero mean and unit variance a clip, over its real frames.
    """

    sample_rate: int
    max_seconds: float
    num_mels: int

    def on(self, views: ViewBatch, device: torch.device) -> dict[str, Tensor]:
        """See the class."""
        hop = self.sample_rate // 100
        clips = _resampled(views, self.sample_rate, self.max_seconds)
        padded = sent(_padded(clips, int(self.max_seconds * self.sample_rate))[0], device)
        spectrogram, to_mel = _mel_transform(self.sample_rate, self.num_mels, device)
        # |z|² from the two parts: the absolute value of a complex tensor takes four times as long.
        power = torch.view_as_real(spectrogram(padded)).square().sum(dim=-1)
        mel = to_mel(power).clamp_min(1e-8).log().transpose(1, 2)
        frames = torch.tensor([1 + len(clip) // hop for clip in clips]).clamp_max(mel.shape[1])
        mask = sent(torch.arange(mel.shape[1])[None, :] < frames[:, None], device)
        real = mask[:, :, None].float()
        count = real.sum(dim=(1, 2), keepdim=True) * mel.shape[2]
        centred = (mel - (mel * real).sum(dim=(1, 2), keepdim=True) / count) * real
        deviation = ((centred**2).sum(dim=(1, 2), keepdim=True) / count + 1e-6).sqrt()
        return {"log_mel": centred / deviation, "frame_mask": mask}

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)


@lru_cache(maxsize=4)
def _mel_transform(sample_rate: int, num_mels: int, device: torch.device) -> tuple[torch.nn.Module, torch.nn.Module]:
    """To complex spectra of 25 ms every 10 ms, and from their power to mel bands."""
    window = sample_rate // 40
    size = max(256, 1 << (window - 1).bit_length())
    spectrogram = torchaudio.transforms.Spectrogram(size, window, sample_rate // 100, power=None)
    to_mel = torchaudio.transforms.MelScale(num_mels, sample_rate, n_stft=size // 2 + 1)
    return spectrogram.to(device), to_mel.to(device)


def _resampled(views: ViewBatch, sample_rate: int, max_seconds: float) -> list[NDArray[np.float32]]:
    clips: list[NDArray[np.float32]] = []
    for clip in views.inputs:
        assert not isinstance(clip, str)
        wave = np.asarray(clip, dtype=np.float32)
        if views.sample_rate and views.sample_rate != sample_rate:
            wave = torchaudio.functional.resample(torch.from_numpy(wave), views.sample_rate, sample_rate).numpy()
        clips.append(wave[: int(max_seconds * sample_rate)])
    return clips


def _padded(clips: list[NDArray[np.float32]], length: int) -> tuple[Tensor, Tensor]:
    padded = torch.zeros(len(clips), length)
    mask = torch.zeros(len(clips), length)
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = torch.from_numpy(clip)
        mask[row, : len(clip)] = 1.0
    return padded, mask
